"""Rules on trained networks: `python -m benchmarks.rules posteriors|input_change --data FOLDER`.

`posteriors`: LeNet-5-Caffe with gates, trained on MNIST; accuracy against the multiply-accumulates
that remain, by the signal-to-noise ratio, model reduction, weight norms and chance. The network is
pruned and not trained again.

`input_change`: LeNet-5-Caffe and a convolutional network for CIFAR-10, both without gates, pruned
to 2, 4 and 8 times fewer multiply-accumulates from 512 training images without their labels, with
and without reweighting, against rules that see no data.

The networks are trained first if they are not in `--folder` (an hour or so on two cores). Results
and pictures go into benchmarks/results/ and docs/images/.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
from rich.console import Console

import keras_sbp
from benchmarks import cifar
from benchmarks.architectures.results import machine, versions, write_json
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
from keras_sbp.cli import data as mnist_data
from keras_sbp.cli.recipes import MNIST
from keras_sbp.cli.training import train
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
    return {name: table.to_dict()["rows"] for name, table in tables.items()}


def _input_change(
    model: keras.Model, samples: np.ndarray, test: tuple, seed: int, console: Console
) -> SweepResult:
    plain = {
        f"input change, {variant}": LayerInputChange(samples, variant=variant, reweight=False)
        for variant in ("layer", "sequential", "asymmetric")
    }
    plain |= {"L1 norm": L1Norm(), "L2 norm": L2Norm(), "random": Random(seed=seed)}
    fractions = [1 / times for times in TIMES_FEWER]

    def curves(suffix: str) -> dict[str, list[Budget]]:
        return {
            name + suffix: [Budget(macs=fraction, base=rule) for fraction in fractions]
            for name, rule in plain.items()
        }

    unchanged = keras_sbp.sweep(model, curves(""), test)
    reweighted = keras_sbp.sweep(model, curves(", reweighted"), test, reweight=samples)
    result = SweepResult((*unchanged.rows, *reweighted.rows[1:]))
    result.print(console)
    return result


def _curve(rule: keras_sbp.selection.Rule) -> list[Budget]:
    return [Budget(macs=fraction, base=rule) for fraction in FRACTIONS]


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
    head = {"settings": {"seed": options.seed, "samples": SAMPLES}}
    head |= {"versions": versions(), "machine": machine()}
    path = RESULTS / f"rules_{options.study}.json"
    write_json(path, head | rows)
    console.print(f"Wrote {path} and pictures into {IMAGES}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
