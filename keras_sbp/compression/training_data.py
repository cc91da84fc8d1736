"""What `compress` trains on: whatever `fit` takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_sbp._arguments import check_count

# What `compress` decides itself.
_OWN = ("epochs", "initial_epoch", "verbose", "callbacks")
# Which options of `fit` are for `evaluate`, too, and under which name.
_OF_VALIDATION = {"validation_steps": "steps", "validation_batch_size": "batch_size"}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Data, and how `fit` is to take them.

    Attributes:
        x, y: As for `fit`.
        batch_size: As for `fit`.
        validation_data: As for `fit`.
        options: Further arguments of `fit`.
    """

    x: Any
    y: Any
    batch_size: int | None
    validation_data: Any
    options: Mapping[str, Any]

    def fit(
        self,
        model: keras.Model,
        epochs: range,
        callbacks: list[keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        """Trains a model for some epochs."""
        model.fit(
            self.x,
            self.y,
            batch_size=self.batch_size,
            validation_data=self.validation_data,
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            callbacks=callbacks,
            verbose=verbose,
            **self.options,
        )

    def evaluate(self, model: keras.Model) -> dict[str, float]:
        """Returns a model's loss and metrics on the validation data; nothing if there are none."""
        if self.validation_data is None:
            return {}
        data = self.validation_data
        options = {
            name: self.options[option]
            for option, name in _OF_VALIDATION.items()
            if self.options.get(option) is not None
        }
        if not isinstance(data, tuple | list):
            return model.evaluate(data, verbose=0, return_dict=True, **options)
        x, y, weights = (*data, None, None)[:3]
        options.setdefault("batch_size", self.batch_size)
        return model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True, **options)

    def steps(self) -> int | None:
        """Returns the number of steps of an epoch; None where nobody knows."""
        if self.options.get("steps_per_epoch") is not None:
            return int(self.options["steps_per_epoch"])
        if isinstance(self.x, keras.utils.PyDataset):
            return self.x.num_batches
        leaves = keras.tree.flatten(self.x)
        if all(getattr(leaf, "shape", None) for leaf in leaves):
            return math.ceil(leaves[0].shape[0] / (self.batch_size or 32))
        try:
            return len(self.x)
        except TypeError:
            return None


def training_data(
    x: Any, y: Any, batch_size: int | None, validation_data: Any, options: Mapping[str, Any]
) -> TrainingData:
    """Returns the data of a call of `compress`.

    Raises:
        ValueError: If there are none, or an option is not the caller's to give.
    """
    if x is None:
        raise ValueError(
            "compress trains. Expected x as for fit(): arrays, a tf.data.Dataset, a "
            "keras.utils.PyDataset or another iterable of batches. Received: x=None. Pass the "
            "training data."
        )
    for option in _OWN:
        if option in options:
            raise ValueError(
                f"compress sets `{option}` of fit() itself. Expected other arguments of fit(). "
                f"Received: {option}={options[option]!r}. Remove it."
            )
    if batch_size is not None:
        batch_size = check_count("compress", "batch_size", batch_size, such_as=32)
    options = dict(options)
    split = options.pop("validation_split", None)
    if not split:
        return TrainingData(x, y, batch_size, validation_data, options)
    return _split(TrainingData(x, y, batch_size, validation_data, options), split)


def _split(data: TrainingData, split: float) -> TrainingData:
    """The data with their last part for validation, as `fit` would split them each time."""
    weights = data.options.get("sample_weight")
    parts = [data.x, *(part for part in (data.y, weights) if part is not None)]
    leaves = keras.tree.flatten(parts)
    if data.validation_data is not None or not all(getattr(leaf, "shape", None) for leaf in leaves):
        raise ValueError(
            "compress takes `validation_split` with arrays, and without `validation_data`. "
            f"Received: validation_split={split!r}. Pass validation_data=... alone."
        )
    first = int(math.floor(leaves[0].shape[0] * (1.0 - split)))

    def half(part: Any, which: slice) -> Any:
        return None if part is None else keras.tree.map_structure(lambda a: a[which], part)

    train, held_out = slice(0, first), slice(first, None)
    validation = tuple(
        half(part, held_out) for part in (data.x, data.y, weights) if part is not None
    )
    options = dict(data.options)
    if weights is not None:
        options["sample_weight"] = half(weights, train)
    return dataclasses.replace(
        data,
        x=half(data.x, train),
        y=half(data.y, train),
        validation_data=validation,
        options=options,
    )
