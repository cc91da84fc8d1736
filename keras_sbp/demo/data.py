"""The data sets of the demonstrations."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile

import keras
import numpy as np

DATA_VARIABLE = "KERAS_SBP_DATA"
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images in [0, 1], shape (N, height, width, 1), and integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits(folder: str | None = None) -> Dataset:
    """The 8x8 digits that scikit-learn carries; always the same fifth is the test set.

    Args:
        folder: Not used; nothing is read or downloaded.

    Returns:
        A `Dataset` of 1437 training and 360 test images.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    del folder
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "the digits demo needs scikit-learn, which is not installed. Install it: "
            "pip install 'keras-sbp[demo]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=0
    )
    return Dataset(x_train, y_train, x_test, y_test)


def mnist(folder: str | None = None) -> Dataset:
    """MNIST from a local `mnist.npz`, else from `keras.datasets`.

    Args:
        folder: Folder that holds `mnist.npz`; `None` means the one that the environment
            variable `KERAS_SBP_DATA` names, and without that, Keras's own download.

    Returns:
        A `Dataset`.

    Raises:
        OSError: If there is no such file, or it cannot be downloaded.
        ValueError: If the file does not hold what it should.
    """
    folder = folder or os.environ.get(DATA_VARIABLE)
    arrays = _read_npz(pathlib.Path(folder) / "mnist.npz") if folder else _keras_mnist()
    x_train, y_train, x_test, y_test = arrays
    return Dataset(_scaled(x_train), y_train, _scaled(x_test), y_test)


def _read_npz(path: pathlib.Path) -> list[np.ndarray]:
    wanted = f"expected the arrays {', '.join(_ARRAYS)} (uint8) in '{path}'"
    try:
        with np.load(path) as file:
            return [file[name] for name in _ARRAYS]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"MNIST not found: {wanted}, and there is no such file.") from error
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"MNIST cannot be read: {wanted}. {error}") from error


def _keras_mnist() -> list[np.ndarray]:
    try:
        train, test = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception where the download fails.
        raise OSError(
            f"MNIST is not on this machine and could not be downloaded ({error}). Put mnist.npz "
            f"(arrays {', '.join(_ARRAYS)}, uint8) into a folder and name the folder with --data "
            f"or the environment variable {DATA_VARIABLE}."
        ) from error
    return [*train, *test]


def _scaled(images: np.ndarray) -> np.ndarray:
    return images[..., np.newaxis].astype("float32") / 255.0
