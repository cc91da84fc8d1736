"""Rules on trained networks: `python -m benchmarks.rules posteriors|input_change --data FOLDER`.

`posteriors`: LeNet-5-Caffe with gates, trained on MNIST; accuracy against the multiply-accumulates
that remain, by the signal-to-noise ratio, model reduction, weight norms and chance. The network is
pruned and not trained again.

`input_change`: LeNet-5-Caffe and a convolutional network for CIFAR-10, both without gates, pruned
to 2, 4 and 8 times fewer multiply-accumulates from 512 training images without their labels, with
and without reweighting, against rules that see no data.

The networks are trained first if they are not in `--folder` (an hour or so on two cores). Results
and pictures go into benchmarks/results/ and docs/images/; `python -m benchmarks.rules_page` puts
the results into docs/rules.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import keras
import numpy as np
from rich.console import Console

import keras_sbp
from benchmarks import cifar
from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.rules_page import REWEIGHTED
from keras_sbp import (
    BMRSNormal,
    BMRSUniform,
    Budget,
    L1Norm,
    L2Norm,
    LayerInputChange,
    Random,
    SNRThreshold,
)
from keras_sbp.demo import data as mnist_data
from keras_sbp.demo.recipes import MNIST
from keras_sbp.demo.training import train
from keras_sbp.pruning import SweepResult

ROOT = pathlib.Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
SAMPLES = 512
FRACTIONS = (0.5, 0.25, 0.125, 0.09, 0.0625, 0.045, 0.03, 0.02)
TIMES_FEWER = (2, 4, 8)


def posteriors(options: argparse.Namespace, console: Console) -> dict:
    """Rules of posteriors, and what knows nothing of them, on one trained gated network."""
    data = mnist_data.mnist(options.data)
    model = train(MNIST, True, data, options.folder / "mnist", options.seed).model
    _compile(model)
    rules = {
        "SNR": SNRThreshold(),
        "BMRS normal": BMRSNormal(),
        "BMRS normal, without ½ log 2π": BMRSNormal(threshold=-0.5 * np.log(2 * np.pi)),
        "BMRS uniform, 8 bits": BMRSUniform(bits=8),
        "BMRS uniform, 4 bits": BMRSUniform(bits=4),
        "L2 norm": L2Norm(),
        "random": Random(seed=options.seed),
    }
    curves = {name: _curve(rule) for name, rule in rules.items()}
    result = keras_sbp.sweep(model, curves, (data.x_test, data.y_test))
    own = {name: rule for name, rule in rules.items() if name.startswith(("SNR", "BMRS"))}
    decided = keras_sbp.sweep(model, own, (data.x_test, data.y_test))
    for each in (result, decided):
        each.print(console)
    result.plot(IMAGES / "rules_posteriors.png", "LeNet-5-Caffe with trained gates, MNIST")
    return {"budgets": result.to_dict()["rows"], "own decisions": decided.to_dict()["rows"]}


def input_change(options: argparse.Namespace, console: Console) -> dict:
    """Data-efficient selection on networks without gates."""
    mnist = mnist_data.mnist(options.data)
    lenet = train(MNIST, False, mnist, options.folder / "mnist", options.seed).model
    x, _, x_test, y_test = cifar.load(options.data)
    net = cifar.trained(options.folder / "cifar", options.data, options.seed)
    tables = {}
    for name, model, images, test in (
        ("LeNet-5-Caffe, MNIST", lenet, mnist.x_train, (mnist.x_test, mnist.y_test)),
        ("Six convolutions, CIFAR-10", net, x, (x_test, y_test)),
    ):
        _compile(model)
        rng = np.random.default_rng(options.seed)
        samples = images[rng.choice(len(images), SAMPLES, replace=False)]
        tables[name] = _input_change(model, samples, test, options.seed, console)
        picture = "rules_input_change_" + name.partition(",")[2].strip().lower().replace("-", "")
        tables[name].plot(IMAGES / f"{picture}.png", name)
    return {"networks": {name: table.to_dict()["rows"] for name, table in tables.items()}}


def _input_change(
    model: keras.Model, samples: np.ndarray, test: tuple, seed: int, console: Console
) -> SweepResult:
    fractions = [1 / times for times in TIMES_FEWER]
    blind = {"L1": L1Norm, "L2": L2Norm, "random": lambda keep=0.5: Random(keep, seed)}
    rules = {
        f"{name}, ranked": [Budget(macs=f, base=make(), min_keep=1) for f in fractions]
        for name, make in blind.items()
    }
    rules |= {
        f"{name}, same everywhere": [_same_everywhere(model, make, f) for f in fractions]
        for name, make in blind.items()
    }
    unchanged = keras_sbp.sweep(model, rules | _by_input_change(samples, fractions, False), test)
    repaired = keras_sbp.sweep(model, rules, test, reweight=samples)
    chosen = keras_sbp.sweep(model, _by_input_change(samples, fractions, True), test)
    rows = [
        replace(row, label=row.label + REWEIGHTED) for row in repaired.rows[1:] + chosen.rows[1:]
    ]
    result = SweepResult((*unchanged.rows, *rows))
    result.print(console)
    return result


def _by_input_change(samples: np.ndarray, fractions: list[float], reweight: bool) -> dict:
    return {
        f"input change, {variant}": [
            LayerInputChange(samples, Budget(macs=fraction, min_keep=1), variant, reweight)
            for fraction in fractions
        ]
        for variant in ("layer", "sequential", "asymmetric")
    }


def _same_everywhere(model: keras.Model, make: Callable, fraction: float) -> keras_sbp.rules.Rule:
    """The rule that keeps the same part of each layer, as much as the fraction allows."""
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        _, report = keras_sbp.prune(model, make(keep=middle), verify=False)
        if report.macs_after <= fraction * report.macs_before:
            low = middle
        else:
            high = middle
    return make(keep=low)


def _curve(rule: keras_sbp.rules.Rule) -> list[Budget]:
    # Down to 2 % of the work, the floor that protects barely trained gates would decide.
    return [Budget(macs=fraction, base=rule, min_keep=1) for fraction in FRACTIONS]


def _compile(model: keras.Model) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])


STUDIES = {"posteriors": posteriors, "input_change": input_change}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    console = Console()
    IMAGES.mkdir(parents=True, exist_ok=True)
    rows = STUDIES[options.study](options, console)
    settings = {
        "seed": options.seed,
        "samples": SAMPLES,
        "fractions": FRACTIONS,
        "times_fewer": TIMES_FEWER,
    }
    head = {"settings": settings, "versions": versions(), "machine": machine()}
    path = RESULTS / f"rules_{options.study}.json"
    write_json(path, head | rows)
    console.print(f"Wrote {path} and pictures into {IMAGES}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
