"""How every handled class is put to the contract that the package ships."""

from tests.handlers.contract_cases.case import Case, TableContract
from tests.handlers.contract_cases.layers import LAYERS
from tests.handlers.contract_cases.operations import OPERATIONS

CASES: dict[type, list[Case]] = LAYERS | OPERATIONS

__all__ = ["CASES", "Case", "TableContract"]
