"""What a process tells torchrun at its end; tests/faults/test_ranks.py does it with torchrun itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fullbake.core import launcher


def test_error_is_written_where_torchrun_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    launcher.note_error("nobody asks")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    launcher.note_error("no column 'labl'")
    found = json.loads((tmp_path / "error.json").read_text())["message"]
    assert found["extraInfo"]["py_callstack"] == found["message"] == "no column 'labl'"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "no" / "folder"))
    launcher.note_error("it cannot be written, and that is no further error")


def test_only_other_processes_of_a_machine_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(launcher.time, "sleep", waited.append)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        launcher.leave_to_first()
    assert waited == [launcher.OTHERS_SECONDS]


@pytest.mark.parametrize(
    ("restarts", "done", "leads", "ends"),
    [(3, 0, True, True), (3, 0, False, False), (3, 1, True, False), (0, 0, True, False)],
)
def test_the_parent_ends_only_if_it_would_start_a_first_attempt_again(
    restarts: int, done: int, leads: bool, ends: bool
) -> None:
    child = "from fullbake.core.launcher import end_restarts; end_restarts()"
    parent = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], start_new_session={leads}, check=True)\n"
    )
    environment = {"TORCHELASTIC_MAX_RESTARTS": str(restarts), "TORCHELASTIC_RESTART_COUNT": str(done)}
    done_run = subprocess.run([sys.executable, "-c", parent], env=os.environ | environment, check=False)
    assert done_run.returncode == (-signal.SIGTERM if ends else 0)
