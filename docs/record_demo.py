"""Run `fullbake demo` and the tutorial's first training, and store what the docs show: `python docs/record_demo.py`.

This is not part of generate.py because it needs the packaged base and some minutes; generate.py needs only files. Run
it while nothing else runs: the demo has a time budget, and a busy machine does less in it. The picture of the page
needs chromium.
"""

import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from fullbake import Recipe, adapt
from fullbake.cli import tables
from fullbake.core import runtime
from fullbake.evaluation import plots

DOCS = Path(__file__).parent
COMMENTS = DOCS.parent / "src" / "fullbake" / "resources" / "samples" / "comments.csv"
COLUMNS = 100


def main() -> None:
    """Write docs/demo/ and the tutorial's pictures."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        output = _run(Path(folder))
        seconds = time.monotonic() - started
        _picture(Path(folder) / "fullbake-demo" / "report.html", DOCS / "images" / "demo-report.png")
        scores, history = _first_classifier(Path(folder))
    (DOCS / "demo" / "output.txt").write_text(output, "utf-8")
    (DOCS / "demo" / "scores.txt").write_text(_scores_text(scores), "utf-8")
    (DOCS / "demo" / "facts.json").write_text(f"{json.dumps(_facts(seconds), indent=2)}\n", "utf-8")
    (DOCS / "images" / "demo-history.png").write_bytes(history)
    (DOCS / "images" / "demo-confusion.png").write_bytes(_confusion(scores))


def _run(folder: Path) -> str:
    """Return what the demo prints, in a new folder with an empty cache."""
    settings = os.environ | {"COLUMNS": str(COLUMNS), "FULLBAKE_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "fullbake", "demo"]
    done = subprocess.run(command, cwd=folder, env=settings, check=True, stdout=subprocess.PIPE, text=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def _picture(page: Path, target: Path) -> None:
    """Save a picture of the top of the page, as a browser shows it."""
    size, shot = "--window-size=1100,1500", f"--screenshot={target}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size, shot]
    subprocess.run(["chromium", *options, page.as_uri()], check=True, capture_output=True)


def _first_classifier(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Train the first classifier of the tutorial. Return its test scores and its history.png."""
    recipe = Recipe.load("frozen-linear", base="demo", label="topic", test=0.2)
    classifier = adapt(recipe, COMMENTS, out=folder / "first", cache_dir=folder / "cache")
    return classifier.record.facts["metrics"]["test"], (folder / "first" / "history.png").read_bytes()


def _scores_text(scores: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=COLUMNS)
    with console.capture() as captured:
        console.print(tables.scores_table(scores))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _facts(seconds: float) -> dict[str, Any]:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {runtime.threads()} threads"
    return {"seconds": round(seconds), "machine": machine, "versions": runtime.versions()}


def _confusion(scores: dict[str, Any]) -> bytes:
    return plots.confusion_figure(scores["confusion_matrix"], [row["label"] for row in scores["per_class"]])


if __name__ == "__main__":
    main()
