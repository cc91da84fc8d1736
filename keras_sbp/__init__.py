"""Structured Bayesian pruning for Keras 3."""

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from keras_sbp.version import __version__

if TYPE_CHECKING:
    from keras_sbp.public import *

__all__ = [
    "BMRSNormal",
    "BMRSUniform",
    "BatchNormScale",
    "Budget",
    "GradualPruning",
    "KLWarmup",
    "L1Norm",
    "L2Norm",
    "LayerHandler",
    "LayerInputChange",
    "Random",
    "SBPLayer",
    "SNRMonitor",
    "SNRThreshold",
    "Taylor",
    "__version__",
    "benchmark",
    "compress",
    "distributions",
    "export",
    "gates_report",
    "handlers",
    "insert_sbp",
    "integrations",
    "prune",
    "register_handler",
    "rules",
    "shrink",
    "sweep",
    "testing",
]


def _load() -> None:
    public = importlib.import_module("keras_sbp.public")
    globals().update({name: vars(public)[name] for name in __all__ if name not in globals()})


def __getattr__(name: str) -> Any:
    # Python and tools ask for names like __wrapped__; these must not bring Keras along. Nor must
    # private modules, which an import asks for here before it looks for their files.
    if not name.startswith("_"):
        _load()
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Importing Keras takes seconds. The command line, `keras-sbp` or `python -m keras_sbp`, says what
# it can do without that; everybody else gets all of it, with the layers registered.
if pathlib.Path((sys.argv or [""])[0]).stem not in ("keras-sbp", "-m"):
    _load()
