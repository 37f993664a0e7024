"""Store the result of a benchmark with the machine, its load, the versions and the command; keep processors busy."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fullbake.core import runtime

RESULTS = Path(__file__).parent / "results"


def _without_folder(argument: str) -> str:
    """Return an argument of the command. Of a path only the name is returned: its folder is private."""
    path = Path(argument)
    return path.name if path.exists() and path.suffix != ".py" else argument


def stored_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of `results/NAME.json`, [] where there is no such file."""
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    return rows


def store_result(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write `results/NAME.json`: the rows of the table, the facts, and what they were measured on."""
    content = {
        "name": name,
        "about": (sys.modules["__main__"].__doc__ or "").partition("\n")[0],
        "command": " ".join(["python", *(_without_folder(argument) for argument in sys.argv)]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": runtime.processor_name(),
            "cores": os.cpu_count(),
            "threads": runtime.threads(),
            "system": platform.system(),
        },
        "load_at_end": round(os.getloadavg()[0], 2),
        "versions": runtime.versions(),
        **facts,
        "rows": rows,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"stored in {path}")
    return path


@contextmanager
def busy_processes(number: int, command: Sequence[str], *, own_sessions: bool = False) -> Iterator[None]:
    """Within the block, run a command that never waits so many times at once.

    Args:
        number: how many processes.
        command: what each runs; its output is thrown away.
        own_sessions: start each in a session of its own. Linux divides the time between sessions first.
    """
    with ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=own_sessions)
            )
            stack.callback(process.kill)
        yield
