"""The networks of the demonstrations are those that they are said to be."""

from __future__ import annotations

from keras_sbp.demo import recipes
from keras_sbp.layers import find_gates
from keras_sbp.pruning import prune


def test_lenet_is_the_one_of_the_papers():
    assert recipes.lenet5(gated=False).count_params() == 431_080
    gates = find_gates(recipes.lenet5(gated=True))
    assert [gate.units for gate in gates] == [20, 50, 800, 500]


def test_pruning_the_gated_networks_gives_back_the_ungated_ones():
    for build in (recipes.small_convnet, recipes.lenet5):
        plain, (small, report) = build(False), prune(build(True))
        assert small.count_params() == plain.count_params() == report.params_before
