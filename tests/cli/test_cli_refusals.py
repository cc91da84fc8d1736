"""What the commands on models refuse, and that nothing is left behind then."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from keras_sbp.cli import main


@pytest.fixture
def prune(files, tmp_path, refused):
    """Refused uses of `prune`; nothing must be written."""

    def run(*options, model="plain.keras", code: int = 2) -> str:
        target = tmp_path / "out.keras"
        said = refused("prune", files / model, "-o", target, *options, code=code)
        assert not list(tmp_path.glob("*out*"))
        assert not list(tmp_path.glob(".*"))
        return said

    return run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--keep 0.5", "--keep belongs to --rule batch-norm, input-change, l1, l2, random"),
        ("--rule l1 --threshold 1", "--threshold belongs to --rule bmrs-normal, snr"),
        ("--rule snr --bits 4", "--bits belongs to --rule bmrs-uniform"),
        ("--rule l1 --keep 0.5 --budget macs=0.5", "Pass one of them"),
        ("--rule input-change", "pass --data"),
        ("--rule taylor --data x.npz", "pass --loss"),
        ("--budget macs", "such as macs=0.25"),
        ("--budget flops=0.5", "such as macs=0.25"),
        ("--budget macs=0", "such as macs=0.25"),
        ("--budget macs=nan", "such as macs=0.25"),
        ("--rule l1 --min-keep 4", "--min-keep belongs to --budget"),
        ("--rule l1 --budget macs=0.2 --min-keep 7", "with --min-keep 1 it can be met"),
        ("--rule snr --threshold -1", "positive"),
        ("--rule bmrs-uniform --bits 99", "bits"),
        ("--rule random --seed -1", "seed"),
        ("--rule l1 --budget macs=0.0001", "budget cannot be met"),
        ("--rule snr", "--rule snr asks trained gates, and 'plain' has none"),
        ("--budget macs=0.5", "--budget without --rule asks trained gates"),
        ("--rule taylor --data X --loss nonsense", "nonsense"),
        ("--rule taylor --data X --loss mse --from-logits", "does not go with --from-logits"),
        ("--rule nonsense", "there is no such rule. Expected one of batch-norm"),
        ("--rule l1 --import nonsense", "--import nonsense: there is no such module"),
    ],
)
def test_rules(prune, files, options, said):
    words = [files / "x.npz" if word == "X" else word for word in options.split()]
    assert said in prune(*words)


@pytest.mark.parametrize(
    "options",
    [
        "--rule l1 --keep 2",
        "--round-to 0",
        "--min-keep 0",
        "--rule l1 --keep x",
        "--rule",
        "--nonsense",
    ],
)
def test_options(files, tmp_path, options):
    command = ["prune", str(files / "plain.keras"), "-o", str(tmp_path / "out.keras")]
    assert main([*command, *options.split()]) == 2


def test_targets(files, tmp_path, refused):
    plain = files / "plain.keras"
    assert "ends in '.keras'" in refused("prune", plain, "-o", tmp_path / "small.h5")
    assert "does not exist" in refused("prune", plain, "-o", tmp_path / "no" / "small.keras")
    old = tmp_path / "old.keras"
    old.write_text("precious")
    for command in ("prune", "insert", "export"):
        assert "--overwrite" in refused(command, plain, "-o", old)
    (tmp_path / "folder.keras").mkdir()
    assert "folder" in refused("insert", plain, "-o", tmp_path / "folder.keras", "--overwrite")
    assert old.read_text() == "precious"


def test_a_model_that_would_be_cut_in_two(files, prune, refused):
    options = ("--rule", "snr", "--threshold", "1e6")
    assert "lower the rule's threshold" in prune(*options, model="gated.keras")
    assert "lower the rule's threshold" in refused(
        "inspect", files / "gated.keras", *options, code=1
    )


def test_a_failed_comparison_is_1_and_leaves_the_old_file(files, tmp_path, refused, monkeypatch):
    def wrong(*arguments):
        raise RuntimeError("they differ by 3")

    monkeypatch.setattr(importlib.import_module("keras_sbp.pruning.prune"), "compare", wrong)
    target = tmp_path / "small.keras"
    target.write_text("old")
    command = ("prune", files / "gated.keras", "-o", target, "--overwrite")
    assert "they differ by 3" in refused(*command, code=1)
    assert target.read_text() == "old"
    assert main([str(word) for word in (*command, "--no-verify")]) == 0
    assert keras.saving.load_model(target).count_params() > 0


def test_insert_where_nothing_can_go(tmp_path, refused):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    refused("insert", tmp_path / "m.keras", "-o", tmp_path / "g.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_insert_by_a_wrong_name(files, tmp_path, refused):
    command = ("insert", files / "plain.keras", "-o", tmp_path / "g.keras")
    assert "nonsense" in refused(*command, "--layers", "nonsense")
    assert main([str(word) for word in (*command, "--kl-weight", "-1")]) == 2


def test_integer_files_need_calibration(files, tmp_path, refused):
    command = ("export", files / "plain.keras", "-o", tmp_path / "small.tflite")
    assert "--calibration" in refused(*command, "--quantization", "int8")


@pytest.mark.tensorflow
def test_an_export_that_does_not_fit_its_name(files, tmp_path, refused):
    refused("export", files / "plain.keras", "-o", tmp_path / "small.docx")
    assert not list(tmp_path.iterdir())


def test_benchmark_of_nothing(tmp_path, refused):
    assert "does not exist" in refused("benchmark", tmp_path / "a.tflite")


def _npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_examples_that_do_not_fit(prune, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    options = ("--rule", "input-change", "--data")
    wrong_shape = _npz(folder / "shape.npz", x=np.zeros((4, 6, 6, 3)))
    assert "(4, 6, 6, 3)" in prune(*options, wrong_shape)
    assert "array for each" in prune(*options, _npz(folder / "n.npz", a=np.zeros(3), b=np.zeros(3)))
    assert "at least one" in prune(*options, _npz(folder / "none.npz", x=np.zeros((0, 6, 6, 2))))
    objects = _npz(folder / "objects.npz", x=np.array([{}], dtype=object))
    assert "cannot be read" in prune(*options, objects)
    assert "does not exist" in prune(*options, folder / "missing.npz")
    (folder / "text.npz").write_text("some text")
    assert "not like a ZIP archive" in prune(*options, folder / "text.npz")
    images = np.load(files / "x.npz")["x"]
    taylor = ("--rule", "taylor", "--loss", "sparse_categorical_crossentropy", "--data")
    assert "has no labels" in prune(*taylor, _npz(folder / "unlabelled.npz", x=images))
    few = _npz(folder / "few.npz", x=images, y=np.zeros(3))
    assert "as many labels" in prune(*taylor, few)


def test_an_array_that_declares_more_than_is_there(prune, tmp_path_factory):
    import io
    import zipfile

    file = tmp_path_factory.mktemp("bomb") / "x.npz"
    header = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 6, 6, 2)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    assert "declares the shape" in prune("--rule", "input-change", "--data", file)
