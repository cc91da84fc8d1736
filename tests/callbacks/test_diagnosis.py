"""The warnings of SNRMonitor: each where it is due, once, and not elsewhere."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.callbacks.diagnosis import Diagnosis
from keras_sbp.callbacks.epoch_summary import EpochSummary, GateSummary
from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer
from keras_sbp.rules import SNRThreshold

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def summary(kept=4, moved=0.0, kl=0.1, units=4, trains=True, name="gate"):
    posterior = TruncatedLogNormal(np.zeros(units), np.full(units, moved - 5.0))
    keep, alive = np.arange(units) < kept, np.ones(units, bool)
    snr = posterior.snr()
    gate = GateSummary(name, posterior, SNRThreshold(), snr, keep, alive, kl, trains)
    return EpochSummary((gate,))


def diagnosis_of(epochs=20, optimizer="adam"):
    model = keras.Sequential([keras.Input((4,)), SBPLayer()])
    model.compile(optimizer, "mse")
    return Diagnosis(model, epochs, 1000)


def started(epochs=20, optimizer="adam"):
    diagnosis = diagnosis_of(epochs, optimizer)
    diagnosis.begin(summary())
    return diagnosis


def run(diagnosis, summaries, losses=None):
    losses = losses or [1.0] * len(summaries)
    return [diagnosis.after_epoch(s, loss, 1000) for s, loss in zip(summaries, losses, strict=True)]


def test_a_healthy_run_is_not_commented():
    summaries = [summary(kept=4 - epoch // 6, moved=0.4 * epoch, kl=0.3) for epoch in range(20)]
    # In the end the data loss lies far below the KL, as it should.
    losses = list(0.3 + np.geomspace(2.0, 0.01, 20))
    diagnosis = started()
    assert run(diagnosis, summaries, losses) == [[]] * 20
    assert diagnosis.at_end(summaries[-1]) == []


def test_gates_that_hardly_move():
    diagnosis = started(epochs=20)
    told = run(diagnosis, [summary(moved=0.01 * epoch) for epoch in range(1, 11)])
    assert [len(messages) for messages in told] == [0] * 4 + [1] + [0] * 5
    for word in ("hardly move", "0.05", "come to rest", "kl_weight"):
        assert word in told[4][0]
    assert diagnosis.at_end(summary(moved=0.1)) == []


def test_slow_gates_in_a_long_run_are_fine():
    assert not any(run(started(epochs=500), [summary(moved=0.01 * e) for e in range(1, 11)]))


def test_epochs_without_kl_do_not_count_as_standing_still():
    assert not any(run(started(), [summary(kl=0.0)] * 10))


def test_everything_about_to_go():
    told = run(started(), [summary(kept=1), summary(kept=0), summary(kept=0)])
    assert [len(messages) for messages in told] == [0, 1, 0]
    assert "'gate'" in told[1][0]
    assert "kl_weight" in told[1][0]


def test_a_branch_may_go_alone_but_not_everything():
    branch = summary(kept=0, units=1, name="branch").gates
    diagnosis = diagnosis_of()
    assert diagnosis.after_epoch(EpochSummary(summary(kept=2).gates + branch), 1.0, 1000) == []
    assert "'branch'" in diagnosis_of().after_epoch(EpochSummary(branch), 1.0, 1000)[0]


def test_nothing_pruned_at_the_end():
    diagnosis = started()
    run(diagnosis, [summary(moved=2.5)] * 3)
    (message,) = diagnosis.at_end(summary(moved=2.5))
    assert "Nothing will be pruned" in message
    assert "2.5" in message
    assert diagnosis.at_end(summary()) == []


def test_nothing_pruned_because_the_kl_never_counted():
    diagnosis = started()
    run(diagnosis, [summary(kl=0.0)])
    assert "weight 0 throughout" in diagnosis.at_end(summary(kl=0.0))[0]


def test_a_kl_that_outweighs_the_data_loss():
    told = run(started(), [summary(kl=3.0), summary(kl=2.9)], [5.0, 4.9])
    assert [len(messages) for messages in told] == [1, 0]
    assert "adds 3 to the loss, the data loss is 2" in told[0][0]


def test_a_loss_that_is_not_logged_or_negative_is_not_judged():
    assert run(started(), [summary(kl=3.0)], [None]) == [[]]
    assert run(started(), [summary(kl=3.0), summary(kl=3.0)], [2.0, -5.0]) == [[], []]


def test_gates_that_are_never_trained():
    told = run(started(), [summary(trains=False, kl=0.0)] * 2)
    assert [len(messages) for messages in told] == [1, 0]
    assert "training=True" in told[0][0]


def fit(optimizer, epochs, *, model=None, **arguments):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = model or keras.Sequential([keras.Input((4,)), SBPLayer(**arguments)])
    model.compile(optimizer, "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(x, x, batch_size=32, epochs=epochs, verbose=0, callbacks=[SNRMonitor()])
    return [str(w.message) for w in caught if w.category is UserWarning]


def test_a_violent_kl_is_told_once_per_finding():
    messages = fit(keras.optimizers.Adam(0.05), 8, kl_weight=100.0, num_samples=10)
    assert [message.split(" at ")[0].split(":")[0] for message in messages] == [
        "The KL outweighs the data",
        "Everything is about to be pruned",
    ]


@keras.saving.register_keras_serializable(package="test_diagnosis")
class Forgetful(keras.Model):
    def __init__(self):
        super().__init__()
        self.gate = SBPLayer(name="forgotten")

    def call(self, inputs):
        return self.gate(inputs)


def test_a_subclassed_model_that_never_says_training():
    (message,) = fit("sgd", 1, model=Forgetful())
    assert "Gate 'forgotten' was never called with training=True" in message


@pytest.mark.parametrize("policy", ["mixed_float16"])
def test_names_the_users_optimizer_under_loss_scaling(policy):
    keras.config.set_dtype_policy(policy)
    try:
        (message,) = fit(keras.optimizers.SGD(1e-4), 1, kl_weight=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")
    assert "trains with SGD" in message
