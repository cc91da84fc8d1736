"""Every message that names a remedy has a test that applies the remedy.

Such a test has the mark `remedy`, with words of the sentence that it applies, or is a `case`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_sbp

PACKAGE = Path(keras_sbp.__file__).parent
TESTS = Path(__file__).parents[1]
# What a sentence that tells the reader what to do begins with.
IMPERATIVES = (
    "Allow|Build|Calibrate|Call|Change|Check|Choose|Compile|Create|Define|Do|Either|Export|Fix|Free"
    "|Get|Give|Insert|Install|Load|Look|Lower|Make|Measure|Mend|Move|Name|Open|Pass|Put|Raise|Rebuild"
    "|Register|Remove|Rename|Replace|Run|Save|Set|Take|Train|Use|Wrap|Write"
)
SENTENCE = re.compile(
    rf"(?:^|(?<=[.!?:;] ))(?:{IMPERATIVES})\b[^.]*(?:\.(?! |$)[^.]*)*", re.MULTILINE
)


def texts(tree: ast.Module) -> Iterator[str]:
    """Yields the strings of a module; what is filled in becomes `…`.

    Docstrings and the help of commands tell what things do, not what to do.
    """
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("help", "description"):
            skipped.update(map(id, ast.walk(node.value)))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in skipped:
            skipped.update(map(id, node.values))
            yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield str(node.value)


def remedies(path: Path) -> list[str]:
    """Returns the sentences of a file's messages that tell the reader what to do."""
    return [
        sentence
        for text in texts(ast.parse(path.read_text("utf-8")))
        if " " in text and "\n" not in text.strip()  # what commands do is told in several lines
        for sentence in SENTENCE.findall(text)
        if len(sentence.split()) > 2
    ]


def applied() -> set[str]:
    """Returns the words that the `remedy` marks and the cases quote."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "attr", "") == "remedy":
                found.update(words.value for words in node.args)
            elif getattr(node.func, "id", "") == "case" and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found


NO_ADVICE = ("Run and compared with the model", "Do not trust where it comes from")
APPLIED = applied()
ADVICE = [
    (str(path.relative_to(PACKAGE)), sentence)
    for path in sorted(PACKAGE.rglob("*.py"))
    for sentence in remedies(path)
    if not sentence.startswith(NO_ADVICE)
]


@pytest.mark.parametrize(("file", "sentence"), ADVICE)
def test_remedy_is_applied_by_a_test(file: str, sentence: str) -> None:
    assert any(words in sentence for words in APPLIED), (
        f"{file} says: {sentence}. Write a test that does so and succeeds, "
        'and mark it: @pytest.mark.remedy("words of the sentence").'
    )


def test_every_mark_quotes_a_message() -> None:
    assert not [words for words in APPLIED if not any(words in advice for _, advice in ADVICE)]
