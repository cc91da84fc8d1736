"""The rule that asks the loss: how much does it change without the unit, to first order?"""

from __future__ import annotations

from typing import Any, final

import keras
import numpy as np

from keras_sbp.rules.network import Network, UnitGroup
from keras_sbp.rules.ranking import Across
from keras_sbp.rules.rule import FractionRule, register_rule


@final
@register_rule("taylor", package="keras_sbp")
class Taylor(FractionRule):
    """Keeps the units whose removal changes the loss most, to first order.

    The importance of a unit is (∂loss/∂θ)² for its factor θ at 1: the squared
    sum of activation times gradient. It is averaged over batches. The network
    runs as at inference: without dropout, with the statistics that it has.

    Reference:
        Molchanov et al. (2019), Importance Estimation for Neural Network
        Pruning (https://arxiv.org/abs/1906.10771), equation 8.

    Args:
        data: `(x, y)`: inputs and targets, as for `fit()`; a few hundred
            examples do.
        keep: Float in (0, 1], the fraction of each group that stays.
        loss: A Keras loss, or its name. `None` takes the loss that the model
            is compiled with.
        batch_size: Examples over whose mean loss one gradient is taken.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.Taylor((x, y), keep=0.5, loss="mse"))
    """

    across = Across.RELATIVE_PER_COST

    def __init__(
        self, data: tuple[Any, Any], keep: float = 0.5, loss: Any = None, batch_size: int = 16
    ) -> None:
        super().__init__(keep)
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError(
                "Taylor needs inputs and targets. Expected data=(x, y), as for fit(). "
                f"Received: data of type {type(data).__name__}."
            )
        self.data, self.loss, self.batch_size = tuple(data), loss, batch_size

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the mean squared gradients."""
        return dict(network.squared_gradients(self.data, self.loss, self.batch_size))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without the data."""
        loss = keras.saving.serialize_keras_object(self.loss)
        return super().get_config() | {"loss": loss, "batch_size": self.batch_size}
