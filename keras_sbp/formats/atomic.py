"""Writing a file or a folder so that a crash leaves the old one or none, never half of one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


def check_target(path: pathlib.Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse a target that could not, or should not, be written.

    Args:
        path: Where the result is going to be.
        folder: Whether the result is a folder.
        overwrite: Whether something already there may be replaced.

    Raises:
        FileNotFoundError: If the parent folder does not exist.
        NotADirectoryError: If the parent is not a folder.
        PermissionError: If the parent folder cannot be written to.
        FileExistsError: If something is there that may not be replaced.
    """
    _check_parent(path)
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"'{path}' exists already. Pass overwrite=True to replace it, or choose another path."
        )
    if folder != path.is_dir():
        found, expected = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise FileExistsError(
            f"'{path}' is a {found}, and this format is a {expected}. Choose another path."
        )


@contextlib.contextmanager
def staged(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary path beside the target; move what was written there into place.

    The temporary path lies in the same folder, hence on the same file system, so the last step is
    one rename. A file replaces the old file in that one step. A folder cannot, nor can a file with
    others beside it (weights in a file of their own): the old one is moved aside first, and the
    file that was asked for comes last, so a crash in between leaves none. If the block raises,
    nothing is moved and the temporary files are removed.

    Args:
        path: The target. A symbolic link is followed.

    Yields:
        The path to write to, with the target's own name.
    """
    target = pathlib.Path(os.path.realpath(path))
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        written = pathlib.Path(scratch, "new", target.name)
        written.parent.mkdir()
        yield written
        _sync_tree(written.parent)
        others = sorted(path.name for path in written.parent.iterdir() if path != written)
        if target.is_dir() or others:
            names = [*others, target.name]
            _swap(written.parent, target.parent, names, aside=pathlib.Path(scratch, "old"))
        else:
            os.replace(written, target)
        _sync(target.parent)


def _check_parent(path: pathlib.Path) -> None:
    parent = path.parent
    if not parent.exists():
        raise FileNotFoundError(
            f"Cannot write '{path}': the folder '{parent}' does not exist. Create it first."
        )
    if not parent.is_dir():
        raise NotADirectoryError(
            f"Cannot write '{path}': '{parent}' is a file, expected a folder. Choose another path."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"Cannot write '{path}': no permission to write into the folder '{parent}'. "
            "Change its permissions or choose another path."
        )


def _swap(
    source: pathlib.Path, folder: pathlib.Path, names: list[str], aside: pathlib.Path
) -> None:
    """Move entries into a folder. The last name is what readers open: it goes first, comes last."""
    aside.mkdir()
    old, new = [], []
    try:
        for name in reversed(names):
            if os.path.lexists(folder / name):
                os.rename(folder / name, aside / name)
                old.append(name)
        for name in names:
            os.rename(source / name, folder / name)
            new.append(name)
    except BaseException:
        for name in reversed(new):
            os.rename(folder / name, source / name)
        for name in reversed(old):
            os.rename(aside / name, folder / name)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(path: pathlib.Path) -> None:
    # Contents must be on the disk before the name is, or a power cut shows an empty file.
    if path.is_dir():
        for child in path.iterdir():
            _sync_tree(child)
    _sync(path)


def _sync(path: pathlib.Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder for syncing.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
