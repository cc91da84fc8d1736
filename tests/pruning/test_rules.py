"""Rules that need no gates, budgets and rounding, through prune()."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp import BatchNormScale, Budget, L1Norm, L2Norm, Random, SNRThreshold, Taylor
from keras_sbp.layers import find_gates
from keras_sbp.rules import Decision, FractionRule, Rule
from tests.pruning.oracle import randomise

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 12, 12, 3)).astype("float32"), RNG.integers(0, 5, 40)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> Model:
    """Convolutions with a residual block and dropout, then dense layers."""
    image = x = Input((12, 12, 3), name="image")
    for number in (1, 2):
        x = layers.Conv2D(8 * number, 3, padding="same", name=f"conv{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"bn{number}")(x))
    y = layers.Conv2D(10, 3, padding="same", activation="relu", name="branch")(x)
    x = x + layers.Conv2D(16, 1, name="back")(y)
    x = layers.Flatten()(layers.MaxPooling2D(3)(x))
    x = layers.Dense(20, "relu", name="hidden")(layers.Dropout(0.5)(x))
    return randomise(Model(image, layers.Dense(5, name="logits")(x)))


def widths(model: Model) -> dict[str, int]:
    return {
        layer.name: layer.kernel.shape[-1] for layer in model.layers if hasattr(layer, "kernel")
    }


RULES = {
    "l1": L1Norm,
    "l2": L2Norm,
    "random": Random,
    "taylor": lambda keep: Taylor((X, Y), keep, loss=LOSS),
}


@pytest.mark.parametrize("name", RULES)
def test_a_fraction_of_each_group_stays(name: str) -> None:
    model = network()
    before = [w.copy() for w in model.get_weights()]
    small, report = keras_sbp.prune(model, RULES[name](keep=0.5))
    kept = widths(small)
    assert {n: kept[n] for n in ("conv1", "branch", "hidden")} == {
        "conv1": 4,
        "branch": 5,
        "hidden": 10,
    }
    assert report.max_abs_error < 1e-4
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_everything_stays_with_a_fraction_of_one() -> None:
    model = network()
    small, _ = keras_sbp.prune(model, L1Norm(keep=1.0))
    assert widths(small) == widths(model)
    difference = keras.ops.abs(model(X) - small(X))
    assert float(keras.ops.max(difference)) < 1e-4


@pytest.mark.parametrize(("rule", "power"), [(L1Norm, 1), (L2Norm, 2)])
def test_norms_keep_the_largest_filters(rule, power) -> None:
    model = network()
    kernel = np.asarray(model.get_layer("branch").kernel).reshape(-1, 10)
    largest = np.sort(np.argsort((np.abs(kernel) ** power).sum(0))[5:])
    small, _ = keras_sbp.prune(model, rule(keep=0.5))
    kept = np.asarray(small.get_layer("branch").kernel)
    inputs = kept.shape[2]
    assert inputs == 16  # a residual stream keeps its units
    assert np.allclose(kept, np.asarray(model.get_layer("branch").kernel)[..., largest])


def test_batch_norm_scale() -> None:
    model = network()
    gamma = np.array([0.1, -3.0, 0.2, 2.0, 0.3, 0.4, -2.5, 1.0])
    model.get_layer("bn1").gamma.assign(gamma)
    small, report = keras_sbp.prune(model, BatchNormScale(keep=0.5))
    assert widths(small)["conv1"] == 4
    assert widths(small)["hidden"] == 20  # has no BatchNormalization
    kept = np.asarray(model.get_layer("conv1").kernel)[..., np.abs(gamma) >= 1.0]
    small_kernel = np.asarray(small.get_layer("conv1").kernel)
    assert small_kernel.shape == kept.shape


def test_random_is_reproducible() -> None:
    model = network()
    first, second, other = (
        keras_sbp.prune(model, Random(0.5, seed=seed))[0].get_weights() for seed in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_taylor_is_the_squared_gradient() -> None:
    """Of a linear network, the gradient by a unit's factor can be written down."""
    inputs = Input((4,))
    hidden = layers.Dense(3, name="hidden")
    out = layers.Dense(1, name="out")
    model = randomise(Model(inputs, out(hidden(inputs))))
    x, y = RNG.standard_normal((6, 4)).astype("float32"), RNG.standard_normal((6, 1))
    h, z = np.asarray(hidden(x)), np.asarray(model(x))
    expected = np.zeros(3)
    for part in (slice(0, 4), slice(4, 6)):
        error = 2 * (z[part] - y[part]) / len(z[part])
        expected += (error * h[part] * np.asarray(out.kernel)[:, 0]).sum(0) ** 2 / 2
    seen = {}

    class Watched(keras_sbp.rules.Rule):
        def importance(self, network):
            seen.update(network.squared_gradients((x, y), "mse", 4))
            return seen

        def decide(self, network):
            importance = self.importance(network)
            return Decision({group: np.ones(group.units, bool) for group in importance})

    keras_sbp.prune(model, Watched())
    (received,) = seen.values()
    assert np.allclose(received, expected, rtol=1e-4)


def test_taylor_takes_the_loss_that_the_model_is_compiled_with() -> None:
    model = network()
    with pytest.raises(ValueError, match="not compiled with a loss"):
        keras_sbp.prune(model, Taylor((X, Y)))
    model.compile(loss=LOSS)
    keras_sbp.prune(model, Taylor((X, Y)))


@pytest.mark.parametrize("what", ["macs", "params"])
@pytest.mark.parametrize("target", [0.7, 0.3, 0.15])
def test_budget_is_met_to_within_a_unit(what: str, target: float) -> None:
    model = network()
    _, report = keras_sbp.prune(model, Budget(**{what: target}, base=L2Norm()))
    before, after = getattr(report, f"{what}_before"), getattr(report, f"{what}_after")
    assert after <= target * before
    assert after > (target - 0.06) * before  # the dearest unit; see also test_ranking.py


def test_budget_of_everything_removes_nothing() -> None:
    model = network()
    small, _ = keras_sbp.prune(model, Budget(macs=1.0, base=L2Norm()))
    assert widths(small) == widths(model)


def test_budget_that_cannot_be_met() -> None:
    with pytest.raises(ValueError, match="budget cannot be met.*tie_residual=True"):
        keras_sbp.prune(network(), Budget(macs=0.001, base=L2Norm()))


def test_budget_that_rounding_keeps_from_being_met() -> None:
    rule = Budget(macs=0.2, base=L2Norm())
    keras_sbp.prune(network(), rule)
    with pytest.raises(ValueError, match="multiples of 16"):
        keras_sbp.prune(network(), rule, round_to=16)


def gated() -> Model:
    model = keras_sbp.insert_sbp(network())
    for gate in find_gates(model):
        log_sigma = np.linspace(3.0, -4.0, gate.units)
        gate.set_posterior(np.full(gate.units, -0.3), log_sigma)
    return model


def branches() -> Model:
    """Three residual branches, the second the most important, and 96 MACs beside them."""
    x = inputs = Input((10,), name="image")
    x = layers.Dense(8, "relu")(x)
    for number in range(3):
        y = layers.Dense(8)(layers.Dense(16, "relu", name=f"wide{number}")(x))
        gate = keras_sbp.SBPLayer(axis=(), name=f"branch{number}")
        x = layers.Add()([x, gate(y)])
    model = randomise(Model(inputs, layers.Dense(2)(x)))
    for number, mu in enumerate((-3.0, -1.0, -2.0)):
        model.get_layer(f"branch{number}").set_posterior(mu, 0.5)
    return model


@pytest.mark.parametrize(
    ("fraction", "left"), [(0.8, {"wide1", "wide2"}), (0.5, {"wide1"}), (0.2, set())]
)
def test_budget_takes_whole_branches(fraction: float, left: set[str]) -> None:
    small, _ = keras_sbp.prune(branches(), Budget(macs=fraction))
    assert {layer.name for layer in small.layers if layer.name.startswith("wide")} == left


def test_budget_keeps_the_branch_without_which_nothing_is_left() -> None:
    inputs = Input((10,), name="image")
    parts = [keras_sbp.SBPLayer(axis=())(layers.Dense(8)(inputs)) for _ in range(2)]
    model = randomise(Model(inputs, layers.Dense(2)(layers.Add()(parts))))
    small, _ = keras_sbp.prune(model, Budget(macs=0.7))
    assert sum(isinstance(layer, layers.Dense) for layer in small.layers) == 2
    with pytest.raises(ValueError, match=r"cannot be met.* 54\.5% remain"):
        keras_sbp.prune(model, Budget(macs=0.3))


def test_budget_spares_a_stream_that_many_layers_write_to() -> None:
    """Of filters alike, those of a residual stream are worth as many as layers write to it."""
    x = inputs = Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 1, name="stem")(x)
    for number in range(3):
        y = layers.Conv2D(16, 1, activation="relu", name=f"narrow{number}")(x)
        x = layers.Add()([x, layers.Conv2D(16, 1, name=f"back{number}")(y)])
    model = randomise(Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))))
    gated = keras_sbp.insert_sbp(model, tie_residual=True)
    small, _ = keras_sbp.prune(gated, Budget(macs=0.3, base=L2Norm()))
    kept = widths(small)
    assert kept["stem"] >= 6
    assert min(kept[f"narrow{number}"] for number in range(3)) >= 3


def test_budget_over_posteriors_removes_first_what_the_rule_would() -> None:
    model = gated()
    natural, report = keras_sbp.prune(model)
    share = report.macs_after / report.macs_before
    for wanted in (share * 1.15, share * 0.85):
        for group, kept in decided(model, Budget(macs=wanted)).items():
            own = group.rule.keep(group.posterior)
            assert (kept | ~own).all() if wanted > share else (own | ~kept).all()


def decided(model: Model, rule: keras_sbp.rules.Rule) -> dict:
    """What a rule decides inside prune()."""
    seen = {}

    class Watched(keras_sbp.rules.Rule):
        def importance(self, network):
            return rule.importance(network)

        def decide(self, network):
            decision = rule.decide(network)
            seen.update(decision.keep)
            return decision

    keras_sbp.prune(model, Watched())
    return seen


def test_rule_of_posteriors_needs_gates() -> None:
    with pytest.raises(ValueError, match="the model has no gates"):
        keras_sbp.prune(network(), Budget(macs=0.5))
    small, report = keras_sbp.prune(network(), SNRThreshold())
    assert report.gates == ()
    for rule in (SNRThreshold(), None):
        _, report = keras_sbp.prune(network(), rule)
        assert "the model has no gates, and the rule decides from these" in report.reason
        assert report.to_dict()["reason"] == report.reason
    assert keras_sbp.prune(network(), L1Norm())[1].reason == ""
    assert keras_sbp.prune(gated(), None)[1].reason == ""


def test_units_that_a_rule_cannot_rank_stay_and_say_so() -> None:
    image = Input((8, 8, 3))
    x = layers.GroupNormalization(2, name="norm")(layers.Conv2D(8, 3, name="conv")(image))
    x = layers.Conv2D(6, 3, name="ranked")(layers.ReLU()(x))
    model = randomise(Model(image, layers.Dense(2)(layers.Flatten()(x))))
    small, report = keras_sbp.prune(model, BatchNormScale(0.5))
    assert widths(small)["conv"] == 8
    for each in report.gates:
        assert each.units_after == each.units_before
        assert each.reason == (
            f"{each.units_before} units stay, as the rule knows nothing of what they are worth"
        )
    _, report = keras_sbp.prune(model, Random(0.5))
    assert [each.units_after for each in report.gates] == [4, 3]
    assert "only whole groups of its units can go" in report.gates[0].reason


def test_baselines_work_on_a_gated_model_too() -> None:
    model = gated()
    small, report = keras_sbp.prune(model, L1Norm(0.25))
    assert widths(small)["conv1"] == 2
    assert [gate.units_after for gate in report.gates] == [
        -(-gate.units // 4) for gate in find_gates(model)
    ]


@pytest.mark.parametrize("multiple", [1, 4, 8, 64])
def test_rounding(multiple: int) -> None:
    model = network()
    small, _ = keras_sbp.prune(model, L1Norm(0.3), round_to=multiple)
    for name, count in {"conv1": 8, "branch": 10, "hidden": 20}.items():
        kept = int(np.ceil(0.3 * count))
        assert widths(small)[name] == min(-(-kept // multiple) * multiple, count)


class Counted(FractionRule):
    """Counts how often it is asked."""

    asked = 0

    def importance(self, network):
        self.asked += 1
        return {group: np.arange(group.units, dtype=float) for group in network.groups}


class KeepsTwo(Rule):
    """Decides without its importance, and may be asked for that."""

    def importance(self, network):
        return {group: np.arange(group.units, dtype=float) for group in network.groups}

    def decide(self, network):
        return Decision({group: np.arange(group.units) < 2 for group in network.groups})


def test_rounding_asks_for_importance_once() -> None:
    rule = Counted(0.3)
    keras_sbp.prune(network(), rule, round_to=8)
    assert rule.asked == 1


def test_rounding_asks_for_the_importance_that_a_decision_lacks() -> None:
    model = network()
    small, _ = keras_sbp.prune(model, KeepsTwo(), round_to=4)
    old, new = (keras.ops.convert_to_numpy(m.get_layer("hidden").bias) for m in (model, small))
    assert np.array_equal(new, old[[0, 1, 18, 19]])


@pytest.mark.remedy("Make decide() return Decision(keep)")
def test_rule_that_decides_nothing_is_told_what_to_return() -> None:
    class Bare(KeepsTwo):
        def decide(self, network):
            return super().decide(network).keep

    with pytest.raises(TypeError, match=r"Expected a keras_sbp.rules.Decision. Received: \{"):
        keras_sbp.prune(network(), Bare())
    assert widths(keras_sbp.prune(network(), KeepsTwo())[0])["hidden"] == 2


def test_rounding_goes_into_the_budget() -> None:
    _, report = keras_sbp.prune(network(), Budget(macs=0.6, base=L2Norm()), round_to=4)
    assert report.macs_after <= 0.6 * report.macs_before


@pytest.mark.parametrize("wrong", [0, -8, 1.5, True, "8"])
def test_round_to_is_checked(wrong) -> None:
    with pytest.raises((TypeError, ValueError), match="round_to"):
        keras_sbp.prune(network(), L1Norm(), round_to=wrong)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: L1Norm(0), ValueError, "fraction above 0"),
        (lambda: L1Norm(1.5), ValueError, "at most 1"),
        (lambda: L2Norm("half"), TypeError, "to be a fraction"),
        (lambda: Random(seed=-1), ValueError, "seed"),
        (lambda: Taylor(X), TypeError, r"data=\(x, y\)"),
        (lambda: Budget(), ValueError, "exactly one"),
        (lambda: Budget(macs=0.5, params=0.5), ValueError, "exactly one"),
        (lambda: Budget(macs=0.5, base=0.5), TypeError, "L2Norm"),
    ],
)
def test_arguments_are_checked(make, error, match) -> None:
    with pytest.raises(error, match=match):
        make()


def test_rules_describe_themselves() -> None:
    assert repr(Budget(macs=0.25, base=L1Norm())) == "Budget(macs=0.25, base=L1Norm(keep=0.5))"
    assert repr(Random(0.3, seed=2)) == "Random(keep=0.3, seed=2)"


@pytest.mark.tensorflow
def test_budget_of_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts weights; the true one is in tests/formats."""
    yardsticks = []

    class Clock:
        def __init__(self, model: Model) -> None:
            yardsticks.append(self)
            self.whole = model.count_params()

        def fraction(self, model: Model) -> float:
            return model.count_params() / self.whole

    monkeypatch.setattr("keras_sbp.evidence.network.LatencyYardstick", Clock)
    _, report = keras_sbp.prune(network(), Budget(latency=0.5, base=L2Norm()))
    assert 0.4 < report.params_after / report.params_before <= 0.5
    assert len(yardsticks) == 1


def test_reweighting_takes_what_verification_takes() -> None:
    model = network()
    batches = [(X[:20], Y[:20]), (X[20:], Y[20:])]
    smalls = [
        keras_sbp.prune(model, L2Norm(0.5), reweight=each)[0]
        for each in (X, {"image": X}, (X, Y), iter(batches))
    ]
    first, *others = [np.asarray(small(X)) for small in smalls]
    for each in others:
        np.testing.assert_allclose(each, first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gates", [False, True])
def test_reweighting_repairs_and_leaves_the_model_alone(gates: bool) -> None:
    model = gated() if gates else network()
    before = [w.copy() for w in model.get_weights()]
    rule = L2Norm(0.5)
    plain, _ = keras_sbp.prune(model, rule)
    repaired, report = keras_sbp.prune(model, rule, reweight=X)
    assert widths(plain) == widths(repaired)
    assert report.max_abs_error < 1e-3
    whole, _ = keras_sbp.prune(model, L2Norm(1.0))
    wanted = np.asarray(whole(X))
    errors = [np.mean((np.asarray(small(X)) - wanted) ** 2) for small in (plain, repaired)]
    assert errors[1] < 0.7 * errors[0]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("reweight", [False, True])
def test_input_change_asks_for_reweighting_also_inside_a_budget(reweight: bool) -> None:
    model = network()
    rule = keras_sbp.LayerInputChange(X, reweight=reweight)
    small, _ = keras_sbp.prune(model, Budget(macs=0.5, base=rule))
    kernel = np.asarray(model.get_layer("logits").kernel)
    kept = np.asarray(small.get_layer("logits").kernel)
    is_part = all(np.isclose(kernel, row).all(1).any() for row in kept)
    assert is_part is not reweight


def test_a_plain_network_is_verified_at_inference() -> None:
    image = Input((8, 8, 3))
    x = layers.RandomFlip()(image)
    x = layers.Dropout(0.5)(layers.Conv2D(8, 3, name="conv", activation="relu")(x))
    model = randomise(Model(image, layers.Dense(2)(layers.Flatten()(x))))
    small, report = keras_sbp.prune(model, L1Norm(0.5))
    assert widths(small)["conv"] == 4
    assert report.max_abs_error < 1e-4 < report.variation


@pytest.mark.tensorflow
def test_a_plain_network_that_reads_text_is_verified() -> None:
    words = Input((3,), dtype="string")
    x = layers.Embedding(3, 8)(layers.StringLookup(vocabulary=["a", "b"])(words))
    x = layers.Dense(6, activation="relu", name="hidden")(layers.Flatten()(x))
    small, report = keras_sbp.prune(randomise(Model(words, layers.Dense(2)(x))), L1Norm(0.5))
    assert widths(small)["hidden"] == 3
    assert report.compared[0].dtype == "string"


def test_a_subclassed_network_without_gates() -> None:
    class Two(Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = layers.Dense(8, activation="relu", name="hidden")
            self.last = layers.Dense(2, name="last")

        def call(self, x):
            return self.last(self.hidden(x))

    model = Two()
    model(np.zeros((2, 5), "float32"))
    small, report = keras_sbp.prune(randomise(model), L1Norm(0.5))
    assert widths(small) == {"hidden": 4, "last": 2}
    assert [each.name for each in report.gates] == ["hidden_gate"]
