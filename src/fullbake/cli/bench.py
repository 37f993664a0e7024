"""The command `bench`: how fast a bundle answers on this machine, for each engine and precision."""

from itertools import islice
from pathlib import Path
from typing import Any

from cyclopts import App

from fullbake.cli import tables
from fullbake.cli.options import TextFlags, TextOptions, Threads, find_bundle
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.config.recipe import dialect_of
from fullbake.core.console import parse_duration
from fullbake.core.errors import RecipeError
from fullbake.core.processors import measure, parse_threads

MOST_TEXTS = 2_000
"""Of a file the first rows are taken, at most so many."""


def add_bench_command(app: App) -> None:
    """Add the command to the app."""
    app.command(bench_command, name="bench")


def bench_command(
    bundle: Path,
    data: str | None = None,
    /,
    *,
    time: str = "5s",
    json: bool = False,
    threads: Threads = "auto",
    flags: TextFlags = TextOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Measure how fast a bundle answers on this machine: texts a second, time for one text, memory, cold start.

    Each engine (torch, onnx) and precision (fp32, int8) that the bundle has is measured in a process of its own.

    Args:
        bundle: Folder of the bundle, or its id on the hub, such as org/name.
        data: A file with texts like those that will be scored: their length decides the speed. The first 2,000 rows are
            taken. Default: the bundled forum comments.
        time: How long many texts are scored for each figure, such as 5s or 1m.
        json: Print all figures as JSON instead of a table.
    """
    seconds = parse_duration(time, "--time")
    given = flags.model_dump(exclude_none=True)
    if data is None and given:
        raise RecipeError(
            f"--{next(iter(given)).replace('_', '-')} says how a file is read, but no file is given",
            remedy="Give the file after the bundle: fullbake bench BUNDLE texts.csv.",
        )
    setting = parse_threads(threads)
    number = measure().free if setting == "auto" else setting
    from fullbake.classifier.speed import measure_engines

    bundle = find_bundle(bundle)
    texts = _bundled_texts(bundle) if data is None else _texts_of(bundle, data, given)
    found = measure_engines(bundle, texts, threads=number, seconds=seconds)
    if json:
        print_json({"texts": len(texts[0]), "engines": [speed.to_json() for speed in found]})
        return
    print_table(tables.speed_table(found))
    lengths = sorted(len(text) for text in texts[0])
    median = lengths[len(lengths) // 2]
    kind = "the bundled comments" if data is None else data
    print_line(f"measured with {len(lengths):,} texts of {kind}, half of them longer than {median:,} characters")


def _texts_of(bundle: Path, data: str, given: dict[str, Any]) -> list[list[str]]:
    """Return the first texts of a file, one list for each text column of training."""
    from fullbake.classifier.manifest import read_manifest
    from fullbake.data.files import open_table

    trained = read_manifest(bundle)["columns"]
    dialect = {name: value for name, value in given.items() if not name.startswith("text")}
    names = [given.get(name) or trained[name] for name in ("text", "text_pair") if trained[name] is not None]
    table = open_table(data, columns=names, dialect=dialect_of(**dialect))
    rows = (row for chunk in table.chunks() for row in zip(*(chunk.columns[name] for name in names), strict=True))
    return [list(column) for column in zip(*islice(rows, MOST_TEXTS), strict=True)]


def _bundled_texts(bundle: Path) -> list[list[str]]:
    """Return the bundled comments. A classifier of pairs gets each of them with the next one."""
    import csv
    import io
    from importlib import resources

    from fullbake.classifier.manifest import read_manifest

    stored = resources.files("fullbake") / "resources" / "samples" / "comments.csv"
    rows = csv.DictReader(io.StringIO(stored.read_text("utf-8"), newline=""))
    texts = [row["text"] for row in rows]
    pairs = read_manifest(bundle)["columns"]["text_pair"] is not None
    return [texts, texts[1:] + texts[:1]] if pairs else [texts]
