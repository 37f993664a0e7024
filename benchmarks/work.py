"""The texts that both sides of a speed comparison use, and the number of operations that these texts need."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BASE = "demo"


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sample(count: int, rows: int) -> np.ndarray:
    """Return positions of `rows` out of `count` rows, by a fixed seed. A small sample is the start of a larger one."""
    return np.random.default_rng(0).permutation(count)[:rows]


def news(folder: str, rows: int) -> list[str]:
    """Return titles and descriptions of the AG News test file."""
    found = read_rows(Path(folder) / "ag_news_test.csv")
    return [f"{found[place]['title']}. {found[place]['description']}" for place in sample(len(found), rows)]


def comments(folder: str, rows: int | None = None) -> tuple[list[str], np.ndarray]:
    """Return texts of jigsaw_8k.csv, and whether each is toxic (1) or not (0)."""
    found = read_rows(Path(folder) / "jigsaw_8k.csv")
    places = sample(len(found), len(found) if rows is None else rows)
    return [found[place]["comment_text"] for place in places], np.array(
        [int(found[place]["toxic"]) for place in places]
    )


def messages(folder: str, rows: int | None = None) -> list[str]:
    """Return texts of sms_spam.csv, in the order of the file."""
    return [row["text"] for row in read_rows(Path(folder) / "sms_spam.csv")][:rows]


def operations(lengths: Sequence[int] | np.ndarray, config: Any, *, first_token: bool) -> float:
    """Return the floating-point operations of dense layers and attention in one forward pass over real tokens.

    A product of (n, k) and (k, m) counts 2nkm. Norms, softmax and activations are not counted.

    Args:
        lengths: The tokens of each text.
        config: The config of the encoder.
        first_token: Only the first token's output is needed: the last layer then computes only keys and values for the
            other tokens.
    """
    tokens, squares, texts = float(np.sum(lengths)), float(np.sum(np.square(lengths, dtype=np.float64))), len(lengths)
    width, inner = config.hidden_size, config.intermediate_size
    layer = tokens * (8 * width**2 + 4 * width * inner) + 4 * squares * width
    if not first_token:
        return layer * config.num_hidden_layers
    last = tokens * 4 * width**2 + texts * (4 * width**2 + 4 * width * inner) + 4 * tokens * width
    return layer * (config.num_hidden_layers - 1) + last
