"""The shipped contract, run over every class that the package has a handler for."""

from __future__ import annotations

import functools

import keras
import pytest

from keras_sbp.program.program import Cast, Constant, Scale
from keras_sbp.program.registry import handler_of, registered_classes
from tests.handlers.contract_cases import CASES, TableContract

# Not calls of Keras: a cast, a constant, a gate's decision. Gates are in other cases' networks.
OWN = {Cast, Constant, Scale}

ON_SINGLE_CALLS = [
    "test_call_is_understood",
    "test_values_are_true",
    "test_needs_suffice",
    "test_rebuilt_call_computes_the_same",
    "test_inputs_get_narrower",
    "test_outputs_get_narrower",
    "test_facts_follow_units",
]


def is_first_of_its_handler(cls: type) -> bool:
    return next(c for c in CASES if handler_of(c) is handler_of(cls)) is cls


# Elsewhere every operation is compiled before it runs once, which takes long.
ALL = keras.backend.backend() in ("tensorflow", "numpy")


def is_thorough(cls: type, number: int) -> bool:
    """One class of each handler is tested thoroughly, its other classes and cases in short."""
    return ALL and number == 0 and is_first_of_its_handler(cls)


PARAMETERS = [
    pytest.param(
        cls, number, check, id=f"{cls.__module__.split('.')[2]}-{cls.__name__}-{number}-{check}"
    )
    for cls, cases in CASES.items()
    for number in range(len(cases))
    if ALL or (number == 0 and is_first_of_its_handler(cls))
    for check in (TableContract.checks() if is_thorough(cls, number) else ON_SINGLE_CALLS)
]


@functools.lru_cache(maxsize=1)
def contract_of(cls: type, number: int, trials: int) -> TableContract:
    """The checks of a case follow one another, and share the calls that they make."""
    contract = TableContract(CASES[cls][number])
    thorough = is_thorough(cls, number)
    contract.trials, contract.keeps = (trials, ("half",)) if thorough else (trials // 2, ())
    return contract


@pytest.mark.parametrize(("cls", "number", "check"), PARAMETERS)
def test_contract(cls: type, number: int, check: str, pytestconfig: pytest.Config) -> None:
    getattr(contract_of(cls, number, pytestconfig.getoption("--trials")), check)()


def test_every_class_is_in_the_table() -> None:
    package = {cls for cls in registered_classes() if cls.__module__.startswith("keras.")}
    assert set(CASES) == package, "add a case to tests/handlers/contract_cases"
    assert set(registered_classes()) - package >= OWN
