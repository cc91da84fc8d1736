"""The packages that the formats need, imported late, with the extra that brings each."""

from __future__ import annotations

import importlib
from types import ModuleType

_EXTRAS = {
    "tensorflow": "tf",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tf2onnx": "onnx",
    "openvino": "openvino",
}


def require(package: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to get it.

    Args:
        package: Its import name.
        purpose: What it is needed for, as the beginning of a sentence: `"Exporting to ONNX"`.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.split(".")[0]
        raise ImportError(
            f"{purpose} needs the package '{top}', which is not installed. Install it: "
            f"`pip install 'keras-sbp[{_EXTRAS[top]}]'`."
        ) from error
