"""What both sides of a comparison work on: texts of the data folder, and how many operations they need."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BASE = "demo"


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(count: int, rows: int) -> np.ndarray:
    """Which `rows` of `count` are taken, drawn from a fixed seed; fewer are the first of more."""
    return np.random.default_rng(0).permutation(count)[:rows]


def news(folder: str, rows: int) -> list[str]:
    """Titles and descriptions of the AG News test file."""
    found = read_rows(Path(folder) / "ag_news_test.csv")
    return [f"{found[place]['title']}. {found[place]['description']}" for place in drawn(len(found), rows)]


def comments(folder: str, rows: int | None = None) -> tuple[list[str], np.ndarray]:
    """(texts, toxic 0 or 1) of jigsaw_8k.csv."""
    found = read_rows(Path(folder) / "jigsaw_8k.csv")
    places = drawn(len(found), len(found) if rows is None else rows)
    return [found[place]["comment_text"] for place in places], np.array(
        [int(found[place]["toxic"]) for place in places]
    )


def messages(folder: str, rows: int | None = None) -> list[str]:
    """Texts of sms_spam.csv, in the file's order."""
    return [row["text"] for row in read_rows(Path(folder) / "sms_spam.csv")][:rows]


def operations(lengths: Sequence[int] | np.ndarray, config: Any, *, first_token: bool) -> float:
    """Floating-point operations of dense layers and attention that one forward pass over real tokens needs.

    A product of (n, k) and (k, m) counts 2nkm; norms, softmax and activations count nothing. first_token: of the last
    layer only keys and values are needed of every token, the rest of the first alone.
    """
    tokens, squares, texts = float(np.sum(lengths)), float(np.sum(np.square(lengths, dtype=np.float64))), len(lengths)
    width, inner = config.hidden_size, config.intermediate_size
    layer = tokens * (8 * width**2 + 4 * width * inner) + 4 * squares * width
    if not first_token:
        return layer * config.num_hidden_layers
    last = tokens * 4 * width**2 + texts * (4 * width**2 + 4 * width * inner) + 4 * tokens * width
    return layer * (config.num_hidden_layers - 1) + last
