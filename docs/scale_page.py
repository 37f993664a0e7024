"""The plan of docs/explanation/scale.md: 100 GB of text on one, ten and a hundred machines, from stored rates."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markdown_tables import table

TEXT_BYTES: Final = 100e9
CORES, NETWORK_BYTES, STEP_TOKENS = 16, 1.25e9, 131_072
NODES: Final = (1, 10, 100)
HIDDEN: Final = 0.5
"""Share of a step's computing during which an exchange can be hidden: backward without the embeddings at its end."""


@dataclass(frozen=True)
class Rates:
    """What was measured on one core, by the name of the step."""

    values: dict[str, float]

    def __getitem__(self, step: str) -> float:
        return self.values[step]

    def slower(self, factor: float, gradients: float) -> "Rates":
        """Return the rates of a base that takes so many times the computing, with so many bytes of gradients."""
        size = self["a checkpoint"] * gradients / self["gradients"]
        changed = {"training": self["training"] / factor, "gradients": gradients, "a checkpoint": size}
        return Rates(self.values | changed)


def read_rates(folder: Path) -> Rates:
    """Return the stored rates."""
    stored = json.loads((folder / "scale.json").read_text("utf-8"))
    return Rates({entry["step"]: entry["value"] for entry in stored["rows"]})


def rates(folder: Path) -> str:
    """Return the measured rates as a table."""
    return table(json.loads((folder / "scale.json").read_text("utf-8"))["rows"])


def plan(folder: Path) -> str:
    """Return the plan for base demo, and for one as large as BERT-base."""
    found = read_rates(folder)
    larger = found.slower(8, 440e6)
    return (
        f"Base `demo`, as measured:\n\n{_table(found)}\nA base like BERT-base, with 8 times the computing and 440 MB "
        f"of gradients (estimated from these two numbers, not measured):\n\n{_table(larger)}"
    )


def _table(found: Rates) -> str:
    columns = [_node_plan(found, nodes) for nodes in NODES]
    titles = ("1 machine", "10 machines", "100 machines")
    return table(
        [{"": name} | dict(zip(titles, (column[name] for column in columns), strict=True)) for name in columns[0]]
    )


def _node_plan(found: Rates, nodes: int) -> dict[str, Any]:
    tokens = TEXT_BYTES * found["tokens of a byte"]
    megabytes = TEXT_BYTES / 1e6
    passes = 2 if nodes == 1 else 3
    reading = megabytes / found["hash of the text"] + passes * megabytes / found["reading the text"]
    tokenizing = megabytes / (found["tokenizing"] * CORES * nodes)
    computing = STEP_TOKENS / (found["training"] * CORES * nodes)
    exchange = 0.0 if nodes == 1 else 2 * found["gradients"] * (nodes - 1) / nodes / NETWORK_BYTES
    parts = {
        "masks of the whole step": STEP_TOKENS / found["masking a step"],
        "rows and plan of shards": STEP_TOKENS / found["rows and plan of a shard"],
        "exchange that backward does not hide": max(0.0, exchange - HIDDEN * computing),
    }
    whole = computing + sum(parts.values())
    documents = TEXT_BYTES / found["bytes of a document"]
    worst = max(parts, key=lambda name: parts[name])
    return {
        "reading the text, hours (each machine reads all)": _short(reading / 3600),
        "tokenizing, hours": _short(tokenizing / 3600),
        "shards on the shared disk, GB": _short(TEXT_BYTES * found["shards of a byte of text"] / 1e9),
        "list of documents in a process, GB (at most)": _short(
            documents * found["memory of a document at most, while some are held out"] / 1e9
        ),
        "a step: computing, s": _short(computing),
        **{f"a step: {name}, s": _short(value) for name, value in parts.items()},
        "efficiency": f"{computing / whole:.0%}",
        "a checkpoint, s": _short(found["a checkpoint"] / 1e6 / found["writing and verifying a checkpoint"]),
        "one epoch, days": _short(tokens / STEP_TOKENS * whole / 86400),
        "what costs most beside computing": worst,
    }


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
