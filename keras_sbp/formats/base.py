"""What a format of exported models is, and those that there are."""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import keras
import numpy as np

from keras_sbp.formats.quantization import Quantizing

Inputs = dict[str, tuple[tuple[int, ...], np.dtype]]
Batch = Mapping[str, np.ndarray]


class Runtime(Protocol):
    """A loaded model: `inputs` says what it takes, and it is run by input name.

    `set_inputs` puts a batch in place and `invoke` runs on it, which is what a measurement of
    latency times; calling the object does both and gives outputs by name.
    """

    @property
    def inputs(self) -> Inputs:
        """Shape (-1 where it is free) and dtype of each input, by name."""

    def set_inputs(self, inputs: Batch) -> None:
        """Put one batch in place."""

    def invoke(self) -> Any:
        """Run on the batch in place."""

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        """Run on one batch; outputs by name, in the model's order."""


class Format(abc.ABC):
    """One kind of file: how it is written, loaded and read.

    A subclass has `name`, `title`, `suffix`, `convert` and `load`, and of the others what differs
    from the defaults. `register_format` makes it known.

    Attributes:
        name: What `format=` takes.
        title: What people call it.
        suffix: How its files end; `""` for a folder of any name.
        folder: Whether the result is a folder.
        packages: What writing it needs.
        runtime: The package that runs it, `""` for Keras itself.
        any_backend: Whether it can be written on every backend, not on TensorFlow only.
        batch_size: What `batch_size="auto"` means: a number, or `None` for a free axis.
        fixes_batch_size: Whether another batch size than the model's can be asked for.
        quantizations: What `quantization=` takes for it.
        threads: Whether the runtime takes a number of threads; else it uses those of the process.
    """

    name: str
    title: str
    suffix: str
    folder: bool = False
    packages: tuple[str, ...] = ()
    runtime: str = ""
    any_backend: bool = False
    batch_size: int | None = None
    fixes_batch_size: bool = True
    quantizations: tuple[str, ...] = ()
    threads: bool = True

    @abc.abstractmethod
    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Writes a model.

        Args:
            model: A Keras model without gates.
            path: Where to write; ends in the suffix.
            specs: `keras.InputSpec`s with names, nested as the model takes its inputs.
            quantization: How to quantise; `None` unless it is one of `quantizations`.

        Raises:
            ValueError: If an operation of the model has no counterpart in the format.
        """

    @abc.abstractmethod
    def load(self, path: pathlib.Path, num_threads: int) -> Runtime:
        """Loads a file into its own runtime.

        Args:
            path: The file or folder.
            num_threads: Threads it may use.

        Returns:
            A `Runtime`.
        """

    def ops(self, path: pathlib.Path) -> tuple[str, ...]:
        """Names of the operations in a file, in order; empty where nobody can tell."""
        return ()

    def files(self, path: pathlib.Path) -> tuple[pathlib.Path, ...]:
        """The path, and what else is written beside it."""
        return (path,)

    def is_at(self, path: pathlib.Path) -> bool:
        """Whether a path that exists is of this format."""
        return path.suffix.lower() == self.suffix and path.is_dir() == self.folder

    def check_replaceable(self, path: pathlib.Path) -> None:
        """Refuses to write over what is there, where that is not of this format.

        Raises:
            FileExistsError: If so.
        """
        return

    def modules(self) -> list[str]:
        """What a new process imports before it loads a file: where classes of users' own are."""
        return without_ours([type(self).__module__])


F = TypeVar("F", bound=type[Format])

FORMATS: dict[str, Format] = {}


def register_format(cls: F) -> F:
    """Class decorator that makes a format known to `export`, `benchmark` and the command line.

    The package registers its own formats in the same way.

    Args:
        cls: A subclass of `Format`.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: If it is no complete subclass of `Format`.
        ValueError: If another format has its name or suffix.
    """
    if not (isinstance(cls, type) and issubclass(cls, Format)):
        raise TypeError(
            f"register_format() takes a subclass of keras_sbp.formats.Format, received {cls!r}."
        )
    lacking = [name for name in ("name", "title", "suffix") if not hasattr(cls, name)]
    lacking += sorted(cls.__abstractmethods__)
    if lacking:
        raise TypeError(
            f"The format {cls.__name__} cannot be registered: expected `name`, `title`, `suffix`, "
            f"`convert` and `load`, received none of its own for {', '.join(lacking)}. Define what "
            "is missing in the class."
        )
    form = cls()
    for other in FORMATS.values():
        alike = other.name == form.name or other.suffix == form.suffix
        if alike and _home(type(other)) != _home(cls):
            raise ValueError(
                f"The format '{form.name}' with the suffix '{form.suffix}' cannot stand beside "
                f"'{other.name}' with '{other.suffix}'. Expected a name and a suffix that no other "
                "format has. Choose another name or suffix."
            )
    FORMATS[form.name] = form
    return cls


def format_of(path: str | os.PathLike[str], name: str | None) -> Format:
    """The format to write, from its name or else from the suffix of the path.

    Raises:
        ValueError: If there is no such format, or the path does not fit it.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    by_suffix = {form.suffix: form for form in FORMATS.values()}
    if name is None:
        if suffix not in by_suffix:
            raise ValueError(
                f"Cannot tell the export format of '{path}': expected the suffix {_endings()} or "
                f"none (SavedModel folder), received '{path.suffix}'. For a folder with a dot in "
                "its name pass format='saved_model'."
            )
        return by_suffix[suffix]
    if name not in FORMATS:
        names = ", ".join(map(repr, FORMATS))
        raise ValueError(f"Unknown export format: expected {names} or None, received {name!r}.")
    form = FORMATS[name]
    if not form.suffix and suffix in {*by_suffix, ".h5"} - {""}:
        raise ValueError(
            f"A {form.title} is a folder, expected a path without suffix, received '{path}'."
        )
    if form.suffix and suffix != form.suffix:
        raise ValueError(
            f"A file for {form.title} must end in '{form.suffix}', received '{path}'. Change the "
            "path, or choose another format."
        )
    return form


def format_of_existing(path: pathlib.Path) -> Format:
    """The format of a file or folder that is there.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is none of the formats.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no model at '{path}'. Check the path.")
    for form in FORMATS.values():
        if form.is_at(path):
            return form
    if path.is_dir():
        raise ValueError(
            f"The folder '{path}' holds no model: expected a SavedModel, with a file "
            "'saved_model.pb' in it."
        )
    raise ValueError(
        f"Cannot tell the format of the file '{path}': expected the suffix {_endings()}, or the "
        f"folder of a SavedModel, received '{path.suffix}'."
    )


def without_ours(modules: Iterable[str]) -> list[str]:
    """Names of modules, without those of Keras, of this package, and of scripts."""
    ours = ("keras", "keras_sbp", "__main__")
    return sorted({module for module in modules if module.split(".")[0] not in ours})


def _endings() -> str:
    return ", ".join(f"'{form.suffix}' ({form.title})" for form in FORMATS.values() if form.suffix)


def _home(cls: type) -> tuple[str, str]:
    """Where a class is defined: one that is defined again, as in a notebook, is the same."""
    return cls.__module__, cls.__qualname__
