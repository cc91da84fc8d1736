"""The documentation is true: its code runs, its tables and names are those of the code.

Blocks fenced as ```python are run, page by page and in order, and so are hidden blocks of the form
`<!-- python ... -->`, which hold assertions. Blocks fenced as ```py are compiled only.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pathlib
import re
import runpy
import shutil
import sys
from collections.abc import Iterator

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.program.activations import ELEMENTWISE
from tests.pages import ROOT, blocks
from tools import supported_layers

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
needs_tensorflow = pytest.mark.tensorflow

# Short trainings on little data: the monitor's warnings are in place.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def compiled(text: str, line: int, path: pathlib.Path) -> object:
    """Compiles a block so that a traceback shows the page and the line in it."""
    return compile("\n" * (line - 1) + text, str(path), "exec")


def page_cases() -> Iterator[object]:
    for path in PAGES:
        code = "".join(text for _, text in blocks(path.read_text("utf-8"), "python"))
        if code:
            foreign = "tensorflow" in code or "export(" in code or ".tflite" in code
            marks = [needs_tensorflow] if foreign else []
            yield pytest.param(path, id=name_of(path), marks=marks)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()


class OutputChecker(doctest.OutputChecker):
    """Lets examples that show no output print what they like: a progress bar, say."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.stress
@pytest.mark.parametrize("path", list(page_cases()))
def test_code_of_a_page_runs(path: pathlib.Path) -> None:
    namespace = {"__name__": "page"}
    for line, text in blocks(path.read_text("utf-8"), "python"):
        exec(compiled(text, line, path), namespace)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_other_code_of_a_page_is_python(path: pathlib.Path) -> None:
    for line, text in blocks(path.read_text("utf-8"), "py"):
        compiled(text, line, path)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_names_and_files_of_a_page_exist(path: pathlib.Path) -> None:
    text = path.read_text("utf-8")
    for dotted in set(re.findall(r"(?<![\w./-])keras_sbp((?:\.[A-Za-z_]\w*)+)", text)):
        found = keras_sbp
        for part in dotted[1:].split("."):
            if not hasattr(found, part):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)
    for file in re.findall(r"`((?:keras_sbp|tests|examples|docs|benchmarks)/[\w./]*)`", text):
        assert (ROOT / file).exists(), file
    for target in re.findall(r"`make ([\w-]+)`|^make ([\w-]+)", text, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_where_to_start_are_five_tasks_with_three_files_at_most() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = re.search(r"^## Where to start\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    _, _, *tasks = [line for line in section.splitlines() if line.startswith("|")]
    assert len(tasks) == 5
    for task in tasks:
        files = re.findall(r"`([\w/]+\.\w+)`", task)
        assert 1 <= len(files) <= 3
        assert all((ROOT / file).is_file() for file in files), files


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}


def test_tables_of_supported_layers_are_those_of_the_code() -> None:
    text = supported_layers.PAGE.read_text("utf-8")
    assert supported_layers.filled(text) == text, "run: make docs-tables"


def test_list_of_activations_is_complete() -> None:
    text = (ROOT / "docs" / "supported_layers.md").read_text("utf-8")
    sentence = re.search(r"These act on each unit alone:(.*?)\.\n", text, re.DOTALL)[1]
    listed = re.findall(r"`(\w+)`", sentence)
    assert sorted(listed) == sorted(function.__name__ for function in ELEMENTWISE)


def test_signature_of_prune() -> None:
    text = (ROOT / "docs" / "pruning.md").read_text("utf-8")
    shown = re.search(r"`keras_sbp\.prune\((.*?)\)`", text, re.DOTALL)[1]
    arguments = [a.split("=")[0].strip() for a in shown.split(",") if a.strip() != "*"]
    assert arguments == list(inspect.signature(keras_sbp.prune).parameters)


def test_version_is_the_same_everywhere() -> None:
    assert f"version: {keras_sbp.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert keras_sbp.__version__ in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "thing",
    [
        keras_sbp.insert_sbp,
        keras_sbp.prune,
        keras_sbp.shrink,
        keras_sbp.SBPLayer,
        keras_sbp.distributions.TruncatedLogNormal,
        keras_sbp.SNRThreshold,
        keras_sbp.sweep,
        keras_sbp.Taylor,
        keras_sbp.Random,
        keras_sbp.L2Norm,
        keras_sbp.L1Norm,
        keras_sbp.Budget,
        keras_sbp.BatchNormScale,
        keras_sbp.BMRSNormal,
        keras_sbp.BMRSUniform,
        keras_sbp.SNRMonitor,
        keras_sbp.KLWarmup,
    ],
    ids=lambda thing: thing.__name__,
)
def test_docstring_example(thing: type, capsys: pytest.CaptureFixture) -> None:
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras_sbp.SBPLayer(),
            keras.layers.Dense(8, activation="relu"),
            keras_sbp.SBPLayer(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    given = {
        "keras": keras,
        "keras_sbp": keras_sbp,
        "np": np,
        thing.__name__: thing,
        "model": model,
        "x": np.ones((4, 20), "float32"),
        "y": np.ones((4, 1), "float32"),
    }
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(thing), given, thing.__name__, None, None
    )
    assert example.examples
    runner = doctest.DocTestRunner(OutputChecker())
    runner.run(example)
    assert not runner.failures, capsys.readouterr().out


@needs_tensorflow
def test_docstring_blocks_about_files() -> None:
    from keras_sbp.benchmarking.latency import compare_latency
    from keras_sbp.formats.litert_model import LiteRTModel

    image = keras.Input((8,), name="image")
    namespace = {
        "keras": keras,
        "keras_sbp": keras_sbp,
        "model": keras.Model(image, keras.layers.Dense(2)(image)),
        "image": np.zeros((1, 8), "float32"),
        "LiteRTModel": LiteRTModel,
        "compare_latency": compare_latency,
    }
    run_docstring_block(keras_sbp.export, namespace)
    run_docstring_block(LiteRTModel, namespace)
    assert namespace["y"].shape == (1, 2)
    shutil.copy("small.tflite", "large.tflite")
    run_docstring_block(compare_latency, namespace)


def test_docstring_block_of_rule() -> None:
    # As in the pages, which define the same rules.
    namespace = {"keras": keras, "keras_sbp": keras_sbp, "__name__": "page"}
    run_docstring_block(keras_sbp.rules.PosteriorRule, namespace)
    posterior = keras_sbp.distributions.TruncatedLogNormal([0.0, -15.0], [-5.0, -5.0])
    assert namespace["MeanThreshold"]().keep(posterior).tolist() == [True, False]
    run_docstring_block(keras_sbp.rules.register_rule, namespace)
    assert issubclass(namespace["Spread"], keras_sbp.rules.FractionRule)


def test_docstring_blocks_about_handlers() -> None:
    namespace = {"keras": keras, "keras_sbp": keras_sbp}
    run_docstring_block(keras_sbp.register_handler, namespace)
    run_docstring_block(keras_sbp.testing.LayerHandlerContract, namespace)
    namespace["TestSquare"]().test_values_are_true()


def run_docstring_block(thing: object, namespace: dict) -> None:
    found = list(blocks(inspect.getdoc(thing), "python"))
    assert found
    for _, code in found:
        exec(code, namespace)


@pytest.mark.stress
@needs_tensorflow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
    monkeypatch.setattr(sys, "argv", [str(path), "--epochs", "1"])
    runpy.run_path(str(path), run_name="__main__")
    assert "Pruned" in capsys.readouterr().out
