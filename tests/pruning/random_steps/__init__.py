"""Further steps of random networks, one file per family of layers."""

import importlib
import pkgutil

from tests.pruning.random_steps.registry import STEPS

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["STEPS"]
