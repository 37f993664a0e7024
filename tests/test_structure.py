"""The structure of the package: folders, file sizes, names and words. CONTRIBUTING.md says why."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import fullbake

PACKAGE = Path(fullbake.__file__).parent
ROOT = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*/__init__.py")} - {"."}
MOST_CODE_LINES = 460


def code_lines(path: Path) -> int:
    """Lines of a file that are neither blank, comment nor docstring."""
    text = path.read_text("utf-8")
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if line.strip() and not line.strip().startswith("#") and number not in docs)


def public_definitions(path: Path) -> dict[str, str]:
    """Public names that a file defines at its top level, with the source of each definition."""
    text, found = path.read_text("utf-8"), {}
    for node in ast.parse(text).body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        found |= {name: ast.get_source_segment(text, node) or "" for name in names if not name.startswith("_")}
    return found


def test_modules_are_in_folders() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {path.parent for path in FILES if path.parent != PACKAGE} == {PACKAGE / folder for folder in FOLDERS}


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folders_init_is_a_docstring_alone(folder: str) -> None:
    tree = ast.parse((PACKAGE / folder / "__init__.py").read_text("utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_is_too_long(path: Path) -> None:
    assert code_lines(path) <= MOST_CODE_LINES


SAME_METRICS = {
    f"evaluation/{name}.py" for name in ("single_label_metrics", "multilabel_metrics", "resamplers", "scores")
}
"""Each of these computes the metric of a name in its own way. They are used by module: `single.f1_macro`."""


NAMED_BY_ITS_LIBRARY = {"score": {"evaluation/metrics.py", "integrations/spark.py"}}
"""`fullbake.integrations.spark.score` is called by its whole name, beside a DataFrame."""


def test_no_public_name_means_two_things() -> None:
    """One name in two files is allowed only where both definitions are the same text, such as a type alias."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in FILES:
        for name, source in public_definitions(path).items():
            found[name][path.relative_to(PACKAGE).as_posix()] = source
    twice = {
        name: sorted(where)
        for name, where in found.items()
        if len(set(where.values())) > 1 and not set(where) <= SAME_METRICS | NAMED_BY_ITS_LIBRARY.get(name, set())
    }
    assert twice == {}


def test_no_test_imports_another_test_file() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not (module or "").split(".")[-1].startswith("test_"), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*/test_*.py")), ids=lambda path: path.stem)
def test_tests_mirror_the_folders(path: Path) -> None:
    folder = path.parent.relative_to(ROOT / "tests")
    if folder.as_posix() in FOLDERS:
        assert (PACKAGE / folder / f"{path.stem.removeprefix('test_')}.py").is_file()


def test_every_module_has_tests() -> None:
    modules = [path.relative_to(PACKAGE) for path in FILES if path.parent != PACKAGE and path.stem != "__init__"]
    tested = {path: ROOT / "tests" / path.parent / f"test_{path.name}" for path in modules}
    assert [path.as_posix() for path, tests in tested.items() if not tests.is_file()] == []


RIDDLES = re.compile(r"\b(gone on with|go(es)? on|told|parted|let into|rows that chose|none of them near|as asked)\b")
"""Phrases that readers whose English is their third language stumble over. Use the field's term instead."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_prose_is_plain(path: Path) -> None:
    assert RIDDLES.findall(path.read_text("utf-8")) == []
