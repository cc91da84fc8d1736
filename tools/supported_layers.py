"""Writes the tables of supported layers and operations into the documentation.

Run it with `python -m tools.supported_layers` in the root of the repository. The text of a row is
the docstring of the handler's class.
"""

from __future__ import annotations

import inspect
import pathlib
import re
from collections.abc import Callable

import keras

import keras_sbp  # noqa: F401 (registers the handlers)
from keras_sbp.program.registry import handler_of, registered_classes

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "supported_layers.md"

# Operations that are not called by the name of their class.
NAMES = {"GetItem": "x[...]", "ReLU": "keras.activations.relu"}


def filled(page: str) -> str:
    """Returns the text of the page with the tables as they should be."""
    classes = [cls for cls in registered_classes() if cls.__module__.startswith("keras.")]
    layers = [cls for cls in classes if issubclass(cls, keras.layers.Layer)]
    operations = [cls for cls in classes if not issubclass(cls, keras.layers.Layer)]
    page = _between(page, "layers", _table("layers", layers, lambda cls: cls.__name__))
    return _between(page, "operations", _table("operations", operations, operation_name))


def operation_name(cls: type) -> str:
    """Returns how users write an operation: the name of its function in `keras.ops`.

    Raises:
        ValueError: there is no such function.
    """
    if cls.__name__ in NAMES:
        return NAMES[cls.__name__]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
    if not hasattr(keras.ops, name):
        raise ValueError(
            f"Operation class {cls.__module__}.{cls.__name__} has no function keras.ops.{name}. "
            f"Expected a name that users know. Add it to NAMES in {__name__}."
        )
    return name


def _table(title: str, classes: list[type], name_of: Callable[[type], str]) -> str:
    rows: dict[str, list[str]] = {}
    for cls in classes:
        names = rows.setdefault(_text(type(handler_of(cls))), [])
        if name_of(cls) not in names:
            names.append(name_of(cls))
    lines = [f"| {title} | what happens to their units |", "|---|---|"]
    for text, names in rows.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {text} |")
    return "\n".join(lines)


def _text(handler: type) -> str:
    """The first paragraph of the handler's docstring."""
    paragraph = inspect.cleandoc(handler.__doc__).split("\n\n")[0]
    return paragraph.replace("\n", " ").replace("|", "\\|")


def _between(page: str, name: str, text: str) -> str:
    start, end = f"<!-- {name}: by tools/supported_layers.py -->", f"<!-- end of {name} -->"
    before, rest = page.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
