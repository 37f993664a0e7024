"""docs/benchmarks.md out of what `benchmarks/speed.py` and `benchmarks/quality.py` stored."""

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import markdown_tables

Stored = dict[str, Any]

ORDER = (
    "features-cls",
    "features-mean",
    "frozen-run",
    "finetune-epoch",
    "predict-messages",
    "warm-cache",
    "grid-linear",
    "grid-mlp",
    "grid-mlp-128",
    "start",
    "dots",
)

INTRO = """# How fast it is

Each row is the same work done by both sides in one run: in turn, round by round, each in a process of its own, with
the same threads, weights, texts and precision (fp32). A ratio is the median over the rounds of their time over ours; in
brackets stand the smallest and the largest. The share is what the operations that the work needs come to, over what the
machine's own large matrix product does in the same rounds: dense layers and attention on real tokens, no padding,
whatever a side did besides. Answers are compared where there are any: both sides did the same work.

Measure it yourself: `pip install -c constraints.txt -e '.[demo,bench]'`, then
`python benchmarks/speed.py FOLDER_OF_DATA` on a machine with nothing else to do.
"""


BOUNDS = """## Where the time goes

In features, dense layers on real tokens run about as fast as the machine multiplies matrices, and they are three
quarters of the time: what could still be saved is a part of the rest. In fine-tuning, dense layers are about half: the
rest is attention and its dropout (whose random words are drawn outside torch), masks, copies, the optimizer. The aims
for fine-tuning were set on measurements in which the Trainer took twice as long as it does in these. By torch's
profiler, which slows what it looks at:
"""


def render(folder: Path) -> str:
    """The page. folder: `benchmarks/results`."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((folder / "speed").glob("*.json"))}
    if not kept:
        return f"{INTRO}\nNone are stored yet."
    names = sorted(kept, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    ratios = [line for name in names for line in _ratios(kept[name])]
    shares = [line for name in names for line in _shares(kept[name])]
    parts = [INTRO, _table(("work", "against", "ratio", "aim"), ratios)]
    if shares:
        parts.append("## Share of the machine\n\n" + _table(("work", "side", "share", "aim"), shares))
    profile = folder / "where_time_goes.json"
    if profile.is_file():
        parts.append(_bounds(json.loads(profile.read_text("utf-8"))))
    quality = folder / "finetune_quality.json"
    if quality.is_file():
        parts.append(_quality(json.loads(quality.read_text("utf-8"))))
    return "\n".join([*parts, *(_details(name, kept[name]) for name in names)])


def _ratios(stored: Stored) -> Iterator[tuple[str, ...]]:
    for row in stored["rows"][1:]:
        ratio = (
            f"**{format_ratio(row['ratio'])}x** ({format_ratio(row['ratio_low'])} to {format_ratio(row['ratio_high'])})"
        )
        aim = f"at most {row['at_most']:g}x the time" if row["at_most"] else f"{row['at_least'] or 0:g}x"
        reached = row["ratio"] <= row["at_most"] if row["at_most"] else row["ratio"] >= (row["at_least"] or 0)
        told = (
            "" if row["at_least"] is None and row["at_most"] is None else f"{aim}{'' if reached else ', not reached'}"
        )
        yield stored["work"], row["side"], ratio, told


def format_ratio(ratio: float) -> str:
    """Return a ratio with three digits, or as a whole number from 100 on."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _shares(stored: Stored) -> Iterator[tuple[str, ...]]:
    for number, row in enumerate(stored["rows"]):
        if row["share_of_product"] is not None:
            aim, share = stored["share_at_least"], row["share_of_product"]
            is_aimed = aim is not None and number == 0
            missed = ", not reached" if is_aimed and share < aim else ""
            yield stored["work"], row["side"], f"{share:.0%}", f"{aim:.0%}{missed}" if is_aimed else ""


def _bounds(stored: Stored) -> str:
    """What is left to save: the profile, in words and figures."""
    columns = tuple(name for name in stored["rows"][0] if name != "seconds")
    lines = [tuple(row[name] for name in columns) for row in stored["rows"]]
    return f"{BOUNDS}\n{_table(columns, lines)}\n{_facts(stored)}"


def _quality(stored: Stored) -> str:
    """Means and ranges over seeds, side by side."""
    sides: dict[str, list[Stored]] = {}
    for row in stored["rows"]:
        sides.setdefault(row["side"], []).append(row)
    figures = [name for name in stored["rows"][0] if name not in ("side", "seed")]
    lines = [
        (side, str(len(rows)), *(_range([row[name] for row in rows]) for name in figures))
        for side, rows in sides.items()
    ]
    head = (
        f"## What fine-tuning gives\n\n{stored['work']}: mean over seeds, the lowest and the highest in brackets.\n\n"
    )
    return head + _table(("side", "seeds", *figures), lines) + f"\n{_facts(stored)}"


def _range(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _details(name: str, stored: Stored) -> str:
    """What one comparison was measured on, and how undisturbed."""
    lines = [
        (
            row["side"],
            f"{row['median']:.3g}",
            f"{min(row['seconds']):.3g} to {max(row['seconds']):.3g}",
            "" if row["scaled_by"] == 1 else f"from {1 / row['scaled_by']:.3g} of the work",
            f"{row['others']:.2f}",
            str(row["repeats"]),
            ", ".join(f"{key} {value:.4g}" for key, value in _shown(row).items()),
        )
        for row in stored["rows"]
    ]
    columns = ("side", "seconds", "over the rounds", "scaled", "processors of others", "repeated", "")
    told = f"{stored['rounds']} rounds, {stored['threads_of_a_side']} threads; the machine's product: "
    told += f"{stored['operations_per_second'] / 1e9:.0f} GFLOP/s.\n"
    if stored["switches"]:
        told += f"Switched on: {', '.join(f'{name}={value}' for name, value in stored['switches'].items())}.\n"
    work = stored["work"][:1].upper() + stored["work"][1:]
    return f"## {name}\n\n{work}. {told}\n{_table(columns, lines)}\n{_facts(stored)}"


def _shown(row: Stored) -> Stored:
    apart = {"answers apart by": row["apart"]} if "apart" in row else {}
    return {key: value for key, value in row["facts"].items() if key not in ("operations", "rows")} | apart


def _facts(stored: Stored) -> str:
    machine, versions = (
        ", ".join(f"{key} {value}" for key, value in stored[part].items()) for part in ("machine", "versions")
    )
    return f"Command: `{stored['command']}`, {stored['date']}. Machine: {machine}. Versions: {versions}.\n"


def _table(columns: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    return "".join(markdown_tables.row(*line) for line in [columns, ("---",) * len(columns), *lines])
