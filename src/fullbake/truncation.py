"""Which token ids of a text stay: arithmetic on lengths, for many texts at once.

Everything counts text tokens, special ones left out. The rules are those of the Rust tokenizers, so that a saved bundle
reads texts in plain transformers as it did here; `head+tail` is ours, after Sun et al. 2019 (arXiv 1905.05583).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from fullbake.core.errors import RecipeError

Ids = npt.NDArray[np.int64]

HEAD_SHARE: Final = 128 / 510
"""Of the 510 tokens that 512 leave for text, the first 128 and the last 382 (Sun et al. 2019, on dealing with long
texts); other lengths keep the ratio."""


def kept_ends(room: int, truncation: str) -> tuple[int, int]:
    """How many tokens of a too long text stay at its start and at its end: `room` in all."""
    head = {"head": room, "tail": 0, "head+tail": round(room * HEAD_SHARE)}[truncation]
    return head, room - head


def offsets_of(lengths: Ids) -> Ids:
    """Where each row starts in a flat array, and the end. (rows,) -> (rows + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def within_ends(lengths: Ids, first: int | Ids, last: int) -> npt.NDArray[np.bool_]:
    """True on the first and the last tokens of each row, (tokens,); on all of one no longer than their sum.

    first, last: how many, of all rows alike; `first` also of each (rows,).
    """
    starts = offsets_of(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    kept = np.repeat(np.broadcast_to(first, lengths.shape), lengths)
    return (place < kept) | (place >= np.repeat(lengths, lengths) - last)


def window_bounds(lengths: Ids, room: int, stride: int) -> tuple[Ids, Ids, Ids]:
    """(documents, starts, ends) of all windows: each has `room` tokens, the last of a text what is left.

    Neighbors share `stride` tokens, as transformers counts it. A text that fits, an empty one too, is one window.
    Raises RecipeError where stride leaves no progress.
    """
    if not 0 <= stride < room:
        raise RecipeError(
            f"stride {stride} leaves windows no progress",
            expected=f"less than the {room} tokens that a window holds of the text",
            remedy="Lower --stride or raise --max-length.",
        )
    step = room - stride
    counts = 1 + -(-np.maximum(lengths - room, 0) // step)
    documents = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(documents)) - np.repeat(offsets_of(counts)[:-1], counts)
    starts = number * step
    return documents, starts, np.minimum(starts + room, lengths[documents])


def longest_first(first: Ids, second: Ids, room: int) -> tuple[Ids, Ids]:
    """Lengths that two texts keep together in `room`: the longer one gives way, until both are alike.

    first, second: (pairs,). Of an odd room the longer one has one more; of texts of equal length the second.
    """
    shorter = np.minimum(first, second)
    longer = np.maximum(shorter, np.minimum(np.maximum(first, second), room - shorter))
    halved = shorter + longer > room
    shorter = np.where(halved, room // 2, shorter)
    longer = np.where(halved, room // 2 + room % 2, longer)
    swapped = first > second
    return np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)
