"""Operators and `keras.ops` between layers: what goes, what stays, and that all of it is true."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, activations, layers, ops

from keras_sbp._keras import numpy_ops
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.insertion.gates import with_decisions
from keras_sbp.layers import find_gates
from keras_sbp.program import analyse, trace
from keras_sbp.program.registry import handler_of, registered_classes
from keras_sbp.pruning.decide import decide
from keras_sbp.rules import OwnRules
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise

ROW = np.linspace(0.5, 1.5, 6).astype("float32")


def jumping(x):
    """Positive and negative numbers, none of which is close to a jump's threshold for long."""
    return 4 * x - 2.1


# Every operation, on numbers between 0 and 1 of shape (batch, 4, 4, 6), units last.
PASSING = {
    "absolute": ops.absolute,
    "add": lambda x: x + x,
    "add constants": lambda x: 1 + (x + ROW) + ops.convert_to_tensor(ROW),
    "amax": lambda x: ops.amax(x, axis=1),
    "amin": lambda x: ops.amin(x, axis=(1, 2)),
    "arccos": ops.arccos,
    "arccosh": lambda x: ops.arccosh(x + 1.1),
    "arcsin": ops.arcsin,
    "arcsinh": ops.arcsinh,
    "arctan": ops.arctan,
    "arctan2": lambda x: ops.arctan2(x, ROW) + ops.arctan2(0.3, x),
    "arctanh": ops.arctanh,
    "array_split": lambda x: ops.concatenate(ops.array_split(x, 3, axis=1)[:2], axis=1),
    "broadcast_to": lambda x: ops.broadcast_to(x[:, :, :1], (2, 4, 3, 6)),
    "cast": lambda x: ops.cast(ops.cast(x, "float16"), "float32"),
    "cbrt": ops.cbrt,
    "celu": ops.celu,
    "clip": lambda x: ops.clip(x, 0.3, 0.6),
    "concatenate": lambda x: ops.concatenate([x, 1 - x], axis=1),
    "convert_to_tensor": ops.convert_to_tensor,
    "copy": ops.copy,
    "cos": ops.cos,
    "cosh": ops.cosh,
    "deg2rad": ops.deg2rad,
    "divide": lambda x: ops.divide(x, ROW) + ops.divide(ROW, x),
    "elu": ops.elu,
    "erf": ops.erf,
    "erfc": ops.erfc,
    "erfinv": ops.erfinv,
    "exp": ops.exp,
    "exp2": ops.exp2,
    "expand_dims": lambda x: ops.expand_dims(x, (1, -2)),
    "expm1": ops.expm1,
    "fabs": ops.fabs,
    "flip": lambda x: ops.flip(x, axis=2),
    "fmax": lambda x: ops.fmax(x, 0.5),
    "fmin": lambda x: ops.fmin(x, 0.5 * ROW),
    "gelu": ops.gelu,
    "get_item": lambda x: x[:, 1:3, None, -1],
    "hard_shrink": lambda x: ops.hard_shrink(x, 0.45),
    "hard_sigmoid": ops.hard_sigmoid,
    "hard_silu": ops.hard_silu,
    "hard_tanh": ops.hard_tanh,
    "hypot": lambda x: ops.hypot(x, ROW),
    "leaky_relu": ops.leaky_relu,
    "log": ops.log,
    "log10": ops.log10,
    "log1p": ops.log1p,
    "log2": ops.log2,
    "log_sigmoid": ops.log_sigmoid,
    "log_softmax": lambda x: ops.log_softmax(x, axis=2),
    "logaddexp": lambda x: ops.logaddexp(x, ROW),
    "logaddexp2": lambda x: ops.logaddexp2(x, ROW),
    "max": lambda x: ops.max(x, axis=2, keepdims=True),
    "maximum": lambda x: ops.maximum(x, 0.4),
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "median": lambda x: ops.median(x, axis=(1, 2)),
    "min": lambda x: ops.min(x, axis=2),
    "minimum": lambda x: ops.minimum(0.4 * ROW, x),
    "moveaxis": lambda x: ops.moveaxis(x, -1, 1),
    "multiply": lambda x: x * ROW * -2 * x,
    "nan_to_num": ops.nan_to_num,
    "negative": lambda x: -x,
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], mode="reflect"),
    "pad with the constant": lambda x: ops.pad(
        x, [[0, 0], [1, 0], [0, 1], [0, 0]], constant_values=0.5
    ),
    "power": lambda x: x**1.5 + 2**x,
    "prod": lambda x: ops.prod(x, axis=(1, 2)) * 1000,
    "rad2deg": ops.rad2deg,
    "reciprocal": ops.reciprocal,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "relu with a threshold": lambda x: activations.relu(x, threshold=0.4),
    "reshape": lambda x: ops.reshape(x, (-1, 2, 8, 6)),
    "roll": lambda x: ops.roll(x, (1, 2), axis=(1, 2)),
    "rsqrt": ops.rsqrt,
    "saturate_cast": lambda x: ops.saturate_cast(x, "float64"),
    "selu": ops.selu,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "sin": ops.sin,
    "sinc": ops.sinc,
    "sinh": ops.sinh,
    "soft_shrink": lambda x: ops.soft_shrink(x, 0.3),
    "softmax": lambda x: ops.softmax(x, axis=1),
    "softplus": ops.softplus,
    "softsign": ops.softsign,
    "sparse_plus": ops.sparse_plus,
    "sparse_sigmoid": lambda x: ops.sparse_sigmoid(x - 0.5),
    "split": lambda x: ops.split(x, [1, 3], axis=2)[1],
    "sqrt": ops.sqrt,
    "square": ops.square,
    "squareplus": ops.squareplus,
    "squeeze": lambda x: ops.squeeze(x[:, :1]),
    "stack": lambda x: ops.stack([x, 1 - x], axis=-1),
    "std": lambda x: ops.std(x, axis=(1, 2)),
    "stop_gradient": ops.stop_gradient,
    "subtract": lambda x: (x - ROW) - (2 - x),
    "sum": lambda x: ops.sum(x, axis=(1, 2)),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 3),
    "take": lambda x: ops.take(x, [2, 0, 0], axis=1) + ops.take(x, 3, axis=2)[:, :3, None],
    "tan": ops.tan,
    "tanh": ops.tanh,
    "tanh_shrink": ops.tanh_shrink,
    "threshold": lambda x: ops.threshold(x, 0.45, 0.1),
    "tile": lambda x: ops.tile(x, (1, 2, 1)),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "true_divide": lambda x: x / ROW + 1 / x,
    "unstack": lambda x: ops.unstack(x, axis=1)[2],
    "var": lambda x: ops.var(x, axis=(1, 2)),
    "where": lambda x: ops.where(ROW > 1, x, 0.5),
}

# Of these nothing is known, so that constants ≠ 0 keep their units.
BLIND = {
    "all": lambda x: ops.all(jumping(x) > 0, axis=1),
    "any": lambda x: ops.any(jumping(x) > 0, axis=1),
    "argmax": lambda x: ops.argmax(x, axis=1),
    "argmin": lambda x: ops.argmin(x, axis=1),
    "cast to integers": lambda x: ops.cast(jumping(x), "int32"),
    "ceil": lambda x: ops.ceil(jumping(x)),
    "count_nonzero": lambda x: ops.count_nonzero(ops.floor(jumping(x)), axis=1),
    "divide_no_nan": lambda x: ops.divide_no_nan(x, ROW),
    "equal": lambda x: ops.equal(ops.floor(jumping(x)), 0),
    "floor": lambda x: ops.floor(jumping(x)),
    "floor_divide": lambda x: jumping(x) // ROW,
    "fmod": lambda x: ops.fmod(jumping(x), ROW),
    "greater": lambda x: jumping(x) > ROW,
    "greater_equal": lambda x: jumping(x) >= ROW,
    "heaviside": lambda x: ops.heaviside(jumping(x), ROW),
    "isfinite": lambda x: ops.isfinite(ops.log(ops.relu(jumping(x)))),
    "isinf": lambda x: ops.isinf(ops.log(ops.relu(jumping(x)))),
    "isnan": lambda x: ops.isnan(ops.log(jumping(x))),
    "less": lambda x: jumping(x) < ROW,
    "less_equal": lambda x: jumping(x) <= ROW,
    "logical_and": lambda x: (x > 0.3) & (x < 0.6),
    "logical_not": lambda x: ~(x < 0.6),
    "logical_or": lambda x: (x < 0.3) | (x > 0.6),
    "logical_xor": lambda x: (x < 0.3) ^ (x < 0.6),
    "mod": lambda x: jumping(x) % ROW,
    "not_equal": lambda x: ops.not_equal(ops.floor(jumping(x)), 0),
    "pad with zeros": lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 1], [0, 0]]),
    "round": lambda x: ops.round(jumping(x)),
    "sign": lambda x: ops.sign(jumping(x)),
    "signbit": lambda x: ops.signbit(jumping(x)),
    "trunc": lambda x: ops.trunc(jumping(x)),
}


def network(call, *, before="sigmoid", batch=None):
    """The call on units of which every second one is dropped, and is 0.5 in front of the call."""
    x = Input((4, 4, 5), batch_size=batch)
    y = gate()(layers.Dense(6, name="producer")(x))
    y = call(layers.Activation(before)(y))
    y = layers.Flatten()(ops.cast(y, "float32"))
    model = randomise(Model(x, layers.Dense(3)(y)), drop=0.0)
    drop_units(find_gates(model)[0], [1, 3, 5])
    return model


def analysed(model):
    program = trace(model)
    program = with_decisions(program, decide(ProgramNetwork(program), OwnRules()).keep)
    return program, analyse(program)


@pytest.mark.parametrize("name", PASSING)
def test_units_and_constants_pass(name: str) -> None:
    model = network(PASSING[name], batch=2 if name == "broadcast_to" else None)
    assert not analysed(model)[1].opaque
    small, _ = assert_same_function(model)
    assert small.get_layer("producer").units == 3


@pytest.mark.parametrize("name", BLIND)
def test_units_pass_but_not_constants(name: str) -> None:
    model = network(BLIND[name])
    assert not analysed(model)[1].opaque
    small, _ = assert_same_function(model)
    assert small.get_layer("producer").units == 6


@pytest.mark.parametrize("name", PASSING | BLIND)
@pytest.mark.parametrize("before", ["sigmoid", "relu"])
def test_what_is_known_is_true(name: str, before: str) -> None:
    """Along every axis of every tensor, a unit said to be constant holds that constant."""
    call = (PASSING | BLIND)[name]
    model = network(call, before=before, batch=2 if name == "broadcast_to" else None)
    program, analysis = analysed(model)
    outputs = [x for layer in model.operations for x in keras.tree.flatten(layer.output)]
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 5)).astype("float32")
    received = dict(
        zip([x.name for x in outputs], Model(model.inputs, outputs)([images]), strict=True)
    )
    checked, rounding = 0, 1e-3 if name == "cast" else 1e-5
    for op in program.ops:
        for tensor, x in zip(op.outputs, keras.tree.flatten(_layer(model, op).output), strict=True):
            value = keras.ops.convert_to_numpy(received[x.name]).astype("float64")
            for axis, constants in analysis.known[tensor].items():
                slices = np.moveaxis(value, axis, 0).reshape(len(constants), -1)
                for constant, numbers in zip(constants, slices, strict=True):
                    if not np.isnan(constant):
                        np.testing.assert_allclose(numbers, constant, rtol=rounding, atol=1e-6)
                        checked += 1
    assert checked >= 6


def _layer(model, op):
    return next(layer for layer in model.operations if layer.name == op.name)


ELSEWHERE = {"attention", "contraction", "repeat"}  # have tests of their own


def handled_operations():
    modules = {cls: type(handler_of(cls)).__module__ for cls in registered_classes()}
    return {
        cls
        for cls, module in modules.items()
        if ".handlers.ops." in module and module.rpartition(".")[2] not in ELSEWHERE
    }


def test_every_operation_is_tried() -> None:
    calls = PASSING | BLIND
    tried = {type(op.operation) for name in calls for op in trace(_traceable(calls[name])).ops}
    same_call = {numpy_ops.Abs}  # `ops.abs` makes an Absolute
    assert handled_operations() - tried <= same_call
    assert len(handled_operations()) > 100


def _traceable(call):
    x = Input((4, 4, 6), batch_size=2)
    return Model(x, call(x))
