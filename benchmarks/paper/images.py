"""The data sets of the table, and batches of images that are moved and mirrored."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks import cifar
from benchmarks.paper.config import Dense, Gated, Tune
from benchmarks.paper.training import BATCH_SIZE
from keras_sbp.demo.data import Dataset, mnist

HELD_OUT = 10_000


def load(name: str, folder: str | None, validate: bool) -> Dataset:
    """Returns a data set; to validate, the last training images stand in for the test images.

    Args:
        name: `mnist` or `cifar10`.
        folder: holds its file, as in the README.
        validate: whether to keep the test images out.
    """
    data = mnist(folder) if name == "mnist" else Dataset(*cifar.load(folder))
    if not validate:
        return data
    x, y = data.x_train, data.y_train
    return Dataset(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:])


def to_train(
    data: Dataset, stage: Dense | Gated | Tune, seed: int, teacher: keras.Model | None = None
) -> tuple | ShuffledImages:
    """Returns what a stage trains on.

    Args:
        data: its training images are used.
        stage: says how images are moved.
        seed: of order and moves.
        teacher: the network whose logits are part of the targets.
    """
    if teacher is not None:
        return DistilledImages(data.x_train, data.y_train, teacher, seed, stage.shift, stage.mirror)
    if stage.shift or stage.mirror:
        return ShuffledImages(data.x_train, data.y_train, seed, stage.shift, stage.mirror)
    return data.x_train, data.y_train


class ShuffledImages(keras.utils.PyDataset):
    """Batches of images in random order, moved if wanted; zeros come in at the border.

    Order and moves depend on the seed and the epoch alone, so that training can go on.

    Args:
        x: images of shape (count, height, width, channels).
        y: labels, the targets.
        seed: of order and moves.
        shift: images are moved by up to so many pixels in each direction, anew in each epoch.
        mirror: whether half of the images are mirrored.
        batch_size: examples per batch.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        seed: int,
        shift: int = 0,
        mirror: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__()
        self._y, self._seed, self._mirror, self._batch_size = y, seed, mirror, batch_size
        self._count, self._moves = len(x), 2 * shift + 1
        padded = np.pad(x, [(0, 0), (shift, shift), (shift, shift), (0, 0)])
        shape = x.shape[1:3]
        # Of shape (images, down, right, channels, height, width), and no copy.
        self._windows = np.lib.stride_tricks.sliding_window_view(padded, shape, (1, 2))
        self.start(0)

    def start(self, epoch: int) -> None:
        """Draws what is random in an epoch."""
        self._epoch = epoch
        rng = np.random.default_rng((self._seed, epoch))
        self._order = rng.permutation(self._count)
        self._down, self._right = rng.integers(self._moves, size=(2, self._count))
        self._mirrored = (rng.random(self._count) < 0.5) & self._mirror

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch."""
        self.start(self._epoch + 1)

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[number * self._batch_size :][: self._batch_size]
        x = self.moved(chosen, self._down[chosen], self._right[chosen])
        mirrored = self._mirrored[chosen]
        x[mirrored] = x[mirrored, :, ::-1]
        return x, self.targets(chosen, self._down[chosen], self._right[chosen])

    def moved(self, chosen: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns images, each moved by one of the moves."""
        return np.moveaxis(self._windows[chosen, down, right], 1, -1)

    def targets(self, chosen: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns the labels."""
        return self._y[chosen]


class DistilledImages(ShuffledImages):
    """The same, with targets of shape (batch, 11): the label, then the teacher's ten logits.

    Args:
        x, y, seed, shift: as before.
        teacher: sees each image with each move, once.
        mirror: not possible here.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        teacher: keras.Model,
        seed: int,
        shift: int = 0,
        mirror: bool = False,
    ) -> None:
        if mirror:
            raise ValueError("A row cannot distil from mirrored images: leave out one of the two.")
        super().__init__(x, y, seed, shift)
        moves = np.ndindex(self._moves, self._moves)
        every = np.arange(self._count)
        logits = [
            teacher.predict(self.moved(every, *move), batch_size=1000, verbose=0) for move in moves
        ]
        self._logits = np.reshape(logits, (self._moves, self._moves, self._count, -1))

    def targets(self, chosen: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns labels and logits."""
        logits = self._logits[down, right, chosen]
        return np.concatenate([self._y[chosen, None], logits], axis=1)
