"""A layer of one's own, with a kernel of its own, is first class by one handler."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.handlers import LayerHandler, constants, kept, register_handler
from tests.pruning.oracle import drop_units, randomise


@keras.saving.register_keras_serializable(package="test_own_kernel")
class Energy(keras.layers.Layer):
    """(x · weights)², one number per unit; the weights have the units first."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.directions = self.add_weight(shape=(self.units, shape[-1]), name="directions")

    def call(self, x):
        return keras.ops.square(keras.ops.matmul(x, keras.ops.transpose(self.directions)))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units}


class EnergyHandler(LayerHandler):
    """Inputs that are 0 and units are pruned."""

    def values(self, op, inputs):
        return [{}]

    def needs(self, op, needed, inputs):
        last, weights = op.inputs[0].rank - 1, directions(op)
        units = kept(needed[0], last, len(weights))
        zero = constants(inputs[0], last, weights.shape[1]) == 0
        keep = (weights[units] != 0).any(0) & ~zero
        keep[0] |= not keep.any()
        return [{last: keep}]

    def rebuild(self, op, inputs, needed, build):
        last, weights = op.inputs[0].rank - 1, directions(op)
        slim = build.settle(inputs[0])
        units = kept(needed[0], last, len(weights))
        left = {"directions": weights[units][:, slim.carries(last)]}
        _, tensor = build.call(op, slim.tensor, left, units=int(units.sum()))
        return [build.slim(op.outputs[0], tensor, carried={last: units})]

    def macs(self, op):
        positions = np.prod([n or 1 for n in op.inputs[0].shape[1:-1]], dtype=int)
        return int(positions) * directions(op).size

    def kernel_rows(self, op, axis):
        return directions(op)


def directions(op) -> np.ndarray:
    return keras.ops.convert_to_numpy(op.operation.directions)


@pytest.fixture(autouse=True)
def _registered(own_registry: None) -> None:
    register_handler(Energy)(EnergyHandler)


def network() -> keras.Model:
    energy = Energy(8, name="energy")
    model = keras.Sequential([keras.Input((6,)), energy, keras.layers.Dense(3, name="last")])
    energy.directions.assign(np.random.default_rng(0).normal(size=(8, 6)))
    return randomise(model)


def test_its_cost_is_counted_its_units_are_ranked_and_half_of_them_go() -> None:
    model = network()
    weights = keras.ops.convert_to_numpy(model.get_layer("energy").directions)
    small, report = keras_sbp.prune(model, keras_sbp.L1Norm(keep=0.5))
    rows = {row.name: row for row in report.layers}
    assert (rows["energy"].macs_before, rows["energy"].macs_after) == (8 * 6, 4 * 6)
    assert (report.macs_before, report.macs_after) == (8 * 6 + 8 * 3, 4 * 6 + 4 * 3)
    assert (rows["energy"].units_before, rows["energy"].units_after) == (8, 4)
    largest = np.sort(np.argsort(np.abs(weights).sum(1))[4:])
    left = keras.ops.convert_to_numpy(small.get_layer("energy").directions)
    np.testing.assert_array_equal(left, weights[largest])


def test_it_gets_a_gate_and_pruning_is_exact() -> None:
    gated = randomise(keras_sbp.insert_sbp(network()))
    assert [layer.name for layer in gated.layers[1:]] == ["energy", "energy_gate", "last"]
    drop_units(gated.get_layer("energy_gate"), [1, 2, 5, 7])
    small, _ = keras_sbp.prune(gated, verify=False)
    x = np.random.default_rng(1).normal(size=(16, 6)).astype(np.float32)
    expected, received = (keras.ops.convert_to_numpy(each(x)) for each in (gated, small))
    np.testing.assert_allclose(received, expected, atol=1e-5 * np.abs(expected).max())
    assert small.get_layer("energy").units == 4
