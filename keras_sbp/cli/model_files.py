"""Loading and saving `.keras` files: nothing in a file is trusted, no half file is left."""

from __future__ import annotations

import json
import math
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_sbp.cli.archive import check_archive
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.modules import import_modules

if TYPE_CHECKING:
    import keras

_CONFIG = "config.json"
_EXPECTED = ".keras file"
# Weights of half a byte are the smallest that Keras stores (int4).
_WEIGHTS_PER_BYTE = 2
_HARMLESS_WEIGHTS = 2**20
_LONGEST_QUOTE = 300
_OBJECTS = {"lambda": "Lambda", "__lambda__": "a Python lambda"}


def load(path: str, modules: Sequence[str] = (), *, compile: bool = False) -> keras.Model:
    """Loads a model in safe mode.

    Args:
        path: A `.keras` file.
        modules: Names of modules that register what the file holds beside Keras's own.
        compile: Whether to compile it as it was when it was saved, if it was.

    Returns:
        The model.

    Raises:
        UsageError: There is no such file; it is damaged, crafted, or holds code or objects that
            are not known.
    """
    file = pathlib.Path(path)
    import_modules(modules)
    check_model_file(file)
    import keras

    try:
        return keras.saving.load_model(file, compile=compile, safe_mode=True)
    except Exception as error:  # Keras and h5py raise whatever the content makes them stumble over.
        raise _cannot_load(file, error) from error


def check_model_file(path: pathlib.Path) -> None:
    """Refuses a file that `load` should not be tried on.

    Raises:
        UsageError: Says what is wrong with it, and what to do.
    """
    sizes = check_archive(path, _EXPECTED)
    if _CONFIG not in sizes:
        raise UsageError(
            f"'{path}' is a ZIP archive, but not a {_EXPECTED}: expected '{_CONFIG}' in it, found "
            f"{', '.join(sorted(sizes)[:5]) or 'nothing'}."
        )
    config = _read_config(path)
    code = next(_code_in(config), None)
    if code is not None:
        raise UsageError(
            f"'{path}' holds {code}, that is, code that would run on this machine. It is refused. "
            "If you trust the file, replace the lambda by a layer of your own, registered with "
            "@keras.saving.register_keras_serializable(), and name its module with --import."
        )
    stored = sum(size for name, size in sizes.items() if name.startswith("model.weights"))
    declared = _declared_weights(path, config)
    if declared > _WEIGHTS_PER_BYTE * stored + _HARMLESS_WEIGHTS:
        raise UsageError(
            f"'{path}' is refused: its layers declare {declared:,} weights, and the file holds "
            f"{stored:,} bytes of weights. Expected as many weights as the file holds."
        )


def check_target(path: str, overwrite: bool) -> pathlib.Path:
    """Refuses a target that cannot be written, before any work is done.

    Raises:
        UsageError: Says why.
    """
    from keras_sbp.formats import atomic

    target = pathlib.Path(path)
    if target.suffix != ".keras":
        raise UsageError(f"-o '{target}': expected a name that ends in '.keras'.")
    if target.exists() and not overwrite:
        raise UsageError(f"'{target}' exists already. Pass --overwrite to replace it.")
    with told_to_the_user():
        atomic.check_target(target, folder=False, overwrite=overwrite)
    return target


def save(model: keras.Model, target: pathlib.Path) -> None:
    """Saves a model so that a crash leaves the old file or none.

    Raises:
        UsageError: The disk is full, and the like.
    """
    from keras_sbp.formats.atomic import staged

    with told_to_the_user(), staged(target) as written:
        model.save(written)


def _read_config(path: pathlib.Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_CONFIG))
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError, EOFError) as error:
        raise UsageError(
            f"'{path}' is damaged: '{_CONFIG}' in it cannot be read ({error}). "
            "Get the file again, or save it anew."
        ) from error


def _code_in(config: Any) -> Iterator[str]:
    """What Keras calls unsafe: Lambda layers and serialised Python lambdas, anywhere."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            what = _OBJECTS.get(str(value.get("class_name")).lower())
            if what is not None and "config" in value:
                inner = value["config"]
                name = inner.get("name") if isinstance(inner, dict) else None
                yield f"{what} layer '{name}'" if name else what
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _declared_weights(path: pathlib.Path, config: Any) -> int:
    """How many weights the layers ask for, found without making any of them."""
    import keras

    try:
        # Variables that are made in this scope have a shape, and no value.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(_uncompiled(config), safe_mode=True)
            weights = model.weights
    except Exception as error:  # whatever the content makes Keras stumble over
        raise _cannot_load(path, error) from error
    finally:
        keras.utils.clear_session()  # Keras would give them their values the next time.
    return sum(math.prod(weight.shape) for weight in weights)


def _uncompiled(config: Any) -> Any:
    """The config without what models were compiled with: optimizers make variables at once."""
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key != "compile_config"}
        return {key: _uncompiled(value) for key, value in kept.items()}
    return [_uncompiled(value) for value in config] if isinstance(config, list) else config


def _cannot_load(path: pathlib.Path, error: Exception) -> UsageError:
    unknown = re.search(r"ould not locate (\w+ '[^']*')", str(error))
    if unknown:
        return UsageError(
            f"'{path}' holds the {unknown[1]}, which is neither Keras's nor keras_sbp's. Expected "
            "stock layers, keras_sbp.SBPLayer and registered classes. Name with --import MODULE "
            "the module that registers it (@keras.saving.register_keras_serializable()). Load the "
            "file in Python, where the class is defined (keras.saving.load_model(..., "
            "custom_objects=...)), and call keras_sbp there, if no module registers it."
        )
    said = " ".join(str(error).split())
    if len(said) > _LONGEST_QUOTE:
        said = f"{said[:_LONGEST_QUOTE]} ..."
    return UsageError(
        f"'{path}' cannot be loaded ({type(error).__name__}): {said} It may be truncated, damaged, "
        "or from another version of Keras. Get the file again, or save it anew."
    )
