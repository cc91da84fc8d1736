"""`keras-sbp compress`: from a trained model to a small one, with training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from keras_sbp.cli import arguments, model_files
from keras_sbp.cli.arrays import read_examples
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.losses import FROM_LOGITS, named_loss
from keras_sbp.cli.output import output

if TYPE_CHECKING:
    import keras

_DESCRIPTION = """\
Make a trained model small: put gates in, train it while units go, take the gates out, and train the
small model for the rest of the epochs; the original teaches. The file must hold what the model was
compiled with; or pass --loss."""
_EXAMPLES = """
keras-sbp compress trained.keras -o small.keras --data images.npz --macs 0.33 --epochs 8
keras-sbp compress trained.keras -o small.keras --data images.npz --latency 0.5 --epochs 8 \\
    --loss sparse_categorical_crossentropy --from-logits --validation-data test.npz
"""
_TARGETS = ("macs", "params", "latency")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "compress",
        help="make a trained model small, and train it on the way",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    arguments.add_model(parser)
    arguments.add_target(parser, "OUT.keras", "where the small model goes")
    parser.add_argument(
        "--data", required=True, metavar="FILE.npz", help="what to train on: arrays x and y"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    for what in _TARGETS:
        target.add_argument(
            f"--{what}",
            type=arguments.fraction,
            metavar="F",
            help=f"how much of the {what} remains",
        )
    parser.add_argument("--epochs", type=arguments.positive, required=True, metavar="N")
    parser.add_argument("--batch-size", type=arguments.positive, metavar="N", help="default: 32")
    parser.add_argument(
        "--validation-data", metavar="FILE.npz", help="what to measure accuracy on: x and y"
    )
    parser.add_argument(
        "--loss", metavar="NAME", help="a Keras loss; with it, Adam trains (default: the file's)"
    )
    parser.add_argument(
        FROM_LOGITS, action="store_true", help="--loss takes outputs without a last softmax"
    )
    parser.add_argument(
        "--learning-rate",
        type=arguments.positive_number,
        metavar="R",
        help="of Adam, with --loss (default: 0.001)",
    )
    parser.add_argument(
        "--no-teacher", action="store_true", help="learn from the labels alone, not the original"
    )
    parser.add_argument(
        "--backup-dir",
        metavar="DIR",
        help="keep the state after each epoch here, and go on from there after a crash",
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
    if options.loss is None and (options.from_logits or options.learning_rate):
        raise UsageError(f"{FROM_LOGITS} and --learning-rate belong to --loss; received: none.")
    target = model_files.check_target(options.output, options.overwrite)
    with output(options.json, options.quiet) as out:
        with out.step(f"Loading {options.model}"):
            model = _compiled(options)
        data = read_examples(options.data, model, "--data")
        held_out = options.validation_data and read_examples(
            options.validation_data, model, "--validation-data"
        )
        with out.step("Compressing"), told_to_the_user():
            from keras_sbp.compression import compress
            from keras_sbp.rules import Budget

            small, report = compress(
                model,
                *data,
                target=Budget(**arguments.given(**{w: getattr(options, w) for w in _TARGETS})),
                epochs=options.epochs,
                batch_size=options.batch_size,
                validation_data=held_out,
                teacher=None if options.no_teacher else "original",
                backup_dir=options.backup_dir,
                verbose=0 if options.quiet else 2,
            )
        model_files.save(small, target)
        report.print(out.console)
        out.say(f"Saved {target}, {target.stat().st_size:,} bytes")
        sizes = {"path": str(target), "bytes": target.stat().st_size}
        out.result({"model": options.model, **sizes, **report.to_dict()})
    return 0


def _compiled(options: argparse.Namespace) -> keras.Model:
    model = model_files.load(options.model, options.imports, compile=options.loss is None)
    if options.loss is None:
        if not model.compiled:
            raise UsageError(
                f"'{options.model}' does not say what the model is trained with. Expected a file "
                "that was saved after compile(), or a loss. Pass --loss NAME, such as --loss "
                f"sparse_categorical_crossentropy, with {FROM_LOGITS} if the model has no softmax."
            )
        return model
    import keras

    model.compile(
        keras.optimizers.Adam(options.learning_rate or 1e-3),
        named_loss(options.loss, options.from_logits),
        metrics=["accuracy"] if "crossentropy" in options.loss else None,
    )
    return model
