"""Python modules of the user's own, which register what is in the user's files."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from keras_sbp.cli.errors import UsageError, said


def import_modules(names: Sequence[str]) -> None:
    """Imports modules that were named on the command line, also from the current folder.

    Args:
        names: Names as in an `import` statement.

    Raises:
        UsageError: There is no such module, or importing it fails.
    """
    folder = os.getcwd()
    if names and folder not in sys.path:
        sys.path.insert(0, folder)
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise _failed(name, error) from error
            raise UsageError(
                f"--import {name}: there is no such module. Expected the name of a Python module "
                "as in an `import` statement, without '.py', installed or in the current folder "
                f"('{folder}')."
            ) from error
        except (Exception, SystemExit) as error:  # A module may do anything.
            raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> UsageError:
    return UsageError(
        f"--import {name}: importing the module fails with {type(error).__name__}: {said(error)} "
        "Mend the module; --debug shows where."
    )
