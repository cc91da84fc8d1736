"""SNRMonitor: what it logs, where it writes, and when it refuses."""

from __future__ import annotations

import csv
import functools
import logging
import re

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = X[:, :1]

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Runs this short say rightly that nothing will be pruned; that is tested elsewhere."""


@functools.cache
def compiled_model():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            SBPLayer(name="first"),
            keras.layers.Dense(5),
            SBPLayer(name="second"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model


def gated():
    """Returns a model, compiled once for all tests, and its gates as new."""
    model = compiled_model()
    gates = model.get_layer("first"), model.get_layer("second")
    for gate in gates:
        gate.set_posterior(0.0, -5.0)
    return model, *gates


def prune_some(first, second):
    first.set_posterior(0.0, [-5.0, 4.0, -5.0])
    second.set_posterior(-1.0, [4.0, -5.0, 4.0, -5.0, 4.0])


def test_puts_plain_floats_into_logs_and_history():
    model, first, second = gated()
    prune_some(first, second)
    monitor = SNRMonitor()
    logs = model.fit(X, Y, batch_size=6, epochs=2, verbose=0, callbacks=[monitor]).history
    sbp = {key: values[-1] for key, values in logs.items() if key.startswith("sbp_")}
    snr = np.concatenate([first.snr(), second.snr()])
    expected = {
        "sbp_kept": first.keep().sum() + second.keep().sum(),
        "sbp_sparsity": 0.5,
        "sbp_kl": (first.kl() + second.kl()) / 12,
        "sbp_snr_p5": snr.min(),
        "sbp_snr_p50": np.quantile(snr, 0.5, method="nearest"),
        "sbp_snr_p95": snr.max(),
        "sbp_kept_first": 2,
        "sbp_kept_second": 2,
    }
    assert list(sbp) == list(expected)
    assert all(type(value) is float for value in sbp.values())
    np.testing.assert_allclose(list(sbp.values()), list(expected.values()), rtol=1e-6)
    assert monitor.history["epoch"] == [0, 1]
    for key, values in monitor.history.items():
        assert key == "epoch" or values == logs["sbp_" + key]


def test_callbacks_behind_it_see_its_entries(tmp_path):
    model, first, second = gated()
    prune_some(first, second)
    stop = keras.callbacks.EarlyStopping(monitor="sbp_kept", mode="min", patience=1)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(X, Y, epochs=9, verbose=0, callbacks=[SNRMonitor(), stop, log])
    assert len(history.epoch) == 2
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["sbp_kept_second"]) == 2.0


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_gates_one_by_one_are_for_every_callback_but_the_progress_bar(
    tmp_path, capsys, verbose
):
    model, *_ = gated()
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    seen = []
    last = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    history = model.fit(X, Y, epochs=2, verbose=verbose, callbacks=[SNRMonitor(), log, last])
    out = capsys.readouterr().out
    assert "sbp_kept:" in out and "sbp_kept_" not in out
    for name in ("sbp_kept_first", "sbp_kept_second"):
        assert len(history.history[name]) == 2
        assert all(name in logs for logs in seen)
        assert name in (tmp_path / "log.csv").read_text()


def test_quantiles_and_prefix_are_the_users():
    model, *_ = gated()
    monitor = SNRMonitor(quantiles=(0.0, 0.125), prefix="gates/")
    logs = model.fit(X, Y, verbose=0, callbacks=[monitor]).history
    assert {"gates/kept", "gates/snr_p0", "gates/snr_p12.5"} < set(logs)


def test_gates_of_one_name_in_nested_models_stay_apart():
    branches = [
        keras.Sequential([keras.Input((4,)), SBPLayer(name="gate")], name=name) for name in "ab"
    ]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.add([branch(inputs) for branch in branches]))
    model.compile("sgd", "mse")
    logs = model.fit(X, X, verbose=0, callbacks=[SNRMonitor()]).history
    assert {"sbp_kept_gate", "sbp_kept_gate_2"} < set(logs)
    assert logs["sbp_kept"] == [8.0]


def test_a_line_per_epoch_follows_the_progress_bars_own(capsys):
    model, first, second = gated()
    prune_some(first, second)
    model.fit(X, Y, epochs=2, verbose=2, callbacks=[SNRMonitor()])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["Epoch", "1/1", "SBP", "Epoch", "1/1", "SBP"]
    assert re.fullmatch(
        r"SBP keeps 4 of 8 units \(50% sparsity\), KL [\d.]+: first 2/3, second 2/5", lines[2]
    )


@pytest.mark.parametrize(
    ("of_monitor", "of_fit", "lines"), [("auto", 0, 0), (0, 2, 0), (1, 0, 1), ("auto", "auto", 1)]
)
def test_verbose(capsys, of_monitor, of_fit, lines):
    model, *_ = gated()
    model.fit(X, Y, verbose=of_fit, callbacks=[SNRMonitor(verbose=of_monitor)])
    assert capsys.readouterr().out.count("SBP keeps") == lines


def test_writes_to_the_log_where_the_progress_bar_does(capsys, caplog):
    model, *_ = gated()
    keras.config.disable_interactive_logging()
    try:
        with caplog.at_level(logging.INFO, logger="keras_sbp"):
            model.fit(X, Y, verbose=2, callbacks=[SNRMonitor()])
    finally:
        keras.config.enable_interactive_logging()
    assert "SBP keeps" not in capsys.readouterr().out
    records = [record for record in caplog.records if record.name == "keras_sbp"]
    assert [record.levelname for record in records] == ["INFO"]
    assert records[0].getMessage().startswith("SBP keeps 8 of 8")


@pytest.mark.remedy("Put keras_sbp.SBPLayer() behind the layers whose units may go")
def test_a_model_without_gates_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="SNRMonitor found no gate in model 'plain'"):
        model.fit(X, Y, verbose=0, callbacks=[SNRMonitor()])
    model.fit(X, Y, verbose=0)
    gated = keras.Sequential([*model.layers[:-1], SBPLayer(), keras.layers.Dense(1)])
    gated.compile("sgd", "mse")
    gated.build((None, 4))
    assert "sbp_kept" in gated.fit(X, Y, verbose=0, callbacks=[SNRMonitor()]).history


def test_a_bad_posterior_is_refused_before_training():
    model, first, _ = gated()
    first.mu.assign([0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="'first' has NaN or Inf .* 1 of its 3 units"):
        model.fit(X, Y, verbose=0, callbacks=[SNRMonitor()])


def test_a_posterior_that_goes_bad_stops_training_after_the_epoch():
    model, _, second = gated()

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                second.log_sigma.assign([0.0, np.inf, np.nan, 0.0, 0.0])

    monitor = SNRMonitor()
    with pytest.raises(ValueError, match="'second' has NaN or Inf .* 2 of its 5 units"):
        model.fit(X, Y, epochs=5, verbose=0, callbacks=[Spoil(), monitor])
    assert monitor.history["epoch"] == [0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"verbose": "loud"}, ValueError),
        ({"quantiles": (0.5, 1.5)}, ValueError),
        ({"quantiles": (float("nan"),)}, ValueError),
        ({"prefix": 3}, TypeError),
    ],
)
def test_refuses_bad_arguments(arguments, error):
    with pytest.raises(error, match="SNRMonitor expected"):
        SNRMonitor(**arguments)


def test_repr_says_what_came_of_it():
    monitor = SNRMonitor()
    assert repr(monitor) == "<SNRMonitor before its first epoch>"
    model = keras.Sequential([keras.Input((4,)), SBPLayer(num_samples=10)])
    model.compile("sgd", "mse")
    x = np.ones((8, 4), "float32")
    model.fit(x, x, epochs=2, verbose=0, callbacks=[monitor])
    assert repr(monitor).startswith("<SNRMonitor after epoch 2: SBP keeps 4 of 4 units (0% ")
