"""The shipped contract, run over every class that the package has a handler for."""

from __future__ import annotations

import keras
import pytest

from keras_sbp.graph.program import Cast, Constant, Scale
from keras_sbp.graph.registry import handler_of, registered_classes
from tests.graph.contract_cases import CASES, TableContract

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

PARAMETERS = [
    pytest.param(cls, number, id=f"{cls.__module__.split('.')[2]}-{cls.__name__}-{number}")
    for cls, cases in CASES.items()
    for number in range(len(cases))
    if ALL or (number == 0 and is_first_of_its_handler(cls))
]


@pytest.mark.parametrize(("cls", "number"), PARAMETERS)
def test_contract(cls: type, number: int, pytestconfig: pytest.Config) -> None:
    """One class of each handler is tested thoroughly, its other classes and cases in short."""
    contract = TableContract(CASES[cls][number])
    thorough = ALL and number == 0 and is_first_of_its_handler(cls)
    trials = pytestconfig.getoption("--trials")
    contract.trials, contract.keeps = (trials, ("half",)) if thorough else (trials // 2, ())
    for test in all_tests(contract) if thorough else ON_SINGLE_CALLS:
        getattr(contract, test)()


def all_tests(contract: TableContract) -> list[str]:
    return [name for name in dir(contract) if name.startswith("test_")]


def test_every_class_is_in_the_table() -> None:
    package = {cls for cls in registered_classes() if cls.__module__.startswith("keras.")}
    assert set(CASES) == package, "add a case to tests/graph/contract_cases"
    assert set(registered_classes()) - package >= OWN
