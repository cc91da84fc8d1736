"""Looking at ZIP archives (`.keras`, `.npz`) before anything is read from them."""

from __future__ import annotations

import pathlib
import stat
import zipfile

from keras_sbp.cli.errors import UsageError

# Weights and images hardly compress; only what was made to blow up expands like this.
_LARGEST_EXPANSION = 100
_HARMLESS_BYTES = 64 * 2**20


def check_archive(path: pathlib.Path, kind: str) -> dict[str, int]:
    """Refuses a file that is no archive, is damaged, or was crafted to do harm.

    Only the archive's own directory is read: no member is unpacked.

    Args:
        path: The file.
        kind: What it should be, for messages, such as `".keras file"`.

    Returns:
        Declared size in bytes of each member.

    Raises:
        UsageError: The file does not exist or is refused.
    """
    _check_file(path, kind)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"'{path}' is truncated or damaged: expected a {kind}, which is a ZIP archive, and its "
            f"directory cannot be read ({error}). Get the file again, or save it anew."
        ) from error
    for member in members:
        _check_member(path, member)
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise _refused(path, "several members of the archive have one name")
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise _refused(path, "members of the archive overlap, as in a ZIP bomb")
    return {member.filename: member.file_size for member in members}


def _check_file(path: pathlib.Path, kind: str) -> None:
    if not path.exists():
        raise UsageError(f"'{path}' does not exist. Expected a {kind}.")
    if not path.is_file():
        raise UsageError(f"'{path}' is a folder. Expected a {kind}.")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error}") from error
    if start[:4] == b"PK\x03\x04":
        return
    if start == b"\x89HDF\r\n\x1a\n":
        found = "an HDF5 file. Load it where it comes from and save it again as .keras"
    elif not start:
        found = "an empty file"
    else:
        found = f"a file that begins with {start[:4]!r}, and not like a ZIP archive"
    raise UsageError(f"'{path}' is not what it should be: expected a {kind}, found {found}.")


def _check_member(path: pathlib.Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = pathlib.PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise _refused(path, f"the name {name!r} in the archive points outside of it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _refused(path, f"{name!r} in the archive is a symbolic link")
    if member.flag_bits & 0x1:
        raise _refused(path, f"{name!r} in the archive is encrypted")
    most = max(_HARMLESS_BYTES, _LARGEST_EXPANSION * member.compress_size)
    if member.file_size > most:
        raise _refused(
            path,
            f"{name!r} would grow from {member.compress_size:,} to {member.file_size:,} bytes when "
            "unpacked, as in a ZIP bomb",
        )


def _refused(path: pathlib.Path, why: str) -> UsageError:
    return UsageError(
        f"'{path}' is refused: {why}. No file that Keras or NumPy writes is like this. "
        "Do not trust where it comes from."
    )
