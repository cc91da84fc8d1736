"""From a Keras model to a file that runs without it."""

from keras_sbp.formats.base import Format, Runtime, register_format
from keras_sbp.formats.keras_file import KerasFile
from keras_sbp.formats.litert import LiteRT
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.formats.onnx import ONNX
from keras_sbp.formats.openvino import OpenVINO
from keras_sbp.formats.quantization import Quantizing
from keras_sbp.formats.saved_model import SavedModel
from keras_sbp.formats.write import ExportReport

__all__ = [
    "ONNX",
    "ExportReport",
    "Format",
    "KerasFile",
    "LiteRT",
    "LiteRTModel",
    "OpenVINO",
    "Quantizing",
    "Runtime",
    "SavedModel",
    "register_format",
]
