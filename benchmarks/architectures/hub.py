"""Small KerasHub backbones, built from their configuration: nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import keras
import numpy as np

# Without these three it cannot be imported.
PACKAGES = ("keras_hub", "regex", "tokenizers")
INSTALLED = all(importlib.util.find_spec(name) for name in PACKAGES)

VOCABULARY = 100
TOKENS = 12


def bert() -> keras.Model:
    """A BERT encoder."""
    return _models().BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=64,
    )


def tokens(model: keras.Model, batch_size: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns random sentences of different lengths."""
    shape = (batch_size, TOKENS)
    lengths = rng.integers(TOKENS // 2, TOKENS + 1, (batch_size, 1))
    return {
        "token_ids": rng.integers(0, VOCABULARY, shape).astype("int32"),
        "segment_ids": rng.integers(0, 2, shape).astype("int32"),
        "padding_mask": (np.arange(TOKENS) < lengths).astype("int32"),
    }


def vit() -> keras.Model:
    """A vision transformer."""
    return _models().ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=(8, 8),
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=256,
    )


def resnet() -> keras.Model:
    """A residual network with bottleneck blocks."""
    return _models().ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        image_shape=(32, 32, 3),
    )


def mobilenet() -> keras.Model:
    """A mobile network with inverted residual blocks and squeeze-and-excite."""
    return _models().MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=96,
        depthwise_filters=16,
        depthwise_stride=1,
        depthwise_residual=True,
        last_layer_filter=128,
        squeeze_and_excite=0.5,
        image_shape=(32, 32, 3),
    )


def _models() -> Any:
    return importlib.import_module("keras_hub.models")
