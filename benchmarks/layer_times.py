"""Where the time goes, by kind of layer: `python -m benchmarks.layer_times`.

MobileNetV2 and ResNet50 with random weights are pruned to a quarter of their multiply-accumulates,
widths rounded to 16. Each convolution, dense layer and sum is exported alone, before and after, and
LiteRT times all of them in turns on one thread. Alone, a layer finds its weights and inputs in the
processor's caches: the sum of the layers is less than what the whole network takes, and by how much
is told, too.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.rounding import NETWORKS, pruned
from keras_sbp.program import Op, macs, read

JSON = pathlib.Path(__file__).parent / "results" / "layer_times.json"
NAMES = [name for name in NETWORKS if name.endswith("224 × 224")]
FRACTION, MULTIPLE, ROUNDS = 0.25, 16, 25


def measure(name: str) -> dict:
    """Returns times in microseconds and multiply-accumulates, before and after, by kind."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    small, _ = pruned(model, FRACTION, MULTIPLE)
    before, after = _by_name(model), _by_name(small)
    pairs = [(op, after[each]) for each, op in before.items() if each in after and kind(op)]
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, pathlib.Path] = {}
        for op in [each for pair in pairs for each in pair]:
            if shape_of(op) not in files:
                files[shape_of(op)] = pathlib.Path(folder, f"{len(files)}.tflite")
                keras_sbp.export(alone(op.operation), files[shape_of(op)], verify=False)
        for which, network in (("before", model), ("after", small)):
            files[which] = pathlib.Path(folder, f"{which}.tflite")
            keras_sbp.export(network, files[which], verify=False)
        rows = keras_sbp.benchmark(files, repeats=ROUNDS, memory=False).rows
    times = {row.name: row.latency_us for row in rows}
    found: dict[str, dict] = {}
    for pair in pairs:
        entry = found.setdefault(kind(pair[0]), {"us": [0.0, 0.0], "macs": [0, 0]})
        for number, op in enumerate(pair):
            entry["us"][number] += times[shape_of(op)]
            entry["macs"][number] += macs(op)
    return {"kinds": found, "whole_us": [times["before"], times["after"]]}


def kind(op: Op) -> str | None:
    """Returns what a call counts as; None where it vanishes into another, or costs little."""
    layer = op.operation
    if isinstance(layer, layers.DepthwiseConv2D):
        return "depthwise convolution"
    if isinstance(layer, layers.Conv2D):
        return f"convolution {layer.kernel_size[0]} × {layer.kernel_size[1]}"
    names = {layers.Add: "sum", layers.Dense: "dense"}
    return names.get(type(layer))


def shape_of(op: Op) -> str:
    """Returns what a call's time depends on."""
    inputs = [tensor.shape for tensor in op.inputs]
    strides = getattr(op.operation, "strides", None)
    return f"{kind(op)} {inputs} {op.outputs[0].shape} {strides}"


def alone(layer: keras.Layer) -> keras.Model:
    """Returns a model of one layer as LiteRT runs it, with a bias and an activation."""
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    inputs = [keras.Input(tensor.shape[1:]) for tensor in tensors]
    config = layer.get_config()
    if "use_bias" in config:
        config |= {"use_bias": True, "activation": "relu"}
    copy = type(layer).from_config(config)
    return keras.Model(inputs, copy(inputs if len(inputs) > 1 else inputs[0]))


def _by_name(model: keras.Model) -> dict[str, Op]:
    return {op.name: op for op in read(model).ops}


def main() -> int:
    """Measures, prints and writes the file."""
    results = {name: measure(name) for name in NAMES}
    write_json(JSON, {"versions": versions(), "machine": machine(), "networks": results})
    for name, result in results.items():
        table = Table("layers", "µs", "faster", "fewer MACs", "part of the time", title=name)
        sums = np.sum([entry["us"] for entry in result["kinds"].values()], axis=0)
        for label, entry in result["kinds"].items():
            (slow, fast), (many, few) = entry["us"], entry["macs"]
            fewer = f"{many / few:.2f}×" if few else ""
            cells = (f"{slow:.0f} → {fast:.0f}", f"{slow / fast:.2f}×", fewer)
            table.add_row(label, *cells, f"{fast / sums[1]:.0%}")
        slow, fast = result["whole_us"]
        table.add_row("all of these", f"{sums[0]:.0f} → {sums[1]:.0f}", f"{sums[0] / sums[1]:.2f}×")
        table.add_row("the network", f"{slow:.0f} → {fast:.0f}", f"{slow / fast:.2f}×")
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
