"""SBPLayer.freeze: units that are gone for good."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_sbp.layers import SBPLayer, deciding

KEEP = np.array([True, False, True, False])


def frozen_gate(**arguments):
    gate = SBPLayer(num_samples=10, **arguments)
    gate.build((None, 4))
    gate.set_posterior([0.0, 0.0, -1.0, -2.0], [-3.0, -5.0, 1.0, -1.0])
    gate.freeze(KEEP)
    return gate


def trainable(gate, optimizer="sgd"):
    model = keras.Sequential([keras.Input((4,)), gate, keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model, np.ones((6, 4), "float32"), np.ones((6, 1), "float32")


def raw(gate):
    return np.stack([ops.convert_to_numpy(w.value) for w in (gate.mu, gate.log_sigma)])


@pytest.mark.parametrize("noise", ["example", "batch"])
@pytest.mark.parametrize(("shape", "axis"), [((5, 4), -1), ((5, 4, 3), 1)])
def test_frozen_units_are_zero_in_training_and_at_inference(noise, shape, axis):
    gate = frozen_gate(noise=noise, axis=axis)
    for training in (True, False):
        outputs = ops.convert_to_numpy(gate(np.ones(shape, "float32"), training=training))
        outputs = np.moveaxis(outputs, axis, 0)
        np.testing.assert_array_equal(outputs[~KEEP], 0.0)
        assert (outputs[0] > 0).all()
    assert (outputs[2] == 0).all()  # This one goes by the rule, not for good.
    np.testing.assert_array_equal(gate.keep(), [True, False, False, False])
    np.testing.assert_array_equal(gate.alive, KEEP)


def test_one_gate_for_the_whole_tensor_can_be_frozen():
    gate = SBPLayer(axis=None, num_samples=10)
    gate.build((None, 4))
    gate.freeze(np.array([False]))
    for training in (True, False):
        np.testing.assert_array_equal(gate(np.ones((2, 4), "float32"), training=training), 0.0)


def test_frozen_units_have_no_kl():
    gate = frozen_gate()
    expected = gate.posterior.kl_to_log_uniform()[KEEP].sum()
    np.testing.assert_allclose(gate.kl(), expected)
    gate(np.ones((6, 4), "float32"), training=True)
    np.testing.assert_allclose(float(gate.losses[0]), expected / 10, rtol=1e-5)
    np.testing.assert_allclose(gate.kl_loss(), expected / 10)


def test_frozen_units_get_no_gradient():
    gate = frozen_gate()
    model, x, y = trainable(gate, keras.optimizers.SGD(0.1))
    head = model.layers[-1]
    before, kernel = raw(gate), ops.convert_to_numpy(head.kernel.value)
    for _ in range(3):
        model.train_on_batch(x, y)
    np.testing.assert_array_equal(raw(gate)[:, ~KEEP], before[:, ~KEEP])
    assert (raw(gate)[:, KEEP] != before[:, KEEP]).all()
    changed = ops.convert_to_numpy(head.kernel.value) != kernel
    np.testing.assert_array_equal(changed[:, 0], KEEP)


def test_a_frozen_unit_cannot_spoil_the_others():
    gate = frozen_gate()
    model, x, y = trainable(gate)
    gate.mu.assign([0.0, np.nan, -0.1, np.inf])
    assert np.isfinite(model.train_on_batch(x, y))
    assert np.isfinite(raw(gate)[:, KEEP]).all()
    assert np.isfinite(model.predict(x, verbose=0)).all()
    assert np.isfinite(gate.kl())


def test_compiled_functions_see_what_is_frozen_later():
    gate = frozen_gate()
    gate.unfreeze()
    model, x, y = trainable(gate, keras.optimizers.SGD(0.0))

    def losses():
        return model.predict(x, verbose=0)[0, 0], model.evaluate(x, y, verbose=0)

    before = losses()
    gate.set_posterior(0.0, -5.0)
    gate.freeze(np.array([False, False, False, False]))
    bias = float(ops.convert_to_numpy(model.layers[-1].bias.value)[0])
    assert losses() == pytest.approx((bias, (1 - bias) ** 2))
    assert model.train_on_batch(x, y) == pytest.approx((1 - bias) ** 2)
    assert before[0] != bias


def test_freezing_only_removes():
    gate = frozen_gate()
    gate.freeze(np.ones(4, bool))
    np.testing.assert_array_equal(gate.alive, KEEP)
    gate.freeze()  # what the rule keeps
    np.testing.assert_array_equal(gate.alive, [True, False, False, False])
    gate.set_posterior(0.0, -5.0)
    np.testing.assert_array_equal(gate.keep(), [True, False, False, False])
    with deciding({gate: np.ones(4, bool)}):
        outputs = ops.convert_to_numpy(gate(np.ones((1, 4), "float32")))[0]
    np.testing.assert_array_equal(outputs > 0, gate.keep())
    gate.unfreeze()
    np.testing.assert_array_equal(gate.keep(), [True] * 4)


def test_an_array_that_does_not_fit_is_refused():
    gate = frozen_gate(name="gate_7")
    for keep in (np.ones(3, bool), np.ones(4), True):
        with pytest.raises(ValueError, match=r"'gate_7' does not fit it.*\(4,\)"):
            gate.freeze(keep)
    np.testing.assert_array_equal(gate.alive, KEEP)
    for call in (SBPLayer().freeze, SBPLayer().unfreeze, lambda: SBPLayer().alive):
        with pytest.raises(ValueError, match="not built"):
            call()


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_any_dtype_policy(policy):
    gate = frozen_gate(dtype=policy)
    for training in (True, False):
        outputs = ops.convert_to_numpy(gate(np.ones((2, 4)), training=training))
        np.testing.assert_array_equal(outputs[:, ~KEEP], 0.0)
    np.testing.assert_array_equal(gate.alive, KEEP)


def test_a_file_without_frozen_units_brings_all_back():
    gate, store = frozen_gate(), {}
    gate.save_own_variables(store)
    np.testing.assert_array_equal(store.pop("alive"), KEEP)
    gate.load_own_variables(store)
    assert gate.alive.all()
    with pytest.raises(ValueError, match=r"`alive` of shape \(4,\).*\(3,\)"):
        gate.load_own_variables({**store, "alive": np.ones(3)})
