"""Copies of layers, whoever wrote them: like the original in all that it holds, and apart from it.

A config is what a layer should be copied by. Where it does not describe the layer, there are the
arguments that Keras captured when the layer was constructed, and then a deep copy. Nothing of
this is trusted: a copy is accepted when it computes what the original computes.
"""

from __future__ import annotations

import gc
import tempfile
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.program.program import Op, Tensor, is_tensor
from keras_sbp.program.unfold import TRIAL_SIZES, agree, in_short, random

OWN = ("keras", "keras_sbp")  # packages whose layers do what their configs say


def copied(op: Op, name: str, **changes: Any) -> Any:
    """Returns a new operation that does what an op's does, with the same weights and state.

    Args:
        op: a call of the operation. Layers that are not Keras's own are tried on its inputs.
        name: of the copy.
        changes: config entries that may differ, since they leave the function as it is.

    Raises:
        ValueError: no way of copying gives a layer with the same function.
    """
    old = op.operation
    if not isinstance(old, keras.layers.Layer):
        return _keras.copied_operation(old, name)
    errors: dict[str, Exception] = {}
    for way, make in _ways(old, name, changes).items():
        try:
            new = make()
            _take_over(op, new, name)
            if way == DEEP or not _is_own(old):
                _require_apart(new, old)
                _require_same(op, new)
            return new
        except Exception as error:  # whatever a user's class may raise
            errors[way] = error
    lines = [f"  {way}: {type(e).__name__}: {in_short(e)}" for way, e in errors.items()]
    raise ValueError(
        f"Layer '{old.name}' (of type {type(old).__name__}) must be copied into the new model, and "
        "no copy of it is the same layer. Expected one that its get_config() and from_config() "
        "rebuild. Received:\n" + "\n".join(lines) + "\nGive the class a get_config() that returns "
        "all arguments of its constructor."
    ) from next(iter(errors.values()))


DEEP = "by a deep copy"


def _ways(old: keras.layers.Layer, name: str, changes: dict) -> dict[str, Callable[[], Any]]:
    arguments = _keras.captured_arguments(old, name)
    ways = {"by its config": lambda: _keras.by_config(old, name, **changes)}
    if arguments is not None:
        ways["by the arguments of its constructor"] = lambda: _constructed(type(old), arguments)
    return ways | {DEEP: lambda: _keras.deep_copy(old)}


def _constructed(cls: type, arguments: dict[str, Any]) -> keras.layers.Layer:
    """A layer whose class has a config that does not rebuild it gets one that does, for files."""
    new = cls(**arguments)
    new.get_config = lambda: dict(arguments)
    return new


def _is_own(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer and all inside are of classes whose configs can be relied on."""
    layers = [layer, *_keras.sublayers(layer)]
    return all(type(each).__module__.partition(".")[0] in OWN for each in layers)


def _require_apart(new: keras.layers.Layer, old: keras.layers.Layer) -> None:
    """Looks for layers and variables of the old layer that can be reached from the new one.

    A config may hold them as they are, and functions, which nothing copies, may hold on to them.
    """
    owned = [old, *_keras.sublayers(old), *old.variables]
    names = {id(each): each.name for each in owned}
    waiting, seen = [new], {id(new)}
    while waiting:
        for each in _referents(waiting.pop()):
            if id(each) in names:
                raise ValueError(f"it would share '{names[id(each)]}' with the original")
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)


def _referents(thing: Any) -> list[Any]:
    if isinstance(thing, type | types.ModuleType | types.CodeType | np.ndarray | keras.Variable):
        return []
    if isinstance(thing, types.FunctionType):
        # Not its globals: everything is to be found there.
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
    return [] if keras.ops.is_tensor(thing) else gc.get_referents(thing)


# State -----------------------------------------------------------------------------------------


def _take_over(op: Op, new: keras.layers.Layer, name: str) -> None:
    """Gives a copy its name, and all state of the layer that it copies."""
    old = op.operation
    new.name = name
    with _keras.leaving_no_trace(new):
        _call(op, new, lambda tensor: keras.KerasTensor(tensor.shape, tensor.dtype))
    for original, copy in _pairs(old, new):
        _copy_what_files_hold(original, copy)
        copy.autocast = original.autocast
        if copy.trainable != original.trainable:
            copy.trainable = original.trainable
    for original, copy in zip(old.variables, new.variables, strict=True):
        copy.assign(keras.ops.convert_to_numpy(original))
        copy.trainable = original.trainable


def _pairs(old: keras.layers.Layer, new: keras.layers.Layer) -> list[tuple]:
    originals = [old, *_keras.sublayers(old)]
    copies = [new, *_keras.sublayers(new)]
    if [type(each) for each in originals] != [type(each) for each in copies]:
        raise ValueError("it has other layers inside")
    return list(zip(originals, copies, strict=True))


def _copy_what_files_hold(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Copies state that is no variable by the methods that write it to files: vocabularies, say."""
    if type(old).load_own_variables is not keras.layers.Layer.load_own_variables:
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables({k: keras.ops.convert_to_numpy(v) for k, v in store.items()})
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


# Comparison ------------------------------------------------------------------------------------


def _require_same(op: Op, new: keras.layers.Layer) -> None:
    """Runs a copy and the original on random inputs, as far as the original accepts any."""
    for size in TRIAL_SIZES:
        try:
            values = _values(op, size)
            expected = _outputs(op, op.operation, values)
        except Exception:
            continue
        received = _outputs(op, new, values)
        if not all(map(agree, expected, received)):
            raise ValueError("it computes something else")
        return


def _values(op: Op, size: int) -> dict[Tensor, Any]:
    """Random values of an op's inputs, with a size in place of those that are unknown."""
    rng = np.random.default_rng(0)
    return {
        tensor: keras.ops.convert_to_tensor(
            random(tensor.shape, tensor.dtype, size, rng), tensor.dtype
        )
        for tensor in op.inputs
    }


def _outputs(op: Op, layer: keras.layers.Layer, values: dict[Tensor, Any]) -> list[Any]:
    with keras.StatelessScope():
        return keras.tree.flatten(_call(op, layer, values.__getitem__))


def _call(op: Op, layer: keras.layers.Layer, value_of: Callable[[Tensor], Any]) -> Any:
    """Calls a layer with an op's arguments, with something in place of each tensor."""
    args, kwargs = keras.tree.map_structure(
        lambda leaf: value_of(leaf) if is_tensor(leaf) else leaf, (op.args, op.kwargs)
    )
    return layer(*args, **kwargs)
