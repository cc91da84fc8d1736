"""Shapes are cut into blocks whose axes merge, split or move."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sbp.handlers.layers.reshaping import match_axes, match_last_axes


@pytest.mark.parametrize(
    ("before", "after", "blocks"),
    [
        ((None, 4, 5), (None, 20), [((1, 2), (1,))]),
        ((None, 20), (None, 4, 5), [((1,), (1, 2))]),
        ((None, 4, 5, 6), (None, 20, 6), [((1, 2), (1,)), ((3,), (2,))]),
        ((None, 4, 6), (None, 6, 4), [((1, 2), (1, 2))]),
        ((None, 7), (None, 1, 1, 7), [((1,), (1, 2, 3))]),
        ((None, 7, 1), (None, 7), [((1, 2), (1,))]),
        ((None, None, 6), (None, None, 2, 3), [((1,), (1,)), ((2,), (2, 3))]),
        ((None, None, 6), (None, None), None),
        ((None, None, 4, 6), (None, None, 6), None),
    ],
)
def test_blocks(before, after, blocks) -> None:
    found = match_axes(before, after)
    assert (found and [(b.inputs, b.outputs) for b in found]) == blocks


@pytest.mark.parametrize(
    ("before", "after", "blocks"),
    [
        ((None, 2, 2, 3, 2, 8), (None, 3, 2, 8), [((3,), (1,)), ((4,), (2,)), ((5,), (3,))]),
        ((None, None, None, 6), (None, None, 6), [((3,), (2,))]),
        ((None, None, 4, 6), (None, 24), [((2, 3), (1,))]),
        ((None, 8), (None, 4), None),
        ((None, None), (None, None), None),
    ],
)
def test_last_axes(before, after, blocks) -> None:
    found = match_last_axes(before, after)
    assert (found and [(b.inputs, b.outputs) for b in found]) == blocks


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_blocks_cover_both_shapes_with_equal_products(sizes, random) -> None:
    before = (None, *sizes)
    borders = sorted(random.sample(range(1, len(sizes)), random.randint(0, len(sizes) - 1)))
    cuts = zip([0, *borders], [*borders, len(sizes)], strict=True)
    after = (None, *(math.prod(sizes[a:b]) for a, b in cuts))
    blocks = match_axes(before, after)
    assert [a for b in blocks for a in b.inputs] == list(range(1, len(before)))
    assert [a for b in blocks for a in b.outputs] == list(range(1, len(after)))
    for block in blocks:
        left, right = ([s[a] for a in axes] for s, axes in _sides(block, before, after))
        assert math.prod(left) == math.prod(right)


def _sides(block, before, after):
    return [(before, block.inputs), (after, block.outputs)]
