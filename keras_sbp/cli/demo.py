"""`keras-sbp demo`: the whole journey on real data, checked against stated targets."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import shutil
from typing import TYPE_CHECKING

from keras_sbp.cli import arguments
from keras_sbp.cli.errors import UsageError, told_to_the_user

if TYPE_CHECKING:
    from keras_sbp.demo.recipes import Recipe

_DATASETS = ("digits", "mnist")
_DESCRIPTION = """\
Train a network with and without gates, prune the gated one, export both to LiteRT, and compare
them in one table. Stopped in the middle, the same command goes on where it was. Ends with exit
code 1 if a stated target was missed."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = commands.add_parser(
        "demo", help="train, prune, export, compare", description=_DESCRIPTION
    )
    parser.add_argument("--dataset", choices=_DATASETS, default="digits")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder with mnist.npz (default: $KERAS_SBP_DATA, else downloaded by Keras); "
        "the digits need none",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where everything is written (default: runs/DATASET)"
    )
    parser.add_argument(
        "--epochs", type=arguments.positive, metavar="N", help="train both networks for N epochs"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--restart", action="store_true", help="forget what an earlier run left in --out"
    )
    arguments.add_debug(parser)
    parser.set_defaults(run=run, after_interruption="The same command continues from here.")


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code.
    """
    from keras_sbp.demo.recipes import RECIPES

    recipe = RECIPES[options.dataset]
    if options.epochs is not None:
        recipe = dataclasses.replace(
            recipe, baseline_epochs=options.epochs, gated_epochs=options.epochs
        )
    folder = pathlib.Path(options.out or pathlib.Path("runs", recipe.name))
    return demonstrate(
        recipe, folder, data_folder=options.data, seed=options.seed, restart=options.restart
    )


def demonstrate(
    recipe: Recipe,
    folder: pathlib.Path,
    *,
    data_folder: str | None = None,
    seed: int = 0,
    restart: bool = False,
    enforce: bool = True,
) -> int:
    """Train, prune, export, measure and print one recipe.

    Args:
        recipe: What to demonstrate.
        folder: Where everything is written; what is finished there is not done again.
        data_folder: Folder with the data, for recipes that read files.
        seed: Seed of everything random.
        restart: Whether to forget what an earlier run left in the folder.
        enforce: Whether a missed target makes the result 1.

    Returns:
        0, or 1 if a target was missed.
    """
    from rich.console import Console

    from keras_sbp.demo import journey

    _check_backend()
    with told_to_the_user():
        data = recipe.load(data_folder)
    _prepare(folder, recipe, seed, restart)
    results = journey.travel(recipe, data, folder, seed)
    checks = journey.check(results, recipe.targets)
    console = Console(highlight=False)
    console.print(journey.as_table(results, console.width))
    for check in checks:
        verdict = "[green]met[/]   " if check.met else "[red]MISSED[/]"
        console.print(f"{verdict} {check.said}")
    console.print(f"Everything is in {folder}", soft_wrap=True)
    return int(enforce and not all(check.met for check in checks))


def _check_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            "the demo exports to LiteRT, which needs Keras on TensorFlow: expected "
            f"KERAS_BACKEND=tensorflow, received {keras.backend.backend()}."
        )
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "the demo needs TensorFlow, which is not installed. Install it: "
            "pip install 'keras-sbp[demo]'"
        ) from error


def _prepare(folder: pathlib.Path, recipe: Recipe, seed: int, restart: bool) -> None:
    """Make the folder and see to it that one folder never mixes two runs."""
    settings = {
        "dataset": recipe.name,
        "baseline_epochs": recipe.baseline_epochs,
        "gated_epochs": recipe.gated_epochs,
        "seed": seed,
    }
    file = folder / "settings.json"
    try:
        before = json.loads(file.read_text()) if file.exists() else None
        if before is not None and restart:
            shutil.rmtree(folder)
            before = None
        if before is None and folder.exists() and any(folder.iterdir()):
            raise UsageError(
                f"--out '{folder}' holds files that are no run of this demo. Choose another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if before is None:
            file.write_text(json.dumps(settings, indent=2))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"--out '{folder}' cannot be used: {error}") from error
    if before not in (None, settings):
        raise UsageError(
            f"--out '{folder}' holds a run with other settings ({before}; asked for now: "
            f"{settings}). Choose another folder, or start over with --restart."
        )
