"""Weight decay pulls log sigma towards 0, where every unit looks like noise: gates have none."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import keras_sbp

INPUTS = np.ones((8, 3), "float32")
OPTIMIZERS = {
    "AdamW": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
    "SGD": lambda: keras.optimizers.SGD(1e-2, weight_decay=0.1),
    "Lion": lambda: keras.optimizers.Lion(1e-2, weight_decay=0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    ),
}


@keras.saving.register_keras_serializable(package="test_weight_decay")
def flat(y: object, x: object) -> object:
    """A loss without a gradient: what moves was decayed."""
    return 0.0 * keras.ops.sum(x, axis=-1)


def compiled(optimizer) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="decayed"),
            keras_sbp.SBPLayer(num_samples=8, kl_weight=0.0, mu_initializer=1.0, name="gate"),
            keras.layers.Dense(2, name="spared"),
        ]
    )
    model.compile(optimizer, flat)
    return model


def fit(model: keras.Model) -> None:
    monitor = keras_sbp.SNRMonitor(verbose=0)
    model.fit(INPUTS, INPUTS[:, :2], 1, epochs=3, verbose=0, callbacks=[monitor])


def norm(model: keras.Model, layer: str) -> float:
    return float(np.abs(model.get_layer(layer).get_weights()[0]).sum())


def assert_unmoved(model: keras.Model) -> None:
    posterior = model.get_layer("gate").posterior
    np.testing.assert_allclose(posterior.mu, 1.0, rtol=1e-6)
    np.testing.assert_allclose(posterior.log_sigma, -5.0, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "built"),
    [("AdamW", False), ("AdamW", True), ("SGD", True), ("Lion", True), ("scaled", True)],
)
def test_gates_are_left_out_of_weight_decay(kind: str, built: bool) -> None:
    model = compiled(OPTIMIZERS[kind]())
    if built:
        model.optimizer.build(model.trainable_variables)
    before = norm(model, "decayed")
    fit(model)
    assert_unmoved(model)
    assert norm(model, "decayed") < before - 1e-3


def test_a_loop_of_ones_own_leaves_the_gates_out_as_documented() -> None:
    """The line of docs/monitoring.md."""
    optimizer = OPTIMIZERS["AdamW"]()
    model = compiled(optimizer)
    gates = [layer for layer in model.layers if isinstance(layer, keras_sbp.SBPLayer)]
    optimizer.exclude_from_weight_decay(
        [weight for gate in gates for weight in (gate.mu, gate.log_sigma)]
    )
    before = norm(model, "decayed")
    for _ in range(3):
        model.train_on_batch(INPUTS, INPUTS[:, :2])
    assert_unmoved(model)
    assert norm(model, "decayed") < before - 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_the_user_left_out_of_weight_decay_stays_so(tmp_path) -> None:
    optimizer = OPTIMIZERS["AdamW"]()
    model = compiled(optimizer)
    optimizer.exclude_from_weight_decay(model.get_layer("spared").trainable_variables)
    before = norm(model, "spared")
    fit(model)
    assert norm(model, "spared") == before
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded)
    assert_unmoved(loaded)
    assert norm(loaded, "decayed") < norm(model, "decayed")


@pytest.mark.tensorflow  # the other trainers build a model before callbacks are asked
@pytest.mark.remedy("Call the model on a batch before fit(), or give it a keras.Input")
@pytest.mark.filterwarnings("ignore:No gate can:UserWarning")
def test_gates_that_are_built_too_late_are_named() -> None:
    def train(*begin: object, call: bool = False) -> keras.Model:
        gate = keras_sbp.SBPLayer(num_samples=8, kl_weight=0.0, mu_initializer=1.0, name="gate")
        model = keras.Sequential([*begin, keras.layers.Dense(4), gate, keras.layers.Dense(2)])
        model.compile(OPTIMIZERS["AdamW"](), flat)
        if call:
            model(INPUTS)
        fit(model)
        return model

    with pytest.warns(UserWarning, match="not built when training begins: 'gate'.*Call the model"):
        train()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The optimizer's weight decay")
        assert_unmoved(train(call=True))
        assert_unmoved(train(keras.Input((3,))))
