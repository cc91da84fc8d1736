"""The inputs of a model: their specs, and examples of them, the user's or random ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.drawing import (
    Batch,
    DoesNotRunError,
    Slot,
    batches,
    first_that_runs,
    is_lacking,
)
from keras_sbp.comparing.examples import GIVEN, arrays_of
from keras_sbp.program import Program, trace
from keras_sbp.program.domains import macs_of, sizes_in, slots_of

MOST_COMPARED = 256
_MOST_READ = 1024  # examples that are read of a data set, which may have no end
_RANDOM = 4  # at least so many are drawn
_BATCH = 32


def input_specs(model: keras.Model, batch_size: int | None) -> Any:
    """Input specs of a model, in the structure in which the model takes its inputs.

    Args:
        model: A built Keras model.
        batch_size: Size of the first axis, `None` to leave it free. An input that was itself
            declared with a fixed batch size keeps that one.

    Returns:
        `keras.InputSpec`s nested like the model's inputs, each with a unique name.

    Raises:
        ValueError: If the model is not built.
    """
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its input shapes are unknown. Call it once on "
            "data, or give it an `Input`, before exporting it."
        )
    structure = _structure(model)
    if structure is None:
        return _from_build_config(model, batch_size)

    def spec(tensor: Any) -> keras.InputSpec:
        first = batch_size if tensor.shape[0] is None else tensor.shape[0]
        name = _argument_name(tensor.name)
        return keras.InputSpec(shape=(first, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(spec, structure)


def input_names(model: keras.Model) -> list[str]:
    """The names that a model's inputs have in Keras, in the order of the specs."""
    structure = _structure(model)
    return ["inputs"] if structure is None else [x.name for x in keras.tree.flatten(structure)]


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Outputs of a model by the names that TensorFlow gives them in a signature.

    Args:
        outputs: What the model returned.

    Returns:
        A dict in the order in which TensorFlow flattens them.
    """
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in sorted(outputs)}
    if isinstance(outputs, list | tuple):
        return {f"output_{i}": value for i, value in enumerate(outputs)}
    return {"output_0": outputs}


def structured(specs: Any, batch: dict[str, np.ndarray]) -> Any:
    """The arrays of a batch, nested as the model takes them."""
    return keras.tree.map_structure(lambda spec: batch[spec.name], specs)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Batches of inputs.

    Attributes:
        batches: each a dict from the name of an input to an array.
        values: what they are, in words, by the name of the input.
    """

    batches: list[dict[str, np.ndarray]]
    values: dict[str, str]


def random_examples(model: keras.Model, specs: Any) -> Examples:
    """Draws inputs that the model runs on, by the layers that read them.

    Unknown sizes are tried until one runs. Where the batch size is fixed, there are several
    batches, so that the outputs can be seen to vary.

    Args:
        model: A built model.
        specs: Its input specs, from `input_specs`.

    Returns:
        Few of them.

    Raises:
        RuntimeError: If the model runs on none that was tried.
    """
    flat = keras.tree.flatten(specs)
    program = _graph(model)
    trials = batches(
        _slots(model, specs, program),
        macs=macs_of(program) if program else 0,
        sizes=sizes_in(program) if program else (),
    )

    def run(batch: Batch) -> Any:
        return model(structured(specs, _named(flat, batch.arrays)), training=False)

    try:
        first, _ = first_that_runs(trials, run)
    except DoesNotRunError as error:
        raise _does_not_run(model.name, error) from error
    count = -(-_RANDOM // first.examples)
    drawn = [first]
    if first.again is not None:
        drawn += [first.again(seed=seed) for seed in range(1, count)]
    values = {spec.name: each.values for spec, each in zip(flat, first.inputs, strict=True)}
    return Examples([_named(flat, batch.arrays) for batch in drawn], values)


def given_examples(model: keras.Model, specs: Any, data: Any, argument: str) -> Examples:
    """Cuts examples of the user's into batches that fit the specs.

    Args:
        model: A built model.
        specs: Its input specs, from `input_specs`.
        data: See `keras_sbp.comparing.examples.arrays_of`.
        argument: The name of the argument that holds them, for messages.

    Returns:
        All of them; of a data set, the first thousand. Where the batch size is fixed, those
        that do not fill a batch are left out.

    Raises:
        ValueError: If they do not fit the model.
    """
    flat = keras.tree.flatten(specs)
    size = flat[0].shape[0]
    arrays = arrays_of(data, _slots(model, specs, None), argument, max(_MOST_READ, size or 1))
    count = len(arrays[0])
    if count < (size or 1):
        raise ValueError(
            f"{argument} has {count} examples, expected at least {size}, one batch. Give more "
            "examples, or export with a smaller batch_size."
        )
    stop, step = (count - count % size, size) if size else (count, _BATCH)
    cut = [_named(flat, [a[i : i + step] for a in arrays]) for i in range(0, stop, step)]
    return Examples(cut, {spec.name: GIVEN for spec in flat})


def read_once(
    model: keras.Model, batch_size: int | None, data: Any, argument: str
) -> list[np.ndarray]:
    """Reads as many of a user's examples as are compared; a generator can be read only once.

    Args:
        model: A built model.
        batch_size: Size of the first axis, `None` to leave it free.
        data, argument: As in `given_examples`.

    Returns:
        An array for each input.

    Raises:
        ValueError: If they do not fit the model.
    """
    specs = input_specs(model, batch_size)
    size = keras.tree.flatten(specs)[0].shape[0] or 1
    return arrays_of(data, _slots(model, specs, None), argument, max(MOST_COMPARED, size))


def _graph(model: keras.Model) -> Program | None:
    """The model as a program, if it can be read as one; exporting does not need that."""
    try:
        return trace(model)
    except (TypeError, ValueError):
        return None


def _slots(model: keras.Model, specs: Any, program: Program | None) -> list[Slot]:
    """The inputs, by all the names they have, with the values that suit what reads them."""
    flat = keras.tree.flatten_with_path(specs)
    values = [slot.values for slot in slots_of(program)] if program else [()] * len(flat)
    return [
        Slot(spec.name, tuple(spec.shape), spec.dtype, kinds, (name, str(path[-1] if path else "")))
        for (path, spec), name, kinds in zip(flat, input_names(model), values, strict=True)
    ]


def _named(flat: Sequence[keras.InputSpec], arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {spec.name: array for spec, array in zip(flat, arrays, strict=True)}


def _does_not_run(name: str, error: DoesNotRunError) -> RuntimeError:
    cause = error.__cause__
    if is_lacking(cause):
        said = (
            f"Model '{name}' cannot run on this machine, where the backend "
            f"({keras.backend.backend()}) lacks an operation of it, so the exported file cannot be "
            "compared with it. Expected a machine that runs the model. No file was written. Pass "
            "verify=False to export it without the comparison."
        )
    else:
        said = (
            f"Model '{name}' runs on none of the random inputs that were tried, so the exported "
            f"file cannot be compared with it:\n{error.tried}\nExpected a model that takes some of "
            "these. No file was written. Pass verify=examples, a batch of inputs as for predict(); "
            "or verify=False to export it without the comparison."
        )
    raised = RuntimeError(said)
    raised.add_note(f"The last error was {type(cause).__name__}: {cause}")
    return raised


def _structure(model: keras.Model) -> Any:
    """The symbolic inputs, nested as the model takes them; `None` if it has none."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input if getattr(model, "inputs", None) else None


def _argument_name(name: str) -> str:
    """An input's name; TensorFlow takes only word characters for the arguments of a signature."""
    return re.sub(r"\W", "_", name)


def _from_build_config(model: keras.Model, batch_size: int | None) -> Any:
    config = model.get_build_config() or {}
    shape = config.get("input_shape")
    if not (isinstance(shape, list | tuple) and all(isinstance(n, int | None) for n in shape)):
        raise ValueError(
            f"The inputs of model '{model.name}' ({type(model).__name__}) cannot be read: expected "
            "a Functional or Sequential model, or a subclassed one called on a single tensor, "
            f"received the recorded shapes {config}. Wrap it: "
            "keras.Model(inputs, model(inputs))."
        )
    return keras.InputSpec(shape=(batch_size, *shape[1:]), dtype=model.input_dtype, name="inputs")
