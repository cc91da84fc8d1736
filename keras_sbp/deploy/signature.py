"""What an exported model takes in: one named, shaped and typed spec per input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

# A free axis other than the batch (sequence length, image side) needs some size to be tried with.
FREE_AXIS = 32
_EXAMPLES = 4
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
    if isinstance(model, keras.Sequential):
        structure = model.inputs[0]
    elif hasattr(model, "inputs") and model.inputs:
        structure = model.input
    else:
        return _from_build_config(model, batch_size)

    def spec(tensor: Any) -> keras.InputSpec:
        first = batch_size if tensor.shape[0] is None else tensor.shape[0]
        name = _argument_name(tensor.name)
        return keras.InputSpec(shape=(first, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(spec, structure)


def random_batches(specs: Any, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random inputs that fit the specs, some four examples in all.

    Floating inputs are standard normal, integers 0 or 1 (valid for every vocabulary).

    Args:
        specs: The result of `input_specs`.
        seed: Seed of the random numbers.

    Returns:
        A list of batches, each a dict from input name to array.
    """
    flat = keras.tree.flatten(specs)
    fixed = flat[0].shape[0]
    rng = np.random.default_rng(seed)
    count = 1 if fixed is None else max(1, _EXAMPLES // fixed)
    return [{spec.name: _random(spec, rng) for spec in flat} for _ in range(count)]


def batches_of(specs: Any, data: Any) -> list[dict[str, np.ndarray]]:
    """Examples given by the user, cut into batches that fit the specs.

    Args:
        specs: The result of `input_specs`.
        data: An array for a model with one input; else a mapping from input name to array, or
            the arrays in the order of the model's inputs. The first axis counts examples.

    Returns:
        A list of batches, each a dict from input name to array. Where the batch size is fixed,
        examples that do not fill a batch are left out.

    Raises:
        ValueError: If the data do not fit the model.
    """
    flat = keras.tree.flatten(specs)
    arrays = {spec.name: _checked(spec, array) for spec, array in _paired(flat, data)}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"calibration_data has different numbers of examples for different inputs: {counts}. "
            "Expected the same number for each."
        )
    count, size = min(counts.values()), flat[0].shape[0]
    if count < (size or 1):
        raise ValueError(
            f"calibration_data has {count} examples, expected at least {size or 1}, one batch. "
            "Give more examples, or export with a smaller batch_size."
        )
    stop = count - count % size if size else count
    step = size or _BATCH
    return [
        {name: array[i : i + step] for name, array in arrays.items()} for i in range(0, stop, step)
    ]


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


def _random(spec: keras.InputSpec, rng: np.random.Generator) -> np.ndarray:
    first = _EXAMPLES if spec.shape[0] is None else spec.shape[0]
    shape = (first, *(FREE_AXIS if n is None else n for n in spec.shape[1:]))
    if spec.dtype == "bool":
        return rng.random(shape) < 0.5
    if "int" in spec.dtype:
        return rng.integers(0, 2, shape).astype(spec.dtype)
    if "float" not in spec.dtype:
        raise ValueError(
            f"Input '{spec.name}' has dtype {spec.dtype}, for which no random values can be "
            "drawn, so the exported file cannot be compared with the model. Pass verify=False "
            "to export without the comparison."
        )
    values = rng.standard_normal(shape).astype("float32")
    return keras.ops.convert_to_numpy(keras.ops.cast(values, spec.dtype))


def _argument_name(name: str) -> str:
    """An input's name; TensorFlow takes only word characters for the arguments of a signature."""
    return re.sub(r"\W", "_", name)


def _paired(flat: list[keras.InputSpec], data: Any) -> Iterator[tuple[keras.InputSpec, Any]]:
    names = [spec.name for spec in flat]
    if isinstance(data, Mapping):
        named = {_argument_name(name): array for name, array in data.items()}
        if set(named) != set(names):
            raise ValueError(
                f"calibration_data must have an array for each input, expected the keys {names}, "
                f"received {sorted(data)}."
            )
        return ((spec, named[spec.name]) for spec in flat)
    arrays = list(data) if isinstance(data, list | tuple) and len(flat) > 1 else [data]
    if len(arrays) != len(flat):
        raise ValueError(
            f"calibration_data must have an array for each of the {len(flat)} inputs {names}, in "
            f"this order or as a mapping by name; received {len(arrays)}."
        )
    return zip(flat, arrays, strict=True)


def _checked(spec: keras.InputSpec, value: Any) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(value))
    expected = tuple(spec.shape)
    fits = array.ndim == len(expected) and all(
        e in (None, n) for e, n in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        raise ValueError(
            f"calibration_data for input '{spec.name}' must be numbers of shape "
            f"{('examples', *expected[1:])}, received {array.dtype} of shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"calibration_data for input '{spec.name}' is NaN or infinite in places, expected "
            "finite numbers. Remove these examples."
        )
    return keras.ops.convert_to_numpy(keras.ops.cast(array, spec.dtype))


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
