"""A peer: a trained network as Torch-Pruning cuts it in its global mode (Fang et al. 2023).

The network, a plain chain of the layers in `_EXPECTED`, is carried over to PyTorch with its
weights, cut there, and carried back.
"""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_sbp.program import Op, trace
from keras_sbp.program import macs as macs_of

BATCH_SIZE = 256

_LAST = {"data_format": ("channels_last",)}
_PLAIN = {"activation": (activations.linear, activations.relu)}
_ONE = {"strides": ((1, 1),), "dilation_rate": ((1, 1),), "groups": (1,)}
# What their attributes may be: what is written below for PyTorch means the same only then.
_EXPECTED: dict[type, dict[str, tuple]] = {
    layers.Conv2D: _LAST | _PLAIN | _ONE,
    layers.BatchNormalization: {"axis": (-1, 3)},
    layers.ReLU: {"max_value": (None,), "negative_slope": (0.0,), "threshold": (0.0,)},
    layers.MaxPooling2D: _LAST | {"pool_size": ((2, 2),), "strides": ((2, 2),)},
    layers.Dropout: {},
    layers.Flatten: _LAST,
    layers.Dense: _PLAIN,
}
_WEIGHTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def pruned(
    model: keras.Model, importance: str, macs: float, x: np.ndarray, y: np.ndarray, seed: int = 0
) -> keras.Model:
    """Returns a network without gates as Torch-Pruning cuts it; `model` is not changed.

    Args:
        model: a trained chain; the outputs of its last kernel, the logits, are all kept.
        importance: `"l1"`, the size of weights, or `"taylor"`, of weights times gradients.
        macs: the fraction of the multiply-accumulates that may remain. Returned is the least
            pruned network that Torch-Pruning makes at or under it.
        x: examples. `"l1"` needs one only, to see its shape.
        y: their labels.
        seed: of whatever Torch-Pruning draws; with these importances nothing.

    Raises:
        ValueError: a layer cannot be carried over, or Torch-Pruning cannot prune that much.
    """
    return to_keras(model, cut(model, importance, macs, x, y, seed))


def cut(
    model: keras.Model, importance: str, macs: float, x: np.ndarray, y: np.ndarray, seed: int = 0
) -> Any:
    """Returns what `pruned` does as a PyTorch network; its inputs have channels first."""
    torch, tp = _packages()
    score = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "taylor": tp.importance.GroupTaylorImportance,
    }[importance]()
    x = torch.tensor(np.moveaxis(np.asarray(x, "float32"), -1, 1))
    y = torch.tensor(np.asarray(y, "int64").ravel())
    ops = [op for op, _ in _chain(model) if hasattr(op.operation, "kernel")]
    positions = [macs_of(op) // math.prod(op.operation.kernel.shape) for op in ops]

    def cost(network: Any) -> int:
        sizes = [kernel.weight.numel() for kernel in _kernels(network)]
        return sum(n * size for n, size in zip(positions, sizes, strict=True))

    def width(network: Any) -> int:
        return sum(len(_kernels(network)[number].weight) for number in wide)

    network = to_torch(model)
    # The last unit of a layer is never pruned, nor counted.
    wide = [n for n, kernel in enumerate(_kernels(network)[:-1]) if len(kernel.weight) > 1]
    units, budget = width(network), macs * cost(network)
    if cost(network) <= budget:
        return network
    if importance == "taylor":
        for some, labels in zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True):
            loss = torch.nn.functional.cross_entropy(network(some), labels, reduction="sum")
            loss.backward()
    found, few, many = None, 0, units
    while many - few > 1:
        removed = (few + many) // 2
        small = copy.deepcopy(network)
        for new, old in zip(small.parameters(), network.parameters(), strict=True):
            new.grad = old.grad
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tp.pruner.BasePruner(
                small,
                x[:1],
                importance=score,
                global_pruning=True,
                # Half a unit away from where its rounding could go either way.
                pruning_ratio=(removed - 0.5) / units,
                ignored_layers=_kernels(small)[-1:],
            ).step()
        # A layer that would be left with nothing is not pruned at all. From there on, asking for
        # more gives a larger network.
        if width(small) > units - removed:
            many = removed
        elif cost(small) <= budget:
            found, many = small, removed
        else:
            few = removed
    if found is None:
        raise ValueError(
            f"Torch-Pruning ({importance}) cannot prune '{model.name}' to {macs:g} of its "
            "multiply-accumulates: before, a layer would be left with nothing, and then it does "
            "not prune that layer at all."
        )
    return found


def to_torch(model: keras.Model) -> Any:
    """Returns the chain as a PyTorch network for inference; its inputs have channels first."""
    torch, _ = _packages()
    nn, make, modules = torch.nn, torch.nn.utils.skip_init, []
    for op, grid in _chain(model):
        layer, size = op.operation, op.inputs[0].shape[-1]
        if isinstance(layer, layers.Conv2D):
            options = {"padding": layer.padding, "bias": layer.use_bias}
            modules.append(make(nn.Conv2d, size, layer.filters, layer.kernel_size, **options))
        elif isinstance(layer, layers.Dense):
            modules.append(make(nn.Linear, size, layer.units, bias=layer.use_bias))
        elif isinstance(layer, layers.BatchNormalization):
            norm = nn.BatchNorm2d if op.inputs[0].rank == 4 else nn.BatchNorm1d
            modules.append(norm(size, eps=layer.epsilon))
        elif isinstance(layer, layers.MaxPooling2D):
            modules.append(nn.MaxPool2d(2, ceil_mode=layer.padding == "same"))
        elif isinstance(layer, layers.Flatten):
            modules.append(nn.Flatten())
        state = {}
        for variable in layer.weights:
            value = keras.ops.convert_to_numpy(variable)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            elif value.ndim == 2:
                value = value.reshape(*grid, -1, layer.units)
                value = np.moveaxis(value, -2, 0).reshape(-1, layer.units).T
            state[_WEIGHTS[variable.name]] = torch.tensor(value)
        if state:
            # A BatchNormalization may lack a scale or an offset; 1 and 0 are there already.
            modules[-1].load_state_dict(state, strict=False)
        if isinstance(layer, layers.ReLU) or getattr(layer, "activation", 0) is activations.relu:
            modules.append(nn.ReLU())
    return nn.Sequential(*modules).eval()


def to_keras(model: keras.Model, network: Any) -> keras.Model:
    """Returns a network with the layers of `model`, and the widths and weights of `network`."""
    inputs = model.inputs[0]
    start = keras.Input(inputs.shape[1:], dtype=inputs.dtype, name=inputs.name)
    small = keras.Sequential([start], name=model.name)
    modules = (module for module in network if list(module.parameters()))
    for op, grid in _chain(model):
        config = op.operation.get_config()
        module = next(modules) if op.operation.weights else None
        for width in {"filters", "units"} & config.keys():
            config[width] = len(module.weight)
        layer = type(op.operation).from_config(config)
        small.add(layer)
        values = []
        for variable in layer.weights:
            value = getattr(module, _WEIGHTS[variable.name]).detach().numpy()
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            elif value.ndim == 2:
                value = value.T.reshape(-1, *grid, layer.units)
                value = np.moveaxis(value, 0, -2).reshape(-1, layer.units)
            values.append(value)
        layer.set_weights(values)
    return small


def _chain(model: keras.Model) -> list[tuple[Op, tuple[int, ...]]]:
    """Returns the calls, each with the rows and columns that are flattened in its input."""
    graph, grid, chain = trace(model), (), []
    before = graph.inputs
    for op in graph.ops:
        why = _refusal(op, grid) if op.inputs == before else "it does not follow the one before it"
        if why:
            raise ValueError(
                f"Layer '{op.name}' ({type(op.operation).__name__}) cannot be carried over to "
                f"PyTorch: {why}."
            )
        chain.append((op, grid))
        if isinstance(op.operation, layers.Flatten):
            grid = op.inputs[0].shape[1:-1] or grid
        elif isinstance(op.operation, layers.Dense):
            grid = ()
        before = op.outputs
    if graph.outputs != before:
        raise ValueError(f"'{model.name}' returns more than the output of its last layer.")
    return chain


def _refusal(op: Op, grid: tuple[int, ...]) -> str:
    layer, rank = op.operation, op.inputs[0].rank
    if type(layer) not in _EXPECTED:
        return f"expected one of {', '.join(kind.__name__ for kind in _EXPECTED)}"
    for name, allowed in _EXPECTED[type(layer)].items():
        value = getattr(layer, name)
        if value not in allowed:
            return f"its {name} is {getattr(value, '__name__', value)}"
    if rank not in ((2,) if isinstance(layer, layers.Dense) else (2, 4)):
        return f"its input has {rank} axes"
    if isinstance(layer, layers.BatchNormalization) and grid:
        return "it normalises what was flattened"
    return "it is called twice" if op.shared else ""


def _kernels(network: Any) -> list:
    nn = _packages()[0].nn
    return [module for module in network if isinstance(module, nn.Conv2d | nn.Linear)]


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("torch_pruning")
    except ImportError as error:
        raise SystemExit(
            f'{error.name} is not installed. Install it: pip install "keras-sbp[peer]"'
        ) from error
