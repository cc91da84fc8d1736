"""Finding what a user means by the name of a layer, or by the layer itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import keras

from keras_sbp import _keras
from keras_sbp.program import Op, Program

Chosen = dict[str, set[Op]]


def chosen_layers(program: Program, things: Any, argument: str) -> Chosen:
    """Returns the calls that each thing stands for.

    A name stands for the layer of this name and everything in it, be it a nested model or a
    composite layer; a part of a path (`encoder_3/attention`) likewise.

    Args:
        program: a traced program.
        things: names and layers; one alone need not be in a list.
        argument: what the user calls this argument, for messages.

    Raises:
        TypeError: a thing is neither a name nor a layer.
        ValueError: the model has no such layer.
    """
    if isinstance(things, str | keras.layers.Layer) or not isinstance(things, Iterable):
        things = [things]
    chosen: Chosen = {}
    for thing in things:
        if isinstance(thing, str):
            chosen[thing] = _by_name(program, thing, argument)
        elif isinstance(thing, keras.layers.Layer):
            chosen[thing.name] = _by_object(program, thing, argument)
        else:
            raise TypeError(
                f"insert_sbp expected `{argument}` to hold names of layers, or layers. "
                f"Received: {thing!r} (of type {type(thing).__name__})."
            )
    return chosen


def _by_object(program: Program, layer: keras.layers.Layer, argument: str) -> set[Op]:
    found = _calls_in(program, layer)
    if not found:
        raise ValueError(
            f"insert_sbp finds no call of layer '{layer.name}', which `{argument}` holds, in model "
            f"'{program.model.name}'. Expected a layer of this model: model.get_layer(name)."
        )
    return found


def _by_name(program: Program, name: str, argument: str) -> set[Op]:
    found = {op for op in program.ops if f"/{name}/" in f"/{op.name}/"}
    layers = _keras.sublayers(program.model)
    for layer in layers:
        if layer.name == name:
            found |= _calls_in(program, layer)
    if found:
        return found
    known = {op.name for op in program.ops} | {layer.name for layer in layers}
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
    raise ValueError(
        f"insert_sbp finds no layer '{name}', which `{argument}` names, in model "
        f"'{program.model.name}'.{hint} Expected names as in model.summary(), or paths into "
        "composite layers such as 'encoder/attention'."
    )


def _calls_in(program: Program, layer: keras.layers.Layer) -> set[Op]:
    inside = {id(layer), *(id(each) for each in _keras.sublayers(layer))}
    return {op for op in program.ops if id(op.operation) in inside}
