"""Every rule as a config and back, by name and from the command line, and rules of one's own."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import Input, Sequential, layers

import keras_sbp
from keras_sbp import rules
from keras_sbp.cli import main
from keras_sbp.cli.rules import OURS
from keras_sbp.rules import Rule

X = np.ones((4, 6), "float32")
Y = np.ones((4, 2), "float32")
# Each with something else than the defaults, where there is something.
ALONE = [
    rules.OnlyFrozen(),
    rules.OwnRules(),
    rules.SNRThreshold(0.5),
    rules.BMRSNormal(log_mean=-19.0, sigma=0.5, threshold=-0.92),
    rules.BMRSUniform(bits=4),
    rules.L1Norm(0.25),
    rules.L2Norm(0.25),
    rules.BatchNormScale(0.25),
    rules.Random(0.25, seed=3),
    rules.Taylor((X, Y), 0.25, keras.losses.Huber(delta=2.0), batch_size=2),
    rules.LayerInputChange(X, 0.25, variant="layer", reweight=False, ridge=1e-3),
    rules.LayerInputChange(X, rules.Budget(params=0.5, min_keep=3)),
]
NEED_DATA = (rules.Taylor, rules.LayerInputChange)


def written(rule: Rule) -> dict:
    """Returns the config as a file holds it."""
    return json.loads(json.dumps(rule.get_config()))


def test_every_rule_is_here() -> None:
    def concrete(cls: type[Rule]) -> Iterator[type[Rule]]:
        for each in cls.__subclasses__():
            yield from concrete(each)
            ours = each.__module__.startswith("keras_sbp.") and not each.__name__.startswith("_")
            if ours and not inspect.isabstract(each):
                yield each

    assert {type(rule) for rule in ALONE} | {rules.Budget} == set(concrete(Rule))


@pytest.mark.parametrize("rule", ALONE, ids=lambda rule: type(rule).__name__)
def test_a_config_gives_the_same_rule_again(rule: Rule) -> None:
    if isinstance(rule, NEED_DATA):
        again = type(rule).from_config(written(rule), data=rule.data)
        assert again.data is rule.data
    else:
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()


@pytest.mark.parametrize("base", ALONE, ids=lambda rule: type(rule).__name__)
def test_a_budget_brings_its_base_along_or_says_that_it_cannot(base: Rule) -> None:
    budget = rules.Budget(macs=0.5, base=base, min_keep=3)
    config = written(budget)
    if isinstance(base, NEED_DATA):
        with pytest.raises(Exception, match="decides by examples, and no config holds them"):
            rules.Budget.from_config(config)
        return
    again = rules.Budget.from_config(config)
    assert type(again.base) is type(base)
    assert again.get_config() == budget.get_config()
    assert repr(again) == repr(budget) == f"Budget(macs=0.5, base={base!r}, min_keep=3)"


@pytest.mark.remedy(".from_config(config, data=data)")
@pytest.mark.parametrize(
    "rule", [r for r in ALONE if isinstance(r, NEED_DATA)], ids=lambda rule: type(rule).__name__
)
def test_a_config_without_its_data(rule: Rule) -> None:
    with pytest.raises(ValueError, match=r"from_config\(config, data=data\)"):
        type(rule).from_config(rule.get_config())
    type(rule).from_config(rule.get_config(), data=rule.data)


def test_every_rule_with_options_has_a_name_that_the_help_knows() -> None:
    ours = {name for name, cls in rules.registered_rules().items() if "keras_sbp" in cls.__module__}
    assert ours == set(OURS)


MODULE = """
import numpy as np
import keras_sbp
from keras_sbp.rules import FractionRule, register_rule

@register_rule("own-spread", package="spread_rules")
class Spread(FractionRule):
    def __init__(self, keep: float = 0.5, power: int = 1, inverted: bool = False):
        super().__init__(keep)
        if power < 1:
            raise ValueError(f"Spread expected `power` of 1 or more. Received: power={power}.")
        self.power, self.inverted = power, inverted

    def importance(self, network):
        sign = -1.0 if self.inverted else 1.0
        rows = {g: network.kernels(g)[0].reshape(g.units, -1) for g in network.groups}
        return {group: sign * each.std(1) ** self.power for group, each in rows.items()}

    def get_config(self):
        return super().get_config() | {"power": self.power, "inverted": self.inverted}
"""


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Rule]]:
    """A rule of the user's, made by one class and one registration, in a module of the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "spread_rules.py").write_text(MODULE)
    importlib.invalidate_caches()
    yield importlib.import_module("spread_rules").Spread
    del sys.modules["spread_rules"]
    rules.rule._by_name.pop("own-spread")
    keras.saving.get_custom_objects().pop("spread_rules>Spread")


def network() -> keras.Model:
    """Its layer `hidden` has weights that spread the more, the later the unit comes."""
    model = Sequential([Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(2)])
    hidden = model.get_layer("hidden")
    hidden.set_weights([np.outer([1, -1] * 3, np.arange(1, 9)), np.zeros(8)])
    return model


def kept(model: keras.Model) -> list[float]:
    return np.abs(model.get_layer("hidden").get_weights()[0][0]).tolist()


def test_a_rule_of_ones_own_prunes_and_is_the_base_of_a_budget(spread: type[Rule]) -> None:
    model = network()
    small, _ = keras_sbp.prune(model, spread(keep=0.25))
    assert kept(small) == [7.0, 8.0]
    rule = rules.Budget(macs=0.5, base=spread(inverted=True))
    small, _ = keras_sbp.prune(model, rule)
    assert kept(small) == [1.0, 2.0, 3.0, 4.0]
    assert repr(rules.Budget.from_config(written(rule))) == repr(rule)


def test_a_rule_of_ones_own_is_swept(spread: type[Rule]) -> None:
    model = network()
    model.compile("sgd", "mse")
    swept = keras_sbp.sweep(model, [spread(keep=f) for f in (0.5, 0.25)], (X, Y))
    assert [row.macs for row in swept.rows] == [8 * units for units in (8, 4, 2)]


def test_a_rule_of_ones_own_has_its_options_on_the_command_line(spread, capsys) -> None:
    network().save("m.keras")
    command = "prune m.keras -o s.keras --overwrite --import spread_rules --rule own-spread"
    assert main(f"{command} --keep 0.25".split()) == 0
    assert kept(keras.saving.load_model("s.keras")) == [7.0, 8.0]
    assert main(f"{command} --budget macs=0.5 --inverted --power 3".split()) == 0
    assert kept(keras.saving.load_model("s.keras")) == [1.0, 2.0, 3.0, 4.0]
    capsys.readouterr()
    assert main(f"{command} --power 0".split()) == 2
    assert "Spread expected --power of 1 or more. Received: --power 0." in capsys.readouterr().err
    assert main(f"{command} --power much".split()) == 2
    assert "argument --power: invalid int value: 'much'" in capsys.readouterr().err
    assert main(f"{command} --seed 1".split()) == 2
    assert "--seed belongs to --rule random; received: --rule own-spread" in capsys.readouterr().err
    assert main(f"{command} --help".split()) == 0
    assert "--inverted" in capsys.readouterr().out


@pytest.mark.remedy("Rename the argument in the class")
def test_an_argument_that_is_an_option_already(spread, capsys) -> None:
    network().save("m.keras")
    module = Path("spread_rules.py")
    command = "prune m.keras -o s.keras --import spread_rules --rule own-spread"
    # Of another length, as Python tells sources of one second apart by their lengths.
    module.write_text(MODULE.replace("power", "overwrite"))
    importlib.reload(sys.modules["spread_rules"])
    assert main(command.split()) == 2
    assert "would be the option --overwrite" in capsys.readouterr().err
    module.write_text(MODULE.replace("power", "silent"))
    importlib.invalidate_caches()
    sys.modules.pop("spread_rules")
    assert main(command.split()) == 0


@pytest.mark.remedy("Make it a subclass of")
def test_only_rules_are_registered() -> None:
    register = rules.register_rule("own-nothing", package="spread_rules")
    with pytest.raises(TypeError, match="Expected a subclass of keras_sbp.rules.Rule"):
        register(dict)
    assert "own-nothing" not in rules.registered_rules()
    nothing = register(type("Nothing", (rules.FractionRule,), {}))
    assert rules.rule._by_name.pop("own-nothing") is nothing


@pytest.mark.remedy("Pass a name such as 'largest-weight'")
def test_names_fit_a_command_line(spread: type[Rule]) -> None:
    for name in ("Largest weight", "-x", "", 3, "a--b"):
        with pytest.raises(ValueError, match="Expected lower-case letters"):
            rules.register_rule(name)
    rules.register_rule("largest-weight", package="spread_rules")(spread)
    assert rules.registered_rules()["largest-weight"] is spread
    del rules.rule._by_name["largest-weight"]


@pytest.mark.remedy("Register it under another one")
def test_a_name_belongs_to_one_class(spread: type[Rule]) -> None:
    with pytest.raises(ValueError, match="The name 'l1' is taken by .*L1Norm"):
        rules.register_rule("l1")(spread)
    rules.register_rule("own-spread-too", package="spread_rules")(spread)
    del rules.rule._by_name["own-spread-too"]
    importlib.reload(sys.modules["spread_rules"])  # the same cell again
    assert rules.registered_rules()["own-spread"] is sys.modules["spread_rules"].Spread
