"""Make docs/benchmarks.md from the results that `benchmarks/speed.py` and `benchmarks/quality.py` stored."""

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

In each row both sides do the same work in one run. They alternate, round by round, each in its own process, with the
same threads, weights, texts and precision (fp32). A ratio is their time divided by ours, the median over the rounds;
brackets show the smallest and the largest. The share of the machine is the number of operations per second that the
work needs, divided by the operations per second of a large matrix product in the same rounds. It counts dense layers
and attention on real tokens, without padding, whatever a side computed. Where there are answers, they are compared, so
that both sides did the same work.

To measure it on your machine, run `pip install -c constraints.txt -e '.[demo,bench]'`, then
`python benchmarks/speed.py FOLDER_OF_DATA` while nothing else runs.
"""


PROFILE_INTRO = """## Where the time goes

In features, dense layers on real tokens run about as fast as the machine multiplies matrices, and they take three
quarters of the time; only a part of the rest could still be saved. In fine-tuning, dense layers take about half. The
rest is attention and its dropout (whose random numbers are computed outside torch), masks, copies and the optimizer.
The aims for fine-tuning come from earlier measurements, in which the Trainer took twice as long as here. These shares
are from torch's profiler, which slows down what it measures:
"""


def render(folder: Path) -> str:
    """Return the page. folder: `benchmarks/results`."""
    speeds = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((folder / "speed").glob("*.json"))}
    if not speeds:
        return f"{INTRO}\nNone are stored yet."
    names = sorted(speeds, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    ratios = [line for name in names for line in _ratios(speeds[name])]
    shares = [line for name in names for line in _shares(speeds[name])]
    parts = [INTRO, _table(("work", "against", "ratio", "aim"), ratios)]
    if shares:
        parts.append("## Share of the machine\n\n" + _table(("work", "side", "share", "aim"), shares))
    profile = folder / "where_time_goes.json"
    if profile.is_file():
        parts.append(_profile(json.loads(profile.read_text("utf-8"))))
    quality = folder / "finetune_quality.json"
    if quality.is_file():
        parts.append(_quality(json.loads(quality.read_text("utf-8"))))
    return "\n".join([*parts, *(_details(name, speeds[name]) for name in names)])


def _ratios(stored: Stored) -> Iterator[tuple[str, ...]]:
    for row in stored["rows"][1:]:
        ratio, low, high = (format_ratio(row[name]) for name in ("ratio", "ratio_low", "ratio_high"))
        aim = f"at most {row['at_most']:g}x the time" if row["at_most"] else f"{row['at_least'] or 0:g}x"
        reached = row["ratio"] <= row["at_most"] if row["at_most"] else row["ratio"] >= (row["at_least"] or 0)
        has_aim = row["at_least"] is not None or row["at_most"] is not None
        outcome = f"{aim}{'' if reached else ', not reached'}" if has_aim else ""
        yield stored["work"], row["side"], f"**{ratio}x** ({low} to {high})", outcome


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


def _profile(stored: Stored) -> str:
    """Return the section with the profile."""
    columns = tuple(name for name in stored["rows"][0] if name != "seconds")
    lines = [tuple(row[name] for name in columns) for row in stored["rows"]]
    return f"{PROFILE_INTRO}\n{_table(columns, lines)}\n{_facts(stored)}"


def _quality(stored: Stored) -> str:
    """Return the section with the scores of fine-tuning: means and ranges over the seeds, by side."""
    sides: dict[str, list[Stored]] = {}
    for row in stored["rows"]:
        sides.setdefault(row["side"], []).append(row)
    figures = [name for name in stored["rows"][0] if name not in ("side", "seed")]
    lines = [
        (side, str(len(rows)), *(_range([row[name] for row in rows]) for name in figures))
        for side, rows in sides.items()
    ]
    head = (
        f"## Scores of fine-tuning\n\n{stored['work']}: mean over seeds; brackets show the lowest and the highest.\n\n"
    )
    return head + _table(("side", "seeds", *figures), lines) + f"\n{_facts(stored)}"


def _range(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _details(name: str, stored: Stored) -> str:
    """Return the section of one comparison: times, disturbances, machine."""
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
    columns = ("side", "seconds", "over the rounds", "scaled", "processors used by others", "repeated", "")
    measured = f"{stored['rounds']} rounds, {stored['threads_of_a_side']} threads; matrix product: "
    measured += f"{stored['operations_per_second'] / 1e9:.0f} GFLOP/s.\n"
    if stored["switches"]:
        measured += f"Switched on: {', '.join(f'{name}={value}' for name, value in stored['switches'].items())}.\n"
    work = stored["work"][:1].upper() + stored["work"][1:]
    return f"## {name}\n\n{work}. {measured}\n{_table(columns, lines)}\n{_facts(stored)}"


def _shown(row: Stored) -> Stored:
    apart = {"answers differ by": row["apart"]} if "apart" in row else {}
    return {key: value for key, value in row["facts"].items() if key not in ("operations", "rows")} | apart


def _facts(stored: Stored) -> str:
    machine, versions = (
        ", ".join(f"{key} {value}" for key, value in stored[part].items()) for part in ("machine", "versions")
    )
    return f"Command: `{stored['command']}`, {stored['date']}. Machine: {machine}. Versions: {versions}.\n"


def _table(columns: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    return "".join(markdown_tables.row(*line) for line in [columns, ("---",) * len(columns), *lines])
