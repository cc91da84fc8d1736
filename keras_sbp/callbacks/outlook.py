"""What the gates of a model can reach in the training that is to come, and what would be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_sbp.callbacks.epoch_summary import GateSummary
from keras_sbp.callbacks.pace import Pace

# A unit that the data do not hold goes at nearly full speed; twice as far is far enough.
_MARGIN = 2.0
_ADAM = 1e-3
# Nearer to the threshold than this, chance would decide before the data do.
_NEAREST_START = -1.0


def out_of_reach(gates: Sequence[GateSummary], pace: Pace, past: int, epochs: int) -> str | None:
    """Returns the warning for gates that cannot lose a unit until the end, or None.

    Nothing is said where it cannot be known: of optimizers whose steps have no bound that is
    known, of gates that do not learn, and of rules that are far from dropping anything.

    Args:
        gates: As they are now.
        pace: What the optimizer can do.
        past: Epochs that have gone.
        epochs: Epochs to come.
    """
    found = [
        (gate, reach)
        for gate in gates
        if (reach := _reach(gate, pace, epochs)) is not None and reach < gate.distance_to_go
    ]
    if not found:
        return None
    far = [gate for gate, _ in found]
    gate, reach = max(found, key=lambda each: each[0].distance_to_go - each[1])
    updates = pace.updates(epochs)
    if pace.normalises:
        bound = f"{updates} steps at a mean learning rate of {pace.reach(epochs) / updates:.2g}"
    else:
        bound = f"its gradient is only about kl_weight/num_samples, for {updates} steps"
    names = ", ".join(f"'{each.name}'" for each in far)
    who = "No gate" if len(far) == len(gates) else f"None of the gates {names}"
    remedy = (
        f"Any of these is enough: {', or '.join(_enough(far, pace, past, epochs))}."
        if pace.normalises
        else with_adam(far, pace, epochs)
    )
    return (
        f"{who} can lose a unit in this run: log_sigma has to rise by about "
        f"{gate.distance_to_go:.3g} first, and {pace.name} moves it by {reach:.2g} at most "
        f"({bound}, times learning_rate_multiplier={gate.multiplier:g}). {remedy}"
    )


def with_adam(gates: Sequence[GateSummary], pace: Pace, epochs: int) -> str:
    """Returns the advice to change the optimizer, with the multiplier that this needs, if any."""
    needed = _MARGIN * max(gate.distance_to_go for gate in gates)
    multiplier = _rounded_up(needed / (_ADAM * max(1, pace.updates(epochs))))
    more = ""
    if multiplier > min(gate.multiplier for gate in gates):
        more = f" and SBPLayer(learning_rate_multiplier={multiplier:g})"
    return (
        "The KL gradient of a unit is only about kl_weight/num_samples, which plain SGD multiplies "
        f"by the learning rate, while Adam normalises it. This model trains with {pace.name}. Use "
        f"keras.optimizers.Adam({_ADAM:g}){more}."
    )


def _reach(gate: GateSummary, pace: Pace, epochs: int) -> float | None:
    """How far log_sigma of a gate can move at most; None where that is not known."""
    active = gate.trainable and gate.kl_weight * gate.kl_factor > 0
    if not active or math.isinf(gate.distance_to_go) or pace.normalises is None:
        return None
    if pace.normalises:
        return gate.multiplier * pace.reach(epochs)
    if not gate.kl_loss:
        return None
    return gate.multiplier * pace.reach_by_gradient(epochs, gate.kl_loss / gate.kl)


def _enough(gates: Sequence[GateSummary], pace: Pace, past: int, epochs: int) -> list[str]:
    """What would do, one thing at a time."""
    reach = pace.reach(epochs)
    needed = [_MARGIN * gate.distance_to_go for gate in gates]
    found = []
    longest = max(n / gate.multiplier for n, gate in zip(needed, gates, strict=True))
    enough = pace.epochs_for(longest, epochs)
    if enough is not None:
        found.append(f"fit(epochs={past + enough})")
    if reach > 0:
        multiplier = _rounded_up(max(needed) / reach)
        found.append(f"SBPLayer(learning_rate_multiplier={multiplier:g})")
    starts = {float(value) for gate in gates for value in gate.posterior.log_sigma}
    if len(starts) == 1:  # not trained yet
        (start,) = starts
        short = max(gate.distance_to_go - gate.multiplier * reach / _MARGIN for gate in gates)
        nearer = math.ceil(10 * (start + short)) / 10
        if nearer <= _NEAREST_START:
            found.append(f"SBPLayer(log_sigma_initializer={nearer:g})")
    return found or ["another learning rate"]


def _rounded_up(value: float) -> float:
    """The next number of two digits."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit - 1e-9) * digit
