"""The command line: `python -m keras_sbp`, also installed as `keras-sbp`."""

from keras_sbp.cli.main import main

__all__ = ["main"]
