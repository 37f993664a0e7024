"""Run `fullbake demo` and store what the README and the tutorial show of it: `python docs/record_demo.py`.

Kept apart from generate.py because it needs the packaged base and a minute; generate.py needs only files.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fullbake import plots

DOCS = Path(__file__).parent
COLUMNS = "100"


def main() -> None:
    """Write docs/demo/ and the demo's pictures."""
    with tempfile.TemporaryDirectory() as folder:
        output = _run(Path(folder))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time: what else runs here does not lengthen it
        facts = json.loads((Path(folder) / "fullbake-demo" / "fullbake.json").read_text("utf-8"))
        history = (Path(folder) / "fullbake-demo" / "history.png").read_bytes()
    (DOCS / "demo" / "output.txt").write_text(output, "utf-8")
    kept = _kept(facts, used.ru_utime + used.ru_stime)
    (DOCS / "demo" / "facts.json").write_text(f"{json.dumps(kept, indent=2)}\n", "utf-8")
    (DOCS / "images" / "demo-history.png").write_bytes(history)
    (DOCS / "images" / "demo-confusion.png").write_bytes(_confusion(facts["metrics"]["test"]))


def _run(folder: Path) -> str:
    """What the demo prints, in a fresh folder with an empty cache."""
    settings = os.environ | {"COLUMNS": COLUMNS, "FULLBAKE_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "fullbake", "demo"]
    done = subprocess.run(command, cwd=folder, env=settings, check=True, stdout=subprocess.PIPE, text=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def _kept(facts: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {facts['threads']} threads"
    return {"cpu_seconds": round(cpu_seconds), "machine": machine, "versions": facts["versions"]}


def _confusion(scores: dict[str, Any]) -> bytes:
    return plots.confusion_figure(scores["confusion_matrix"], [row["label"] for row in scores["per_class"]])


if __name__ == "__main__":
    main()
