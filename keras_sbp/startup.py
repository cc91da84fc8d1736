"""The package waits for Keras: `keras-sbp --help` must not take as long as importing it.

Python runs `keras_sbp/__init__.py` before any other module of the package, the command line
included. So that module imports nothing that needs Keras. All of it is there as soon as Keras is,
with the layers registered that Keras must know to load a model, and it brings Keras along when
somebody asks for more than the command line.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

# What can be imported without Keras.
_LIGHT = ("cli", "startup", "version", "__main__")


def with_keras(load: Callable[[], None]) -> None:
    """Load the package when Keras is imported: now, if it is there already.

    Args:
        load: Imports everything that needs Keras. Called once more, it does nothing.
    """
    if "keras" in sys.modules:
        load()
    else:
        sys.meta_path.insert(0, _Waiting(load))


class _Waiting(importlib.abc.MetaPathFinder):
    """Sees Keras being imported, or a part of this package that needs it; then it is gone."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find Keras where it is, and have its loader tell; answer for this package's modules."""
        if name == "keras":
            return self._watched(name, path, target)
        package, *inner = name.split(".")
        if package != __package__ or not inner or inner[0] in _LIGHT:
            return None
        self._stop()
        # Loaded in the order in which the package loads, and not again by whoever asked.
        module = sys.modules.get(name)
        return module and importlib.machinery.ModuleSpec(name, _Loaded(module))

    def _watched(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # Of this object; its class has its own.
            execute(module)
            self._stop()

        loader.exec_module = exec_module
        return spec

    def _stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._load()


class _Loaded(importlib.abc.Loader):
    """Gives a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module itself."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do, but to undo what Python noted meanwhile."""
        module.__spec__ = self._spec
