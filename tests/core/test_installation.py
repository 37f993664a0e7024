"""Conflicts are found in metadata alone; each known one is tried with metadata made up for it."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.installation import (
    EXTRA_PURPOSES,
    TESTED_VERSIONS,
    WITHOUT_TRAINING,
    InstallationProblem,
    Library,
    find_conflicts,
    installed_libraries,
    missing_of_extras,
    version_fits,
)

ROOT = Path(__file__).parents[2]
REQUIRES = {
    "fullbake": [
        "numpy>=2",
        'torch>=2.13; extra == "train"',
        'transformers>=5; extra == "train"',
        'sentencex>=1; extra == "train"',
        'fullbake[train]; extra == "export"',
        'onnx>=1.23; extra == "export"',
        'ruff; extra == "test"',
    ],
    "torchvision": ["torch==2.13.0", 'scipy; extra == "scipy"'],
    "transformers": ["tokenizers<0.24,>=0.22"],
}
WHOLE = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "transformers": "5.23.0", "sentencex": "1.0", "onnx": "1.23.2"}
WHOLE |= {"tokenizers": "0.23.3"}
LIGHT: dict[str, str | None] = dict.fromkeys(("torch", "transformers", "sentencex", "onnx"))


def problems_of(changes: dict[str, str | None]) -> list[InstallationProblem]:
    """Return the conflicts of an installation that differs from WHOLE; None removes a package."""
    installed = {name: version for name, version in (WHOLE | changes).items() if version is not None}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    def requires(name: str) -> list[str] | None:
        version("numpy" if name == "fullbake" else name)
        return REQUIRES.get(name)

    return find_conflicts(installed_libraries(requires, version), requires, version)


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"transformers": "4.57.1"}, "error", "transformers 4.57.1 is installed, but fullbake[train] needs"),
        ({"torch": "2.9.0"}, "error", "torch 2.9.0 is installed"),
        ({"torch": "2.14.0"}, "note", "torch 2.14.0 is newer than 2.13.0"),
        ({"sentencex": None}, "warning", "sentencex: missing, while the rest of fullbake[train]"),
        ({"tokenizers": "0.21"}, "warning", "transformers 5.23.0 needs tokenizers"),
        ({"torchvision": "0.27", "torch": "2.13.1"}, "warning", "torchvision 0.27 needs torch==2.13.0, but 2.13.1"),
        ({"onnxruntime": "1.32", "onnxruntime-gpu": "1.32"}, "warning", "overwrite each other's files"),
        (
            {"torch": None, "transformers": None, "sentencex": None, "onnx": None, "numpy": "1.26"},
            "error",
            "numpy 1.26",
        ),
    ],
)
def test_known_conflicts(changes: dict[str, str | None], severity: str, words: str) -> None:
    found = [problem for problem in problems_of(changes) if words in problem.what]
    assert [problem.severity for problem in found] == [severity]
    assert found[0].remedy.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"torch": None, "transformers": None, "sentencex": None, "onnx": None},
        {"onnx": None},
        {"torchvision": "0.27"},
    ],
)
def test_whole_and_light_installations_have_no_conflict(changes: dict[str, str | None]) -> None:
    assert problems_of(changes) == []


def test_a_folder_that_is_not_installed_is_said() -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert [one.severity for one in find_conflicts([], lambda name: [missing(name)], missing)] == ["warning"]


def test_extras_lack_what_the_training_extra_lacks() -> None:
    libraries = [Library("torch", ">=2.13", "train", None), Library("onnx", ">=1.23", "export", "1.23.2")]
    assert missing_of_extras(libraries) == {
        extra: [] if extra in WITHOUT_TRAINING else ["torch"] for extra in EXTRA_PURPOSES
    }
    assert missing_of_extras([libraries[1]]) == {extra: [] for extra in EXTRA_PURPOSES}


@given(st.text())
def test_any_version_text_is_taken(version: str) -> None:
    assert version_fits(">=5", version) in (True, False)


def test_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pinned[name] for name in TESTED_VERSIONS} == TESTED_VERSIONS


def test_extras_without_training_are_those_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    alone = {extra for extra in EXTRA_PURPOSES if "fullbake[train]" not in declared[extra]}
    assert alone - {"train"} == WITHOUT_TRAINING


def test_every_extra_for_users_says_what_it_brings() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(declared) - {"test", "bench"} <= set(EXTRA_PURPOSES)
