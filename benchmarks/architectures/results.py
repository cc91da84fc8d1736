"""The file of results: one entry per network, written as soon as it is known."""

from __future__ import annotations

import json
import os
import pathlib
import platform
from importlib import metadata
from typing import Any

PACKAGES = ("keras", "keras-hub", "keras-sbp", "numpy", "tensorflow", "tensorflow-cpu")


class Results:
    """Rows by the network's name, in a JSON file.

    Args:
        path: the file; what is in it already is read.
        settings: what the rows were measured with. Rows measured otherwise are forgotten.
    """

    def __init__(self, path: pathlib.Path, settings: dict[str, Any]) -> None:
        self._path = path
        self._head = {"settings": settings, "versions": versions(), "machine": machine()}
        self.rows: dict[str, dict] = {}
        if path.exists():
            content = json.loads(path.read_text())
            if all(content.get(key) == self._head[key] for key in ("settings", "versions")):
                self.rows = content["networks"]

    def add(self, name: str, row: dict, order: list[str]) -> None:
        """Adds or replaces a row, and writes the file.

        Args:
            name: of the network.
            row: plain values.
            order: the names in the order of the file.
        """
        self.rows[name] = row
        self.rows = {n: self.rows[n] for n in order if n in self.rows}
        write_json(self._path, self._head | {"networks": self.rows})

    def is_done(self, name: str) -> bool:
        """Tells whether a network was measured without an error."""
        return "error" not in self.rows.get(name, {"error": ""})


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    os.replace(draft, path)


def versions(*further: str) -> dict[str, str]:
    """Returns the versions of what takes part, Python included; packages not there are left out.

    Args:
        further: packages that take part beside those that always do.
    """
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *further):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Returns what the times depend on."""
    return {"cores": os.cpu_count(), "architecture": platform.machine()}
