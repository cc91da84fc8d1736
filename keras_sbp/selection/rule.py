"""What every rule has in common."""

from __future__ import annotations

import abc
from typing import Any

from keras_sbp.distributions import TruncatedLogNormal


class Rule(abc.ABC):
    """Decides from posteriors which units stay.

    A rule is asked in two places, and must answer alike in both: inside a
    compiled inference step with backend tensors, and on the host with NumPy
    float64, where `prune()` takes its decision. Write `keep()` with what a
    `TruncatedLogNormal` offers and with operators that tensors and arrays
    share (`<`, `~`, `&`), and one text serves both.

    Register a rule of your own with
    `keras.saving.register_keras_serializable`, so that a gate that carries it
    can be saved.

    Example:

    ```python
    @keras.saving.register_keras_serializable(package="my_rules")
    class MeanThreshold(keras_sbp.selection.Rule):
        def keep(self, posterior):
            return posterior.mean() > 0.01
    ```
    """

    @abc.abstractmethod
    def keep(self, posterior: TruncatedLogNormal) -> Any:
        """Returns which units stay.

        Args:
            posterior: The posterior of the units, with NumPy arrays or with
                backend tensors inside.

        Returns:
            A boolean NumPy array or a boolean tensor, whichever `posterior`
            holds, of the shape of `posterior.mu`. True means that the unit
            stays.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-serialisable."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Rule:
        """Returns the rule that `get_config()` described."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
