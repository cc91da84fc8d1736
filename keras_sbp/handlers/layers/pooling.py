"""Pooling, padding, cropping, upsampling: each channel alone, positions mixed."""

from __future__ import annotations

import numpy as np
from keras import layers

from keras_sbp.handlers._common import CALLED_WITH_A_MASK
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, only, tidy


class ChannelWise(LayerHandler):
    """Treats channels alike and alone, and lets numbers ≥ 0 through: f(s·x) = s·f(x)."""

    def keeps_constants(self, op: Op) -> bool:
        """Tells whether a channel of one value ≠ 0 has that value at every output position."""
        return True

    def axes(self, op: Op) -> tuple[int, int]:
        """Returns the channel axis of the input and of the output."""
        first = getattr(op.operation, "data_format", "channels_last") == "channels_first"
        return (1, 1) if first else (op.inputs[0].rank - 1, op.outputs[0].rank - 1)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants pass; where the layer brings in zeros, only 0 does."""
        axis, axis_out = self.axes(op)
        if axis not in inputs[0]:
            return [{}]
        constant = inputs[0][axis]
        if not self.keeps_constants(op):
            constant = np.where(constant == 0, 0.0, np.nan)
        return [tidy({axis_out: constant})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each channel needs itself, at all positions."""
        wanted = only(needed)
        axis, axis_out = self.axes(op)
        return [{axis: wanted[axis_out]} if axis_out in wanted else {}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on fewer channels."""
        axis, axis_out = self.axes(op)
        slim = build.settle(only(inputs), {axis})

        def moved(by_axis: dict) -> dict:
            return {axis_out: by_axis[axis]} if axis in by_axis else {}

        return [
            build.slim(
                op.outputs[0],
                build.layer(op)(slim.tensor),
                carried=moved(slim.carried),
                scale=moved(slim.scale),
                rescale=moved(slim.rescale),
            )
        ]


@register_handler(
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
)
class Pooling(ChannelWise):
    """Channels, constants and scales pass: maxima and means leave padded positions out. Opaque
    when it is called with a mask.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses masks, which are further inputs."""
        return CALLED_WITH_A_MASK if len(op.inputs) > 1 else None


@register_handler(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
class ZeroPadding(ChannelWise):
    """Channels and scales pass; of constants only 0."""

    def keeps_constants(self, op: Op) -> bool:
        """Only 0 does."""
        return False


@register_handler(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
class UpSampling(ChannelWise):
    """Channels and scales pass; constants with nearest and bilinear interpolation, else only 0."""

    def keeps_constants(self, op: Op) -> bool:
        """The wider kernels may ring at borders, so only 0 is trusted there."""
        return getattr(op.operation, "interpolation", "nearest") in ("nearest", "bilinear")


@register_handler(layers.Resizing)
class Resizing(ChannelWise):
    """Channels and scales pass; constants with nearest and bilinear interpolation, else only 0.
    Opaque when it pads to an aspect ratio, or reads anything but batches of images in floating
    point.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses padding, single images (their first axis is no batch) and rounding."""
        tensor = op.inputs[0]
        if op.operation.pad_to_aspect_ratio:
            return "it pads to an aspect ratio"
        if tensor.rank == 4 and "float" in tensor.dtype:
            return None
        return "it does not read batches of images in floating point"

    def keeps_constants(self, op: Op) -> bool:
        """Wider kernels may ring at borders, so only 0 is trusted there."""
        layer = op.operation
        return layer.interpolation in ("nearest", "bilinear") and not layer.antialias
