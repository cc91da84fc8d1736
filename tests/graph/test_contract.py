"""The shipped contract, run over every class that the package has a handler for."""

from __future__ import annotations

import pytest

from keras_sbp.graph.handler import registered_classes
from keras_sbp.graph.program import Cast
from keras_sbp.graph.registry import handler_of
from keras_sbp.graph.scale import Scale
from tests.graph.contract_cases import CASES, TableContract

# Not calls of Keras: a cast and a gate's decision. They are in networks of every other case.
OWN = {Cast, Scale}

PARAMETERS = [
    pytest.param(cls, number, id=f"{cls.__module__.split('.')[2]}-{cls.__name__}-{number}")
    for cls, cases in CASES.items()
    for number in range(len(cases))
]


def first_of_its_handler(cls: type) -> bool:
    return next(c for c in CASES if handler_of(c) is handler_of(cls)) is cls


@pytest.mark.parametrize(("cls", "number"), PARAMETERS)
def test_contract(cls: type, number: int) -> None:
    """All checks of single calls; for one class of each handler, pruned networks too."""
    contract = TableContract(CASES[cls][number])
    thorough = first_of_its_handler(cls) and number == 0
    contract.trials = 4 if thorough else 2
    contract.keeps = ("half",) if thorough else ()
    for test in checks(contract):
        getattr(contract, test)()


def checks(contract: TableContract) -> list[str]:
    return [name for name in dir(contract) if name.startswith("test_")]


def test_every_class_is_in_the_table() -> None:
    package = {cls for cls in registered_classes() if cls.__module__.startswith("keras.")}
    assert set(CASES) == package, "add a case to tests/graph/contract_cases"
    assert set(registered_classes()) - package >= OWN
