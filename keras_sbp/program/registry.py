"""Which layer classes have a handler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_registry: dict[type, Any] = {}


def register(classes: Iterable[type], handler: Any) -> None:
    """Makes a handler serve these classes."""
    _registry.update(dict.fromkeys(classes, handler))


def registered_classes() -> list[type]:
    """Returns the classes that have a handler, by name."""
    return sorted(_registry, key=lambda cls: cls.__name__)


def is_registered(cls: type) -> bool:
    """Tells whether there is a handler for exactly this class."""
    return cls in _registry


def handler_of(cls: type) -> Any:
    """Returns the handler of a registered class."""
    return _registry[cls]


def nearest_handler(operation: object) -> Any | None:
    """Returns the handler of the nearest class that has one, whatever a subclass changes."""
    return next((_registry[cls] for cls in type(operation).__mro__ if cls in _registry), None)


def stock_class(layer: object) -> Any:
    """Returns the registered class whose computation `layer` runs, or None.

    A subclass counts while all it changes is how it is constructed and described. Overriding
    anything else (`call`, `build`, `convolution_op`, ...) may change the function.
    """
    for base in type(layer).__mro__:
        if base in _registry:
            return base
        if any(name not in _HARMLESS_OVERRIDES for name in vars(base)):
            return None
    return None


_HARMLESS_OVERRIDES = {
    "__init__",
    "__annotations__",
    "get_config",
    "from_config",
    *vars(type("Empty", (), {})),  # what every class has: __module__, __doc__, ...
}
