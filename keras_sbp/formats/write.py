"""From a Keras model to a file that runs without Keras."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras

from keras_sbp.comparing.drawing import ComparedInput
from keras_sbp.formats.atomic import staged
from keras_sbp.formats.base import Format, Runtime
from keras_sbp.formats.chatter import kept_back
from keras_sbp.formats.comparison import compare
from keras_sbp.formats.convert import cannot_run
from keras_sbp.formats.inputs import given_examples, input_specs
from keras_sbp.formats.quantization import Quantizing
from keras_sbp.formats.target import Target


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export` wrote.

    Attributes:
        path: The file or folder.
        format: `"litert"`, `"saved_model"`, `"onnx"`, `"openvino"` or `"keras"`.
        bytes: Size on disk; of a folder, all files in it; of OpenVINO, both files.
        ops: Names of the operations in the file, in order; empty for a SavedModel and a `.keras`
            file.
        batch_size: Size of the batch axis, `None` where it is free.
        max_abs_error: Largest difference from the Keras model, `None` if it was not verified.
        prune_report: The report of `prune`, `None` if the model had no gates.
        quantization: As asked for, `None` if the file is not quantised.
        relative_error: Root mean square of the differences, as a fraction of that of the
            outputs; of the worst output. `None` if it was not verified.
        agreement: Share of predictions (argmax over the last axis) that are the same, of the
            worst output; `None` if no output has several classes, or it was not verified.
        examples: How many examples were compared, 0 if it was not verified.
        tolerance: What was allowed: `max_abs_error` as a fraction of the largest output; for a
            quantised file, `relative_error`. `None` if it was not verified.
        compared: What both were given, one `ComparedInput` (`name`, `shape` with all examples,
            `dtype`, `values` in words) per input; empty if it was not verified.
        variation: How much the outputs changed from example to example, as a fraction of the
            largest; of the output that changed least. Where it is near 0, agreement shows little.
            `None` where it is not known.
    """

    path: str
    format: str
    bytes: int
    ops: tuple[str, ...]
    batch_size: int | None
    max_abs_error: float | None
    prune_report: Any = None
    quantization: str | None = None
    relative_error: float | None = None
    agreement: float | None = None
    examples: int = 0
    tolerance: float | None = None
    compared: tuple[ComparedInput, ...] = ()
    variation: float | None = None

    def __repr__(self) -> str:
        said = [repr(self.path), self.format, *([self.quantization] if self.quantization else [])]
        said.append(f"{self.bytes:,} bytes")
        error = self.max_abs_error
        said.append("not verified" if error is None else f"max |Δ| {error:.1e}")
        return f"{type(self).__name__}({', '.join(said)})"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["ops"] = list(self.ops)
        values["compared"] = [dataclasses.asdict(each) for each in self.compared]
        if self.prune_report is not None:
            values["prune_report"] = self.prune_report.to_dict()
        return values


def write(
    model: keras.Model, target: Target, calibration_data: Any = None, examples: Any = None
) -> ExportReport:
    """Writes a model without gates beside its target, compares, and moves it into place.

    Args:
        model: A built Keras model.
        target: From `target_of`.
        calibration_data: See `keras_sbp.export`.
        examples: Inputs to compare on; `None` compares on `calibration_data`, else on random ones.

    Returns:
        An `ExportReport`.
    """
    form, how = target.format, target.quantization
    specs = input_specs(model, target.batch_size)
    data, compared = (
        None if given is None else given_examples(model, specs, given, argument)
        for given, argument in ((calibration_data, "calibration_data"), (examples, "verify"))
    )
    quantizing = Quantizing(how, target.integer_io, data.batches if data else ()) if how else None
    with staged(target.path) as written:
        # Keras insists on the suffix in lower case.
        raw = written.with_suffix(form.suffix) if form.suffix else written
        with kept_back():
            form.convert(model, raw, specs, quantizing)
        found = None
        if target.verify:
            found = compare(model, specs, _loaded(model, raw, form), compared or data, how)
        ops, size = form.ops(raw), size_of(raw, form)
        raw.rename(written)
    return ExportReport(
        path=str(target.path),
        format=form.name,
        bytes=size,
        ops=ops,
        batch_size=keras.tree.flatten(specs)[0].shape[0],
        quantization=how,
        **(vars(found) if found else {"max_abs_error": None}),
    )


def size_of(path: pathlib.Path, form: Format) -> int:
    """Size in bytes of an exported model: of all its files, or of all files in its folder."""
    inside = path.rglob("*") if path.is_dir() else ()
    return sum(file.stat().st_size for file in (*form.files(path), *inside) if file.is_file())


def _loaded(model: keras.Model, path: pathlib.Path, form: Format) -> Runtime:
    with kept_back():
        try:
            return form.load(path, num_threads=1)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # Each runtime has its own.
            raise cannot_run(model, form.title, error) from error
