"""Files that are damaged, or made to do harm: refused with a message, nothing is written."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile

import h5py
import keras
import pytest

WEIGHTS = "model.weights.h5"


@pytest.fixture
def refused_model(tmp_path, refused):
    """Refused models; each command that loads models refuses them."""

    def run(path) -> str:
        target = tmp_path / "target"
        target.mkdir(exist_ok=True)
        for command in ("prune", "insert"):
            said = refused(command, path, "-o", target / "out.keras")
        assert said == refused("export", path, "-o", target / "out.tflite")
        assert said == refused("inspect", path)
        assert not list(target.iterdir())
        return said

    return run


def rewritten(source, target, change):
    """A copy of an archive, each member changed by `change(name, content)`; None drops it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def with_config(source, target, edit):
    """A copy of a model file whose config has been edited in place."""

    def change(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        edit(config)
        return json.dumps(config)

    return rewritten(source, target, change)


def test_no_model(tmp_path, refused_model):
    assert "does not exist" in refused_model(tmp_path / "none.keras")
    assert "is a folder" in refused_model(tmp_path)
    for content, said in (
        (b"", "an empty file"),
        (b"GIF89a, and so on", "b'GIF8'"),
        (b"\x89HDF\r\n\x1a\n and so on", "save it again as .keras"),
    ):
        path = tmp_path / "wrong.keras"
        path.write_bytes(content)
        assert said in refused_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", "")
    assert "expected 'config.json' in it, found holiday.jpg" in refused_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(files, tmp_path, refused_model, share):
    content = (files / "gated.keras").read_bytes()
    path = tmp_path / "short.keras"
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated or damaged" in refused_model(path)


def test_damaged_inside(files, tmp_path, refused_model):
    for member in ("config.json", WEIGHTS):
        path = tmp_path / f"{member}.keras"
        rewritten(
            files / "gated.keras", path, lambda name, old, m=member: old[:99] if name == m else old
        )
        assert "damaged" in refused_model(path)
    path = rewritten(
        files / "gated.keras", tmp_path / "less.keras", lambda n, old: None if n == WEIGHTS else old
    )
    assert "cannot be loaded" in refused_model(path) or "declare" in refused_model(path)


def test_flipped_bits(files, tmp_path, refused_model):
    with zipfile.ZipFile(files / "gated.keras") as archive:
        member = archive.getinfo("config.json")
    content = bytearray((files / "gated.keras").read_bytes())
    content[member.header_offset + 200] ^= 0xFF
    path = tmp_path / "flipped.keras"
    path.write_bytes(content)
    assert "damaged" in refused_model(path)


@pytest.mark.parametrize("name", ["../../outside.txt", "/tmp/outside.txt", "a\\..\\..\\b", "C:\\b"])
def test_names_that_point_outside(files, tmp_path, refused_model, name):
    path = shutil.copy(files / "plain.keras", tmp_path / "traversal.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "harm")
    assert "points outside" in refused_model(path)
    assert not list(tmp_path.rglob("*outside*"))


def test_symbolic_links(files, tmp_path, refused_model):
    path = shutil.copy(files / "plain.keras", tmp_path / "link.keras")
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "symbolic link" in refused_model(path)


def test_zip_bombs(files, tmp_path, refused_model):
    path = shutil.copy(files / "plain.keras", tmp_path / "bomb.keras")
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("assets/zeros", "w") as member,
    ):
        for _ in range(65):
            member.write(bytes(2**20))
    assert "ZIP bomb" in refused_model(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(files, tmp_path, refused_model):
    path = shutil.copy(files / "plain.keras", tmp_path / "twice.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    assert "one name" in refused_model(path)


def test_layers_that_declare_more_weights_than_there_are(files, tmp_path, refused_model):
    def edit(config):
        config["config"]["layers"][-1]["config"]["units"] = 10**12

    path = with_config(files / "plain.keras", tmp_path / "huge.keras", edit)
    assert "declare 129,000,000,000,152 weights" in refused_model(path)


def test_weights_that_declare_more_than_is_there(files, tmp_path, refused_model):
    inside = tmp_path / WEIGHTS

    def edit(name, content):
        if name != WEIGHTS:
            return content
        inside.write_bytes(content)
        with h5py.File(inside, "a") as file:
            group = file["layers/dense/vars"]
            del group["0"]
            group.create_dataset("0", (10**7, 10**7), "f4", chunks=(10, 10))
        return inside.read_bytes()

    path = rewritten(files / "plain.keras", tmp_path / "sparse.keras", edit)
    assert "cannot be loaded" in refused_model(path)


def test_deep_nesting(files, tmp_path, refused_model):
    deep = b"[" * 200_000 + b"]" * 200_000
    path = rewritten(
        files / "plain.keras",
        tmp_path / "deep.keras",
        lambda name, old: deep if name == "config.json" else old,
    )
    assert "cannot be read" in refused_model(path)


@pytest.mark.parametrize("config", [b"null", b"[]", b"{}", b'{"class_name": "Sequential"}', b"3"])
def test_other_json(files, tmp_path, refused_model, config):
    path = rewritten(
        files / "plain.keras",
        tmp_path / "other.keras",
        lambda name, old: config if name == "config.json" else old,
    )
    refused_model(path)


def test_code_is_not_run(tmp_path, refused_model):
    trace = tmp_path / "it_ran"
    harm = keras.layers.Lambda(lambda x: x, output_shape=(4,), name="harm")
    keras.Sequential([keras.Input((4,)), harm, keras.layers.Dense(2)]).save(tmp_path / "l.keras")
    said = refused_model(tmp_path / "l.keras")
    assert "Lambda layer 'harm'" in said
    assert "If you trust the file" in said
    assert not trace.exists()


def test_unknown_objects(files, tmp_path, refused_model):
    def edit(config):
        layer = config["config"]["layers"][-1]
        layer |= {"class_name": "Mine", "registered_name": "theirs>Mine", "module": "theirs"}

    path = with_config(files / "plain.keras", tmp_path / "unknown.keras", edit)
    said = refused_model(path)
    assert "Mine" in said
    assert "custom_objects" in said


def test_modules_are_not_imported(files, tmp_path, refused_model):
    def edit(config):
        layer = config["config"]["layers"][-1]
        layer |= {"class_name": "system", "registered_name": None, "module": "os"}
        layer["config"] = {"command": f"touch {tmp_path / 'harm'}"}

    refused_model(with_config(files / "plain.keras", tmp_path / "os.keras", edit))
    assert not (tmp_path / "harm").exists()
