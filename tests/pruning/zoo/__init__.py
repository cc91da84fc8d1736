"""Hand-built gated topologies, one file per family; the oracle must hold on every one."""

import importlib
import pkgutil

from tests.pruning.zoo.registry import ZOO

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ZOO"]
