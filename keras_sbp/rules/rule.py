"""What every rule has in common."""

from __future__ import annotations

import abc
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from keras_sbp._arguments import check_fraction
from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.rules.network import Decision, Network, UnitGroup
from keras_sbp.rules.ranking import Across, most_important


class Rule(abc.ABC):
    """Decides which units of a network stay: `keras_sbp.prune(model, rule)`.

    A rule that needs nothing but the posteriors of gates is a
    `PosteriorRule`; it can be a gate's own rule too.

    Attributes:
        works_without_gates: Whether the rule can be asked about a model
            without gates.
        across: How units of different groups compare in a `Budget`, a
            `keras_sbp.rules.Across`.
    """

    works_without_gates: bool = True
    across: Across = Across.PER_COST

    @property
    def reweighting_data(self) -> Any:
        """The inputs that `prune()` fits new weights with, if it is given none; or None."""
        return None

    @abc.abstractmethod
    def importance(self, network: Network) -> Mapping[UnitGroup, np.ndarray]:
        """Returns how much each unit is worth to this rule.

        Args:
            network: what is to be pruned.

        Returns:
            For each group a float64 array of shape `(units,)`. Larger means
            more worth; NaN means that nothing is known, and such units stay.
        """

    @abc.abstractmethod
    def decide(self, network: Network) -> Decision:
        """Returns which units stay, and their importance if it was asked for.

        Args:
            network: what is to be pruned.

        Returns:
            A `Decision`: for each group a boolean array of shape `(units,)`,
            True for the units that stay.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-serialisable; `data` is left out."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any], data: Any = None) -> Rule:
        """Returns the rule that `get_config()` described.

        Args:
            config: What `get_config()` returned.
            data: The constructor's argument of this name, for a rule that has one.

        Raises:
            ValueError: If the rule needs data, and none are given.
        """
        arguments = keras.saving.deserialize_keras_object(dict(config))
        if "data" not in inspect.signature(cls).parameters:
            return cls(**arguments)
        if data is None:
            raise ValueError(
                f"{cls.__name__} decides by examples, and no config holds them. Expected them "
                f"beside the config. Pass them: {cls.__name__}.from_config(config, data=data)."
            )
        arguments["data"] = data
        return cls(**arguments)

    def __repr__(self) -> str:
        # Where the config holds another object's config, the attribute is the object.
        said = {key: getattr(self, key, value) for key, value in self.get_config().items()}
        arguments = ", ".join(f"{key}={value!r}" for key, value in said.items())
        return f"{type(self).__name__}({arguments})"


RuleClass = TypeVar("RuleClass", bound=type[Rule])
_by_name: dict[str, type[Rule]] = {}


def register_rule(name: str, package: str = "Custom") -> Callable[[RuleClass], RuleClass]:
    """Makes a class of rules known by a name, as a decorator.

    The command line takes the name, `keras-sbp prune --rule NAME --import MODULE`, and the
    arguments of the constructor as options. Files know the class as `package>ClassName`: it is
    registered with `keras.saving.register_keras_serializable`, too.

    Args:
        name: Lower-case letters, digits and hyphens.
        package: What `keras.saving.register_keras_serializable` calls so.

    Raises:
        ValueError: If the name is not of this form, or another class has it.
        TypeError: If what is decorated is not a class of rules.

    Example:

    ```python
    @keras_sbp.rules.register_rule("spread", package="my_rules")
    class Spread(keras_sbp.rules.FractionRule):
        def importance(self, network):
            rows = {g: network.kernels(g)[0].reshape(g.units, -1) for g in network.groups}
            return {group: each.std(1) for group, each in rows.items()}
    ```
    """
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(
            "A rule is registered under a name for the command line. Expected lower-case letters, "
            f"digits and hyphens. Received: {name!r}. Pass a name such as 'largest-weight'."
        )

    def register(cls: RuleClass) -> RuleClass:
        if not (isinstance(cls, type) and issubclass(cls, Rule)):
            raise TypeError(
                f"register_rule('{name}') decorates rules. Expected a subclass of "
                f"keras_sbp.rules.Rule. Received: {cls!r}. Make it a subclass of "
                "keras_sbp.rules.FractionRule, keras_sbp.rules.PosteriorRule or "
                "keras_sbp.rules.Rule."
            )
        known = _by_name.get(name, cls)
        # A notebook's cell that is run again defines its class again.
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"The name '{name}' is taken by {known.__module__}.{known.__qualname__}. Expected "
                f"a name of its own for {cls.__name__}. Register it under another one."
            )
        _by_name[name] = cls
        return keras.saving.register_keras_serializable(package)(cls)

    return register


def registered_rules() -> dict[str, type[Rule]]:
    """Returns all classes of rules that have a name, by name."""
    return dict(sorted(_by_name.items()))


class FractionRule(Rule):
    """Keeps a fraction of each group of units, the most important ones.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays. At least
            one unit does; a unit of unknown importance does too.

    Raises:
        TypeError: If `keep` is not a number.
        ValueError: If `keep` is not in (0, 1].
    """

    def __init__(self, keep: float = 0.5) -> None:
        self.keep = check_fraction(type(self).__name__, "keep", keep)

    def decide(self, network: Network) -> Decision:
        """Returns the most important units of each group."""
        importance = self.importance(network)
        keep = {
            group: most_important(importance[group], math.ceil(self.keep * group.units))
            for group in network.groups
        }
        return Decision(keep, importance)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments that are plain values."""
        return {"keep": self.keep}


class PosteriorRule(Rule):
    """Decides from the posteriors of gates; the kind of rule that an `SBPLayer` can have.

    It is asked in two places, and must answer alike in both: inside a
    compiled inference step with backend tensors, and on the host with NumPy
    float64, where `prune()` takes its decision. Write `keep()` with what a
    `TruncatedLogNormal` offers and with operators that tensors and arrays
    share (`<`, `~`, `&`), and one text serves both.

    Register a rule of your own with `keras_sbp.rules.register_rule`, so that a
    gate that carries it can be saved.

    Attributes:
        keeps_high: Whether it is units with high scores that stay.

    Example:

    ```python
    @keras_sbp.rules.register_rule("mean-threshold", package="my_rules")
    class MeanThreshold(keras_sbp.rules.PosteriorRule):
        def keep(self, posterior):
            return posterior.mean() > 0.01

        def scores(self, posterior):
            return posterior.mean()
    ```
    """

    keeps_high: bool = True
    works_without_gates = False
    across = Across.AS_IT_IS

    @abc.abstractmethod
    def keep(self, posterior: TruncatedLogNormal) -> Any:
        """Returns which units stay.

        Args:
            posterior: The posterior of the units, with NumPy arrays or with
                backend tensors inside.

        Returns:
            A boolean array or tensor of the shape of `posterior.mu`. True
            means that the unit stays.
        """

    def scores(self, posterior: TruncatedLogNormal) -> Any:
        """Returns the number per unit that the rule looks at; unless overridden, 1 or 0.

        Args:
            posterior: The posterior of the units, as for `keep()`.

        Returns:
            An array of the shape of `posterior.mu`, or such a tensor.
        """
        return np.asarray(self.keep(posterior), np.float64)

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the scores, turned round where it is low ones that stay."""
        return {group: self.importance_of(group) for group in network.groups}

    def importance_of(self, group: UnitGroup) -> np.ndarray:
        """Returns the importance of one group's units; below 0, their removal is a gain."""
        scores = np.asarray(self.scores(self._posterior(group)))
        return scores if self.keeps_high else -scores

    def decide(self, network: Network) -> Decision:
        """Returns `keep()` for the posterior of each group."""
        return Decision({group: self.keep(self._posterior(group)) for group in network.groups})

    def _posterior(self, group: UnitGroup) -> TruncatedLogNormal:
        if group.posterior is None:
            raise ValueError(
                f"{self!r} decides from posteriors, but '{group.name}' has none: the model has "
                "no gates. Expected a model with SBPLayers that were trained. Insert them with "
                "keras_sbp.insert_sbp and train, or use a rule that needs no gates."
            )
        return group.posterior


@keras.saving.register_keras_serializable(package="keras_sbp")
class OwnRules(Rule):
    """Leaves the decision to each gate's own rule: what `prune()` does without a rule."""

    works_without_gates = False
    across = Across.AS_IT_IS

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns what the gates' rules say."""
        return {group: group.rule.importance_of(group) for group in network.groups}

    def decide(self, network: Network) -> Decision:
        """Returns what the gates' rules keep."""
        return Decision({group: group.rule.keep(group.posterior) for group in network.groups})


@keras.saving.register_keras_serializable(package="keras_sbp")
class OnlyFrozen(Rule):
    """Removes the units that are frozen, and no other."""

    works_without_gates = False

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns 1 for the units that are there."""
        return {group: group.alive.astype(np.float64) for group in network.groups}

    def decide(self, network: Network) -> Decision:
        """Returns what is there."""
        return Decision({group: group.alive for group in network.groups})
