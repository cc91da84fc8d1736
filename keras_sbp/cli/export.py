"""`keras-sbp export`: from a model to a file that runs without Keras."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from typing import Any

from keras_sbp.cli import arguments, model_files
from keras_sbp.cli.arrays import read_inputs
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.output import Output, output

_QUANTIZATIONS = ("float16", "dynamic_int8", "int8", "int16x8")
_NEED_DATA = ("int8", "int16x8")
_DESCRIPTION = """\
Write a file that runs without Keras. A model with gates is pruned first. The file is run in its own
runtime and compared with the model; if they differ, nothing is written and the exit code is 1."""
_EXAMPLES = """
keras-sbp export small.keras -o small.tflite
keras-sbp export small.keras -o small_int8.tflite --quantization int8 --calibration images.npz
keras-sbp export small.keras -o saved_model_folder
keras-sbp export small.keras -o small.onnx
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "export",
        help="write a file that runs without Keras",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    arguments.add_model(parser)
    arguments.add_target(
        parser, "OUT", "*.tflite, *.onnx, *.xml (OpenVINO), *.keras, or a folder (SavedModel)"
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="litert, onnx, openvino, keras or saved_model (default: from the name of OUT)",
    )
    parser.add_argument("--quantization", choices=_QUANTIZATIONS, help="default: none")
    parser.add_argument(
        "--calibration",
        metavar="FILE.npz",
        help="a few hundred typical inputs (array x), for int8 and int16x8",
    )
    parser.add_argument(
        "--integer-io",
        action="store_true",
        help="let a full-integer file take and give integers, too",
    )
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default="auto",
        metavar="N",
        help="'auto' (default), a number, or 'free'",
    )
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument(
        "--verify-data",
        metavar="FILE.npz",
        help="inputs (array x) to compare file and model on; default: those of --calibration, or "
        "random ones",
    )
    compared.add_argument(
        "--no-verify", action="store_true", help="do not compare the file with the model"
    )
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code.
    """
    if options.quantization in _NEED_DATA and options.calibration is None:
        raise UsageError(
            f"--quantization {options.quantization} needs typical inputs: pass --calibration "
            "FILE.npz."
        )
    _check_target(options)
    with output(options.json, options.quiet) as out:
        with out.step(f"Loading {options.model}"):
            model = model_files.load(options.model, options.imports)
        data = options.calibration and read_inputs(options.calibration, model, "--calibration")
        compared = options.verify_data and read_inputs(options.verify_data, model, "--verify-data")
        with out.step("Exporting"), told_to_the_user():
            from keras_sbp.exporting import export

            report = export(
                model,
                options.output,
                format=options.format,
                batch_size=options.batch_size,
                verify=not options.no_verify if compared is None else compared,
                overwrite=options.overwrite,
                quantization=options.quantization,
                calibration_data=data,
                integer_io=options.integer_io,
            )
        values = report.to_dict()
        _show(out, values)
        if report.prune_report is not None:
            report.prune_report.print(out.console)
        out.result({"model": options.model, **values})
    return 0


def _check_target(options: argparse.Namespace) -> None:
    """Refuses before the model is loaded what would be refused after that."""
    if os.path.exists(options.output) and not options.overwrite:
        raise UsageError(f"'{options.output}' exists already. Pass --overwrite to replace it.")


def _show(out: Output, values: dict[str, Any]) -> None:
    out.say(f"Wrote {values['path']}: {values['format']}, {values['bytes']:,} bytes")
    if values.get("ops"):
        counts = Counter(values["ops"]).most_common()
        out.say("Operations: " + ", ".join(f"{name} ({count})" for name, count in counts))
    if values["max_abs_error"] is None:
        out.say("Not verified.")
    else:
        out.say(f"Run and compared with the model: max |Δ| {values['max_abs_error']:.1e}")
    if values.get("agreement") is not None:
        out.say(f"The same predictions: {values['agreement']:.1%}")


def _batch_size(text: str) -> int | str | None:
    if text in ("auto", "free"):
        return None if text == "free" else text
    return arguments.positive(text)
