"""The network that `compress` trains: as the user's model trains, and by its teacher."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from keras_sbp._keras import functional_view, input_structure, output_structure
from keras_sbp.compression.distillation import distance_to_teacher

# What a class may do in its own way, so that its networks must be of this class.
_OWN_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics", "compile")


def student_of(network: keras.Model, original: keras.Model, teacher: Any) -> keras.Model:
    """Returns a model of the same layers that trains as the original does.

    It is of the original's class where that class has a `train_step`,
    `compute_loss` or the like of its own, and not compiled.

    Args:
        network: A functional model; its layers are shared.
        original: The user's model.
        teacher: A model with the same inputs and outputs, or None.

    Raises:
        ValueError: If a class that has to be taken does not make a model from
            `inputs` and `outputs`.
    """
    own = own_steps(type(original))
    cls = type(original) if own else keras.Model
    taught = cls if teacher is None else _taught(cls, teacher)
    functional = functional_view(network)
    layers = {"inputs": input_structure(functional), "outputs": output_structure(functional)}
    try:
        student = taught(**layers, name=network.name)
        functional_as_given = functional_view(student) is not None
    except TypeError as error:
        functional_as_given, why = False, str(error)
    else:
        why = "a model with a `call` of its own"
    if not functional_as_given:
        raise ValueError(
            f"compress trains '{original.name}' as its class {cls.__name__} does, which has "
            f"{' and '.join(own)} of its own. Expected a class that makes a model from other "
            f"layers: {cls.__name__}(inputs=..., outputs=..., name=...). Received: {why}. Let its "
            "constructor pass these on to keras.Model, and leave `call` to it; or train the model "
            "with insert_sbp(model), GradualPruning and prune by hand."
        )
    return student


def own_steps(cls: type) -> list[str]:
    """Returns which methods of training a class has of its own."""
    return [
        name for name in _OWN_STEPS if getattr(cls, name) is not getattr(keras.Model, name, None)
    ]


def _taught(cls: Any, teacher: keras.Model) -> Any:
    """Returns a class of models that learn from a teacher, too."""

    class Taught(cls):
        """Takes a mean of the model's own loss and the distance to the teacher for its loss."""

        # Keras leaves out `training` where a class's own method does not take it.
        _own_takes_training = "training" in inspect.signature(cls.compute_loss).parameters
        asks_teacher = False  # until a step does
        has_labels = True  # until a step has none

        def compile(self, *args: Any, **kwargs: Any) -> None:
            super().compile(*args, **kwargs)
            self._distance = distance_to_teacher(self)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            type(self).asks_teacher = True
            type(self).has_labels &= y is not None or not training
            own = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            if self._own_takes_training:
                own["training"] = training
            if y is not None and not training:
                return super().compute_loss(**own)
            distance = self._distance(teacher(x, training=False), y_pred)
            added = sum(ops.sum(loss) for loss in self.losses)
            if y is None:  # the teacher is all there is
                return distance + added
            # What layers add, as gates their KL, is in the model's own loss once.
            return 0.5 * (super().compute_loss(**own) + distance + added)

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            if y is None:
                return self._only_loss()
            return super().compute_metrics(x, y, y_pred, sample_weight)

        def get_metrics_result(self) -> Any:
            return super().get_metrics_result() if self.has_labels else self._only_loss()

        def _only_loss(self) -> dict[str, Any]:
            return {each.name: each.result() for each in self.metrics if each.name == "loss"}

    Taught.__name__ = cls.__name__
    return Taught


def check_teacher(model: keras.Model, teacher: Any) -> keras.Model | None:
    """Returns the teacher that was asked for.

    Raises:
        TypeError: If it is no model.
    """
    if teacher == "original":
        return model
    if teacher is None:
        return None
    if not isinstance(teacher, keras.Model):
        raise TypeError(
            "compress expected `teacher` to be 'original', None or a keras.Model. Received: "
            f"teacher={teacher!r} (of type {type(teacher).__name__})."
        )
    return teacher


class AsksTeacher(keras.callbacks.Callback):
    """Raises after the first step of a network that was to learn from a teacher, and does not."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks."""
        if getattr(type(self.model), "asks_teacher", True):
            return
        raise ValueError(
            f"compress teaches model '{self.model.name}' in compute_loss(), which the train_step "
            f"of {type(self.model).__name__} does not call. Expected a train_step that takes "
            "its loss from self.compute_loss(x=x, y=y, y_pred=y_pred, ...). Change it so, or pass "
            "teacher=None."
        )
