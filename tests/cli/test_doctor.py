"""The command prints the report, as a table or as JSON, and its exit code says whether something fails."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fullbake.core import doctor

WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "huggingface_hub", "datasets", "sklearn", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from fullbake.cli.main import main
main(["doctor", "--json"])
"""

Run = Callable[..., tuple[int, str, str]]


def test_table_and_json(run: Run) -> None:
    code, printed, _ = run("doctor")
    assert "vector instructions" in printed
    assert "extra: export" in printed
    again, text, _ = run("doctor", "--json")
    report = json.loads(text)
    assert code == again == any(problem["severity"] == "error" for problem in report["problems"])


def test_an_error_ends_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"severity": "error", "what": "torch is of [red] clay", "remedy": "Take another one."}
    whole = doctor.examine_installation()

    def examine(*_: Any) -> dict[str, Any]:
        return whole | {"problems": [problem], "torch": {"installed": False}}

    monkeypatch.setattr(doctor, "examine_installation", examine)
    code, printed, _ = run("doctor")
    assert code == 1
    assert "error: torch is of [red] clay. Take another one." in printed
    assert "none: torch is not installed" in printed


def test_no_bundle_ends_with_2(run: Run) -> None:
    code, _, errors = run("doctor", "no/such/folder")
    assert code == 2
    assert "there is no bundle" in errors


def test_works_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["torch"] == {"installed": False}
    assert report["hub"]["state"] == "unused"
