"""Numbers, fractions and counts that users give: checked in one way, refused in the same words."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_number(
    whose: str,
    argument: str,
    value: Any,
    *,
    positive: bool = False,
    at_least: float = -math.inf,
    because: str = "",
    such_as: float = 1.0,
) -> float:
    """Returns a finite number as a float.

    Args:
        whose: The class or function whose argument it is, for the message.
        argument: Its name.
        value: What the user gave.
        positive: Whether it must be greater than 0.
        at_least: The smallest number that will do.
        because: What the message says behind what is expected: ", as ...".
        such_as: A number that would do.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite, or too small.
    """
    expected = "a positive, finite number" if positive else "a finite number"
    expected += "" if math.isinf(at_least) else f" of {at_least:g} or greater"
    expected, remedy = expected + because, f"Pass a float, such as {such_as}."
    _check_type(whose, argument, value, Real, expected, remedy)
    if not math.isfinite(value) or value < at_least or (positive and value <= 0):
        raise ValueError(_said(whose, argument, value, expected, remedy))
    return float(value)


def check_fraction(whose: str, argument: str, value: Any) -> float:
    """Returns a number above 0 and at most 1 as a float.

    Args:
        whose: The class or function whose argument it is, for the message.
        argument: Its name.
        value: What the user gave.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not in this range.
    """
    expected, remedy = "a fraction above 0 and at most 1", "Pass a float, such as 0.5."
    _check_type(whose, argument, value, Real, expected, remedy)
    if not 0 < value <= 1:
        raise ValueError(_said(whose, argument, value, expected, remedy))
    return float(value)


def check_count(
    whose: str,
    argument: str,
    value: Any,
    *,
    at_least: int = 1,
    otherwise: str = "",
    because: str = "",
    such_as: int = 1,
) -> int:
    """Returns a whole number, 1 or more, as an int.

    Args:
        whose: The class or function whose argument it is, for the message.
        argument: Its name.
        value: What the user gave.
        at_least: The smallest number that will do, 0 or 1.
        otherwise: What else the caller takes, for the message: "None or ".
        because: What the message says behind what is expected: ", as ...".
        such_as: A number that would do.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is too small.
    """
    expected = "a positive integer" if at_least else "an integer of 0 or greater"
    expected, remedy = otherwise + expected + because, f"Pass an integer, such as {such_as}."
    _check_type(whose, argument, value, Integral, expected, remedy)
    if value < at_least:
        raise ValueError(_said(whose, argument, value, expected, remedy))
    return int(value)


def _check_type(
    whose: str, argument: str, value: Any, kind: type, expected: str, remedy: str
) -> None:
    # To Python True is 1, but who passes it means something else.
    if isinstance(value, bool) or not isinstance(value, kind):
        of_type = f" (of type {type(value).__name__})"
        raise TypeError(_said(whose, argument, value, expected, remedy, of_type))


def _said(
    whose: str, argument: str, value: Any, expected: str, remedy: str, of_type: str = ""
) -> str:
    return (
        f"{whose} expected `{argument}` to be {expected}. "
        f"Received: {argument}={value!r}{of_type}. {remedy}"
    )
