"""Tensors of a program."""

import pytest

from keras_sbp.program import Tensor


def test_size_of_an_axis():
    assert Tensor((None, None, 3), "float32").size(-1) == 3


def test_an_axis_of_unknown_size_has_no_units():
    with pytest.raises(ValueError, match=r"Axis 1 of a tensor of shape \(None, None, 3\)"):
        Tensor((None, None, 3), "float32").size(1)
