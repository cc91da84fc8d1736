"""Tests that own handlers can be put through."""

from keras_sbp.testing.contract import LayerHandlerContract

__all__ = ["LayerHandlerContract"]
