"""Least squares over units: which inputs of a layer suffice, and with which weights.

A layer reads features X (rows are examples, or positions of examples) and makes targets Y of
them by a linear map. All that least squares needs of the data are the second moments XᵀX, XᵀY
and ‖Y‖², which add up over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Relative to the second moment of each feature. Far above the rounding errors of float64, so
# that features which repeat each other do no harm, and far below what anyone would notice.
RIDGE = 1e-8


@dataclass
class Moments:
    """Second moments of a layer's input features and of its targets, float64.

    Attributes:
        unit_of: for each feature the number of the unit that it belongs to, shape (F,); -1 for
            features that are always there.
        gram: XᵀX, shape (F, F).
        cross: XᵀY, shape (F, m).
        energy: ‖Y‖².
        name: of the layer, for messages.
    """

    unit_of: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    energy: float
    name: str = ""

    @classmethod
    def empty(cls, unit_of: np.ndarray, targets: int, name: str = "") -> Moments:
        """Returns the moments of no data, to which batches are added.

        Args:
            unit_of: the unit of each feature, shape (F,), -1 for none.
            targets: m, the number of targets.
            name: of the layer, for messages.
        """
        features = len(unit_of)
        gram, cross = np.zeros((features, features)), np.zeros((features, targets))
        return cls(np.asarray(unit_of), gram, cross, 0.0, name)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Adds a batch.

        Args:
            x: features, shape (n, F).
            y: targets, shape (n, m).

        Raises:
            ValueError: a number is NaN or infinite.
        """
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        for what, array in (("inputs", x), ("targets", y)):
            if not np.isfinite(array).all():
                raise ValueError(
                    f"The {what} of layer '{self.name}' are not finite on the given data "
                    f"({np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or "
                    "infinite), so they cannot be fitted. Expected finite activations. Look for "
                    "NaN or infinity in the data and in the weights of the model."
                )
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.energy += float(np.vdot(y, y))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.unit_of,
            self.gram + other.gram,
            self.cross + other.cross,
            self.energy + other.energy,
            self.name,
        )

    def error(self, weights: np.ndarray) -> float:
        """Returns ‖Y - X·weights‖², at least 0.

        Args:
            weights: shape (F, m).
        """
        fitted = np.vdot(weights, self.gram @ weights) - 2 * np.vdot(weights, self.cross)
        return max(0.0, float(self.energy + fitted))


@dataclass(frozen=True)
class Selection:
    """Units in the order in which they were chosen.

    Attributes:
        order: numbers of the chosen units, shape (k,).
        objective: what is left of ‖Y‖² without any unit, and after each of them; never
            increasing, shape (k + 1,).
    """

    order: np.ndarray
    objective: np.ndarray


def select(
    layers: Sequence[Moments],
    units: int,
    wanted: int | None = None,
    *,
    ridge: float = RIDGE,
    relative: bool = False,
) -> Selection:
    """Chooses units greedily, so that the layers' targets can be fitted from their features.

    At each step every unit that is left is tried, and the one that lowers the sum of the
    layers' residuals ‖Y - X·W̃‖² most, with the best W̃, is taken. The objective is weakly
    submodular, so the greedy choice is never far from the best.

    The step after k others costs O(F·(k·p² + p·m)) operations, with F features that are left, p
    of them per unit, and m targets: a block Cholesky factorisation with columns for the chosen
    units only. Of 512 units with 3 x 3 kernel positions each (F = 4608, m = 512), choosing 256
    takes about 5 seconds of one core, ordering all of them 6; the moments of 16384 rows take 9.

    Reference:
        El Halabi, Srinivas, Lacoste-Julien (2022), Data-Efficient Structured Pruning via
        Submodular Optimization, sections 3 and 4 (https://arxiv.org/abs/2203.04940).

    Args:
        layers: second moments, one for each layer that reads the units.
        units: how many units there are.
        wanted: how many to choose; None orders all.
        ridge: added to the Gram matrix, relative to each feature's own second moment.
        relative: counts each layer's residual relative to that without any unit, so that
            layers of different scale have the same say. The objective then starts at 1.

    Raises:
        ValueError: moments are not finite, or do not fit `units` and `wanted`.
    """
    wanted = units if wanted is None else wanted
    _check(layers, units, wanted)
    states = [_Residual(moments, units, wanted, ridge) for moments in layers]
    weights = [_share(state.objective, len(states)) if relative else 1.0 for state in states]
    left = np.ones(units, bool)
    order: list[int] = []

    def objective() -> float:
        return sum(w * state.objective for w, state in zip(weights, states, strict=True))

    objectives = [objective()]
    for _ in range(wanted):
        gains = sum(w * state.gains() for w, state in zip(weights, states, strict=True))
        best = int(np.argmax(np.where(left, gains, -1.0)))
        for state in states:
            state.take(best)
        left[best] = False
        order.append(best)
        objectives.append(min(objectives[-1], objective()))
    return Selection(np.array(order, int), np.array(objectives))


def refit(
    moments: Moments,
    features: np.ndarray,
    *,
    towards: np.ndarray | None = None,
    ridge: float = RIDGE,
) -> np.ndarray:
    """Returns the weights that fit the targets best, where some features have fixed weights.

    Args:
        moments: of the layer.
        features: which features may have new weights: a boolean array of shape (F,), or indices.
        towards: weights of shape (F, m). Features that are not in `features` keep theirs; the
            others are drawn towards them by the ridge. None stands for zeros.
        ridge: how strongly, relative to each feature's own second moment.

    Returns:
        The new weights, shape (F, m). Their `error` is never above that of `towards`, but for
        rounding.
    """
    weights = np.zeros(moments.cross.shape) if towards is None else np.array(towards, np.float64)
    chosen = np.arange(len(weights))[features]
    if not chosen.size:
        return weights
    gram = moments.gram[np.ix_(chosen, chosen)]
    diagonal = gram.diagonal().copy()
    gram[np.diag_indices_from(gram)] += np.where(diagonal > 0, ridge * diagonal, 1.0)
    missing = moments.cross[chosen] - moments.gram[chosen] @ weights
    weights[chosen] += np.linalg.solve(gram, missing)
    return weights


def _check(layers: Sequence[Moments], units: int, wanted: int) -> None:
    if not layers or not 0 <= wanted <= units:
        raise ValueError(
            "Units are chosen by the layers that read them. Expected at least one layer, and at "
            f"most as many wanted units as there are. Received: {len(layers)} layers, "
            f"wanted={wanted}, units={units}."
        )
    for moments in layers:
        if max(moments.unit_of, default=-1) >= units:
            raise ValueError(
                f"A feature of layer '{moments.name}' belongs to unit {max(moments.unit_of)}. "
                f"Expected units below {units}, or -1."
            )
        finite = np.isfinite(moments.gram).all() and np.isfinite(moments.cross).all()
        if not finite or not np.isfinite(moments.energy):
            raise ValueError(
                f"The second moments of layer '{moments.name}' are NaN or infinite, so its units "
                "cannot be compared. Expected finite activations. Look for NaN or infinity, or "
                "numbers near the largest float, in the data and the weights."
            )


def _share(objective: float, layers: int) -> float:
    return 1 / (objective * layers) if objective > 0 else 0.0


class _Residual:
    """What a layer's features and targets still hold beyond the chosen units.

    The features are scaled to a second moment of 1, so that the ridge is the same for all. Units
    have blocks of as many entries as the largest has features; those that are too many are 0.
    In all arrays the blocks of the units that are left come first, in no order.

    Attributes:
        objective: residual of the targets.
    """

    def __init__(self, moments: Moments, units: int, wanted: int, ridge: float) -> None:
        self._gram, self._ridge = moments.gram, ridge
        diagonal = moments.gram.diagonal()
        self._scale = np.divide(1.0, np.sqrt(diagonal), where=diagonal > 0, out=diagonal * 0.0)
        self._features, used = _blocks(moments.unit_of, units)
        self._weights = self._scale[self._features] * used
        self._units, self._left = np.arange(units), units
        self._own = self._own_blocks()
        self._cross = moments.cross[self._features] * self._weights[:, :, None]
        self.objective = max(0.0, moments.energy)
        always = np.flatnonzero(moments.unit_of < 0)
        # Columns of the Cholesky factor, beyond their own blocks: first of what is always there.
        size = self._features.shape[1]
        self._factor = np.zeros((units, size, always.size + wanted * size))
        self._width = 0
        if always.size:
            self._take_always(always, moments.cross)

    def gains(self) -> np.ndarray:
        """Returns by how much each unit would lower the residual; 0 for chosen ones. (units,)."""
        cross, own = self._cross[: self._left], self._own[: self._left]
        if own.shape[-1] == 1:
            gains = np.einsum("uam,uam->u", cross, cross) / own[:, 0, 0]
        else:
            explained = np.linalg.solve(own, cross @ cross.swapaxes(1, 2))
            gains = np.trace(explained, axis1=1, axis2=2)
        result = np.zeros(len(self._units))
        result[self._units[: self._left]] = np.maximum(gains, 0.0)
        return result

    def take(self, unit: int) -> None:
        """Chooses a unit."""
        at = int(np.flatnonzero(self._units[: self._left] == unit)[0])
        chosen = [array[at].copy() for array in self._arrays()]
        self._left -= 1
        for array in self._arrays():
            array[at] = array[self._left]
        _, features, weights, own, cross, factor = chosen
        column = self._gram_columns(features, weights)
        column -= self._flat(self._factor)[:, : self._width] @ factor[:, : self._width].T
        self._eliminate(own, column, cross)

    def _arrays(self) -> list[np.ndarray]:
        """What has an entry per unit."""
        return [
            self._units,
            self._features,
            self._weights,
            self._own,
            self._cross,
            self._factor,
        ]

    def _flat(self, array: np.ndarray) -> np.ndarray:
        """The blocks of the units that are left, below each other."""
        return array[: self._left].reshape(-1, *array.shape[2:])

    def _take_always(self, features: np.ndarray, cross: np.ndarray) -> None:
        scale = self._scale[features]
        own = self._gram[np.ix_(features, features)] * scale[:, None] * scale
        own[np.diag_indices_from(own)] += self._ridge
        columns = self._gram_columns(features, scale)
        self._eliminate(own, columns, cross[features] * scale[:, None])

    def _gram_columns(self, features: np.ndarray, scale: np.ndarray) -> np.ndarray:
        columns = self._gram[features][:, self._flat(self._features)].T
        return columns * scale * self._flat(self._weights)[:, None]

    def _own_blocks(self) -> np.ndarray:
        """The Gram matrix of each unit's own features, with the ridge. Shape (units, p, p)."""
        blocks = self._gram[self._features[:, :, None], self._features[:, None, :]]
        blocks *= self._weights[:, :, None] * self._weights[:, None, :]
        return blocks + self._ridge * np.eye(self._features.shape[1])

    def _eliminate(self, own: np.ndarray, column: np.ndarray, cross: np.ndarray) -> None:
        """Takes features out of all others: what they explain is explained."""
        lower = np.linalg.cholesky(own)
        column = np.linalg.solve(lower, column.T).T
        cross = np.linalg.solve(lower, cross)
        self.objective = max(0.0, self.objective - float(np.vdot(cross, cross)))
        width = self._width + len(own)
        self._flat(self._factor)[:, self._width : width] = column
        self._width = width
        left = self._flat(self._cross)
        left -= column @ cross
        by_unit = column.reshape(self._left, self._features.shape[1], len(own))
        self._own[: self._left] -= by_unit @ by_unit.swapaxes(1, 2)


def _blocks(unit_of: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of each unit, and which entries are no mere padding. (units, p)."""
    order = np.argsort(unit_of, kind="stable")
    order = order[unit_of[order] >= 0]
    counts = np.bincount(unit_of[order], minlength=units)
    size = max(1, int(counts.max(initial=0)))
    used = np.arange(size) < counts[:, None]
    blocks = np.zeros((units, size), int)
    blocks[used] = order
    return blocks, used
