"""Bridges to other packages, which are imported when a function needs them."""

from keras_sbp.integrations import tfmot

__all__ = ["tfmot"]
