"""Transposed convolutions in ONNX, also where no row of the input reaches one of the output."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from keras_sbp import export
from tests import kernels

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (layers.Conv2DTranspose, {"padding": "valid", "output_padding": 1}),
        (layers.Conv2DTranspose, {"padding": "same", "output_padding": 1}),
        (layers.Conv2DTranspose, {"padding": "valid", "output_padding": (0, 1)}),
        (layers.Conv2DTranspose, {"padding": "same", "kernel_size": 1, "strides": 3}),
        (layers.Conv2DTranspose, {"padding": "valid", "kernel_size": 2, "strides": 3}),
        (layers.Conv2DTranspose, {"padding": "same", "strides": 1, "dilation_rate": 2}),
        (layers.Conv1DTranspose, {"padding": "valid", "output_padding": 1}),
        (layers.Conv3DTranspose, {"padding": "valid", "output_padding": 1}),
    ],
)
def test_transposed_convolutions_with_rows_of_their_own(layer, arguments, tmp_path):
    spatial = {layers.Conv1DTranspose: 1, layers.Conv3DTranspose: 3}.get(layer, 2)
    image = keras.Input((*(5, 4, 3)[:spatial], 2))
    bias = keras.initializers.RandomNormal()  # All that these rows hold.
    up = layer(
        **{"filters": 3, "kernel_size": 3, "strides": 2, "bias_initializer": bias, **arguments}
    )
    model = keras.Model(image, up(image))
    # Where TensorFlow cannot run the model, there is nothing to compare the file with.
    runs = "dilation_rate" not in arguments or kernels.is_here("dilated_transposed")
    report = export(model, tmp_path / "m.onnx", verify=runs)
    assert not runs or report.max_abs_error <= 1e-5
    assert "ConvTranspose" in report.ops
