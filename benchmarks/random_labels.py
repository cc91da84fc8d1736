"""Learning labels that mean nothing: `python -m benchmarks.random_labels --data FOLDER`.

Neklyudov et al. (2017) train on images whose labels are shuffled. There is nothing to learn but
each example by heart: a network with binary dropout does so, one with gates gives up all of its
units and predicts a constant. Here that is LeNet-500-300 on 5,120 of MNIST's training images,
chosen and shuffled with the seed: without noise, with dropout behind both hidden layers, and with
default gates on the pixels and behind both hidden layers, whose KL has the weight of the evidence
lower bound. All start from random weights and train for 40 epochs with Adam, in batches of 32;
this is as many images and epochs as it takes dropout to memorise more than 90 % within a few
minutes. As a control, the gated network does the same with the true labels.

The gated network gives up only if its gates are noisy before it has memorised anything. The gates
move by steps, memorising takes epochs; in batches of 128, with a quarter of the steps, the network
is first and keeps what it knows. That is measured, too.

`prune` has to refuse the network that predicts a constant; its words are written down.

Training goes on where it stopped, what is in the file of results already is not measured again.
Results go to benchmarks/results/random_labels.json, the picture to docs/images/random_labels.png,
the table to docs/random_labels.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.markdown import put, table
from benchmarks.paper.images import ShuffledImages
from benchmarks.paper.networks import lenet_500_300
from benchmarks.paper.training import fit
from keras_sbp.demo import data as images

ROOT = pathlib.Path(__file__).parents[1]
JSON = ROOT / "benchmarks" / "results" / "random_labels.json"
PAGE = ROOT / "docs" / "random_labels.md"
PICTURE = ROOT / "docs" / "images" / "random_labels.png"
METHODS = {
    "plain": "no noise",
    "dropout": "binary dropout",
    "gated": "gates",
    "gated_large_batches": "gates, batches of 128",
    "gated_true_labels": "gates, true labels",
}
SETTINGS = {
    "network": "lenet_500_300",
    "images": 5120,
    "epochs": 40,
    "batch_size": 32,
    "large_batch_size": 128,
    "dropout": 0.3,
    "kl_weight": 1.0,
    "learning_rate": 1e-3,
}


def measure(method: str, data: images.Dataset, folder: pathlib.Path, seed: int) -> dict[str, Any]:
    """Returns what one network does with one seed.

    Args:
        method: one of `METHODS`.
        data: all of MNIST.
        folder: where the trained network is kept.
        seed: of the choice of images, of their labels and of everything random in training.
    """
    x, y = examples(data, seed, shuffled=method != "gated_true_labels")
    keras.utils.set_random_seed(seed)
    path = folder / f"{method}.keras"
    monitor = [keras_sbp.SNRMonitor()] if method.startswith("gated") else []
    model = fit(
        network(method),
        ShuffledImages(x, y, seed, batch_size=_batch_size(method)),
        path,
        epochs=SETTINGS["epochs"],
        seed=seed,
        compile_with={
            "optimizer": keras.optimizers.Adam(SETTINGS["learning_rate"]),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        },
        callbacks=lambda: [*monitor, AtInference(x, y)],
    )
    logits = model.predict(data.x_test, batch_size=1000, verbose=0)
    row = {
        "train_accuracy": _accuracy(model.predict(x, batch_size=1000, verbose=0), y),
        "test_accuracy": _accuracy(logits, data.y_test),
        "classes_predicted": len(np.unique(logits.argmax(-1))),
        "largest_std_of_logits": float(logits.std(0, dtype="float64").max()),
    }
    if method.startswith("gated"):
        row["pruning"] = _pruning(model)
    return row | {"curves": _curves(path.with_suffix(".history.json"))}


def examples(data: images.Dataset, seed: int, shuffled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training images of a seed, the same for each method, and labels."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(data.x_train), SETTINGS["images"], replace=False)
    labels = data.y_train[chosen]
    return data.x_train[chosen], rng.permutation(labels) if shuffled else labels


def network(method: str) -> keras.Model:
    """Returns a network with random weights."""
    if method.startswith("gated"):
        return lenet_500_300([SETTINGS["kl_weight"]] * 3)
    plain = lenet_500_300()
    if method == "plain":
        return plain
    stack: list[Any] = [keras.Input(plain.input_shape[1:])]
    for layer in plain.layers:
        stack.append(layer)
        if layer.name.startswith("dense"):
            stack.append(keras.layers.Dropout(SETTINGS["dropout"]))
    return keras.Sequential(stack)


class AtInference(keras.callbacks.Callback):
    """Logs loss and accuracy on the training images without noise, and the KL's part of the loss.

    What `fit` logs is with noise, and the average over an epoch in which the weights move.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self._x, self._y = x, y

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds to the logs."""
        logits = keras.ops.convert_to_numpy(self.model(self._x, training=False))
        loss = keras.losses.sparse_categorical_crossentropy(self._y, logits, from_logits=True)
        logs["inference_accuracy"] = _accuracy(logits, self._y)
        logs["inference_loss"] = float(np.mean(keras.ops.convert_to_numpy(loss)))
        logs["kl"] = logs.get("sbp_kl", 0.0)


def _batch_size(method: str) -> int:
    return SETTINGS["large_batch_size" if method == "gated_large_batches" else "batch_size"]


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return round(float(np.mean(logits.argmax(-1) == labels)), 4)


def _pruning(model: keras.Model) -> dict[str, Any]:
    try:
        _, report = keras_sbp.prune(model)
    except ValueError as error:
        return {"refused": str(error)}
    return {"macs_before": report.macs_before, "macs_after": report.macs_after}


def _curves(path: pathlib.Path) -> dict[str, list]:
    epochs = json.loads(path.read_text())
    names = ("inference_accuracy", "inference_loss", "loss", "kl")
    curves = {
        name: [float(f"{epoch[name]:.4g}") for epoch in epochs]
        for name in names
        if any(epoch[name] for epoch in epochs)
    }
    for gate in epochs[0]["gates"]:
        curves[f"kept_{gate}"] = [epoch["gates"][gate]["kept"] for epoch in epochs]
    return curves


def plot(seeds: dict[str, dict], path: pathlib.Path) -> None:
    """Draws training accuracy by epoch, one line per method and seed.

    Args:
        seeds: rows by seed, then by method.
        path: of the picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (method, title) in enumerate(METHODS.items()):
        for seed, rows in enumerate(seeds.values()):
            accuracy = rows[method]["curves"]["inference_accuracy"]
            axes.plot(
                range(1, len(accuracy) + 1),
                accuracy,
                color=f"C{number}",
                linestyle="--" if method == "gated_true_labels" else "-",
                alpha=0.8,
                label=None if seed else title,
            )
    axes.axhline(0.1, color="0.7", linewidth=1, label="chance")
    axes.set_xlabel("epoch")
    axes.set_ylabel("training accuracy")
    axes.set_ylim(0, 1.02)
    axes.set_title("LeNet-500-300, MNIST with shuffled labels")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def filled(page: str, seeds: dict[str, dict]) -> str:
    """Returns the page with its table made from the results: least and most over the seeds."""
    rows = []
    for method, title in METHODS.items():
        found = [rows_of[method] for rows_of in seeds.values()]
        accuracies = [
            _range([100 * row[f"{part}_accuracy"] for row in found], ".1f")
            for part in ("train", "test")
        ]
        kept = [sum(_kept(row)) for row in found] if method.startswith("gated") else []
        rows.append([title, *accuracies, _range(kept, "d") if kept else ""])
    headings = ["network", "training accuracy, %", "test accuracy, %", "units kept of 1,584"]
    return put(page, "random_labels", table(headings, rows), "benchmarks/random_labels.py")


def _range(values: list, form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


def _kept(row: dict) -> list[int]:
    return [curve[-1] for name, curve in row["curves"].items() if name.startswith("kept")]


def show(seeds: dict[str, dict], console: Console) -> None:
    """Prints a table."""
    result = Table("labels", "seed", "training accuracy", "test accuracy", "units kept", "prune()")
    for seed, rows in seeds.items():
        for method, row in rows.items():
            pruning = row.get("pruning", {})
            result.add_row(
                METHODS[method],
                seed,
                f"{row['train_accuracy']:.1%}",
                f"{row['test_accuracy']:.1%}",
                "-".join(map(str, _kept(row))),
                "refuses" if "refused" in pruning else "prunes" if pruning else "",
            )
    console.print(result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, writes the file and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with mnist.npz")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/random_labels"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args(arguments)
    console = Console()
    data = images.mnist(options.data)
    for seed, method in itertools.product(options.seeds, METHODS):
        if method in _known().get(str(seed), {}):
            continue
        console.print(f"seed {seed}, {METHODS[method]}")
        row = measure(method, data, _folder(options.folder, seed), seed)
        seeds = _known()  # Another process may have measured other seeds meanwhile.
        seeds.setdefault(str(seed), {})[method] = row
        head = {"settings": SETTINGS, "versions": versions(), "machine": machine()}
        head["versions"]["backend"] = keras.backend.backend()
        write_json(JSON, head | {"seeds": dict(sorted(seeds.items()))})
    seeds = _known()
    show(seeds, console)
    if all(rows.keys() == METHODS.keys() for rows in seeds.values()):
        plot(seeds, PICTURE)
        PAGE.write_text(filled(PAGE.read_text("utf-8"), seeds), "utf-8")
    return 0


def _known() -> dict[str, dict]:
    content = json.loads(JSON.read_text()) if JSON.exists() else {}
    return content["seeds"] if content.get("settings") == SETTINGS else {}


def _folder(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Networks that were trained with other settings are elsewhere."""
    return folder / "-".join(str(value) for value in SETTINGS.values()) / f"seed-{seed}"


if __name__ == "__main__":
    sys.exit(main())
