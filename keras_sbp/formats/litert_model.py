"""Running a `.tflite` file, and reading what is in it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

_MISSING = (
    "Reading a `.tflite` file needs a LiteRT interpreter, and neither `ai_edge_litert` nor "
    "TensorFlow is installed. Install one: `pip install 'keras-sbp[tf]'`."
)
_FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")


class LiteRTModel:
    """A `.tflite` file in the LiteRT interpreter, run by input name.

    The interpreter of `ai_edge_litert` is used where it is installed, else the one inside
    TensorFlow; both run the file with their default CPU kernels. Of a file with integer inputs
    and outputs that stand for real numbers, floating inputs are quantised and outputs turned back
    into real numbers.

    Args:
        path: The `.tflite` file.
        num_threads: Threads the interpreter may use, at least 1.

    Raises:
        ImportError: If neither runtime is installed.
        ValueError: If the file is not a LiteRT model.

    Example:

    ```python
    model = LiteRTModel("small.tflite")
    y = model({"image": image})["output_0"]
    ```
    """

    def __init__(self, path: str | os.PathLike[str], num_threads: int = 1) -> None:
        self.path = os.fspath(path)
        with warnings.catch_warnings():
            # TensorFlow's copy announces its own removal on every construction.
            warnings.filterwarnings("ignore", message="(?s).*tf.lite.Interpreter is deprecated")
            self._interpreter = _runtime().Interpreter(
                model_path=self.path, num_threads=num_threads
            )
        # The runner knows which tensor has which name; while it lives, `invoke` is refused.
        runner = self._interpreter.get_signature_runner()
        self._inputs = runner.get_input_details()
        self._outputs = runner.get_output_details()
        del runner
        self._interpreter.allocate_tensors()
        self._allocated: dict[str, tuple[int, ...]] = {}

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape (-1 where it is free) and dtype of each input, by name."""
        return _shapes(self._inputs)

    @property
    def outputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape (-1 where it is free) and dtype of each output, by name."""
        return _shapes(self._outputs)

    @property
    def ops(self) -> tuple[str, ...]:
        """Names of all operations in the file, in the order they run."""
        return op_names(self.path)

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        """Run the model on one batch.

        Args:
            inputs: A mapping from input name to array, or the bare array of a model with one
                input.

        Returns:
            A dict from output name to array.
        """
        self.set_inputs(inputs)
        self.invoke()
        return {
            name: _real(self._interpreter.get_tensor(item["index"]), item["quantization"])
            for name, item in self._outputs.items()
        }

    def set_inputs(self, inputs: Any) -> None:
        """Put one batch in place for `invoke`; same argument as `__call__`."""
        arrays = self._by_name(inputs)
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != self._allocated:
            for name, shape in shapes.items():
                self._check_shape(name, shape)
                self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape)
            self._interpreter.allocate_tensors()
            self._allocated = shapes
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)

    def invoke(self) -> None:
        """Run once on the inputs already in place: what a latency measurement times."""
        self._interpreter.invoke()

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        expected = self.inputs[name][0]
        fits = len(shape) == len(expected) and all(
            e in (-1, n) for e, n in zip(expected, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"Input '{name}' of '{self.path}' expects shape {expected} (-1 is free), "
                f"received {shape}."
            )

    def _by_name(self, inputs: Any) -> dict[str, np.ndarray]:
        expected = self.inputs
        if not isinstance(inputs, Mapping):
            if len(expected) != 1:
                raise ValueError(
                    f"'{self.path}' has several inputs, expected a mapping with the keys "
                    f"{sorted(expected)}, received {type(inputs).__name__}."
                )
            inputs = {next(iter(expected)): inputs}
        if set(inputs) != set(expected):
            raise ValueError(
                f"'{self.path}' expects inputs named {sorted(expected)}, received {sorted(inputs)}."
            )
        return {
            name: _stored(np.asarray(value), expected[name][1], self._inputs[name]["quantization"])
            for name, value in inputs.items()
        }


def op_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of all operations in a `.tflite` file, in the order they run.

    Builtin operations carry the name of the file format (`"CONV_2D"`), custom ones their own;
    one that only the TensorFlow runtime can execute begins with `"Flex"`.

    Args:
        path: The `.tflite` file.

    Returns:
        A tuple of names over all subgraphs.
    """
    return tuple(name for _, _, name in _operators(path))


def float_ops(path: str | os.PathLike[str]) -> tuple[tuple[str, str], ...]:
    """The operations of a `.tflite` file that compute in floating point.

    Where floating inputs are quantised, and outputs turned back, is no computation.

    Args:
        path: The `.tflite` file.

    Returns:
        Pairs of an operation's name and the name of its first output tensor, which tells the
        layer.
    """
    types = {value: name for name, value in vars(_schema().TensorType).items() if name.isupper()}
    found = []
    for graph, operator, name in _operators(path):
        inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
        outputs = [operator.Outputs(i) for i in range(operator.OutputsLength())]
        border = (name == "QUANTIZE" and inputs[0] in _ends(graph, "Inputs")) or (
            name == "DEQUANTIZE" and outputs[0] in _ends(graph, "Outputs")
        )
        # An optional input that was left out is -1.
        tensors = [graph.Tensors(i) for i in (*inputs, *outputs) if i >= 0]
        if not border and any(types[tensor.Type()] in _FLOATS for tensor in tensors):
            found.append((name, graph.Tensors(outputs[0]).Name().decode()))
    inner = [pair for pair in found if pair[0] not in ("QUANTIZE", "DEQUANTIZE")]
    return tuple(inner or found)


def _shapes(details: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {
        name: (tuple(int(n) for n in item["shape_signature"]), np.dtype(item["dtype"]))
        for name, item in details.items()
    }


def _runtime() -> ModuleType:
    try:
        from ai_edge_litert import interpreter

        return interpreter
    except ImportError:
        pass
    try:
        import tensorflow as tf

        return tf.lite
    except ImportError as error:
        raise ImportError(_MISSING) from error


def _stored(value: np.ndarray, dtype: np.dtype, quantization: tuple[float, int]) -> np.ndarray:
    """A value as the file stores it: real numbers of a quantised input become integers."""
    if dtype.kind == "S":
        words = [w if isinstance(w, bytes) else str(w).encode() for w in value.ravel()]
        return np.array(words).reshape(value.shape)
    scale, zero = quantization
    if not scale or value.dtype.kind != "f":
        return value.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(dtype)


def _real(value: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero = quantization
    if not scale or value.dtype.kind == "f":
        return value
    return ((value.astype("float64") - zero) * scale).astype("float32")


def _operators(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Any, str]]:
    schema = _schema()
    with open(path, "rb") as file:
        model = schema.Model.GetRootAsModel(file.read(), 0)
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = model.OperatorCodes(operator.OpcodeIndex())
            # Files from before schema 3a keep the number in the older, 8-bit field.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            custom = code.CustomCode()
            yield graph, operator, custom.decode() if custom else builtin[number]


def _ends(graph: Any, which: str) -> set[int]:
    count = getattr(graph, f"{which}Length")()
    return {getattr(graph, which)(i) for i in range(count)}


def _schema() -> ModuleType:
    try:
        from ai_edge_litert import schema_py_generated

        return schema_py_generated
    except ImportError:
        pass
    try:
        from tensorflow.lite.python import schema_py_generated

        return schema_py_generated
    except ImportError as error:
        raise ImportError(_MISSING) from error
