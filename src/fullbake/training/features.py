"""Feature extraction: one pass of a network that does not train, its output kept on disk.

The output is a vector for each text, or a state for each token. Rows of equal token ids are computed once, the longest
first. The output is written in parts to a file of the cache and memory-mapped from there, so that neither making nor
using it needs memory for all of it. The file is safetensors with one tensor, `rows`.

Beside it a journal holds, for each finished part, the hash of its rows. After a kill, the next run keeps the parts
whose rows still have their hash and computes the others again, so the order in which a dying machine wrote its pages
does not matter. The trade-off: what is kept is hashed once more, a second for 1.5 GB.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from fullbake.config.sections import TokensConfig
from fullbake.core import ranks, runtime, stopping, storage
from fullbake.core.cache import Cache, made_again
from fullbake.core.console import bar, format_size, say, warn
from fullbake.core.errors import OutputError, SpaceFault, one_line
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, span_positions
from fullbake.models.inference import batch_inputs, run_batches
from fullbake.models.prediction import padded_lengths

ROWS_FILE: Final = "rows.safetensors"
"""The name of a file of rows, in its folder."""

JOURNAL_FILE: Final = "journal.jsonl"
"""The name of its journal: one line for each finished part."""

BATCHES_PER_PART: Final = 16
"""Forward passes of a part. A kill loses at most one part, some seconds of work on two cores."""

StoredPrecision = Literal["fp32", "fp16"]
"""The type of the numbers in a file. fp16 keeps 11 significant bits and takes half the bytes."""

_DTYPES: Final[dict[StoredPrecision, tuple[str, type[np.floating[Any]]]]] = {
    "fp32": ("F32", np.float32),
    "fp16": ("F16", np.float16),
}
_ZEROS: Final = bytes(1 << 20)
_STARTS_FILE: Final = "places.safetensors"
_STARTS_NAME: Final = "places"


@dataclass(frozen=True)
class FileShape:
    """The shape of a file of rows: `rows` x `width` numbers of a precision."""

    rows: int
    width: int
    precision: StoredPrecision = "fp32"

    @property
    def size(self) -> int:
        """The size of the numbers in bytes."""
        return self.rows * self.width * np.dtype(self.dtype).itemsize

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """The numpy type of a number."""
        return _DTYPES[self.precision][1]


FileParts = Sequence[np.ndarray]
"""The rows of the file that each part consists of, int64 (n,). Every row is in exactly one part."""

FeatureForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs (batch, tokens) -> (batch, width), or (batch, tokens, width)."""


def write_rows(folder: Path, shape: FileShape, parts: FileParts, make: Callable[[int], np.ndarray]) -> Iterator[int]:
    """Write the file of rows in `folder`, part by part.

    The journal stays beside the file, so that a kill after the last part costs no more than one before it.

    Args:
        folder: holds the file, and what an earlier attempt left of it.
        shape: of the whole file.
        parts: the rows of each part. They have to be the same at each attempt, which the caller's cache key ensures.
        make: number of a part -> its rows, float (n, width), in the order of `parts`. It is called only for parts that
            the folder does not hold yet, and has to give the same rows each time.

    Yields:
        The number of each part once it is in the file, also of those that were there before.
    """
    path, journal = folder / ROWS_FILE, folder / JOURNAL_FILE
    known = _read_journal(journal) if path.is_file() else {}
    if not known:
        _create(path, shape)
        journal.write_bytes(b"")
    rows = _map(path, "r+")
    with journal.open("a", encoding="utf-8") as entries:
        for number, part in enumerate(parts):
            if number not in known or known[number] != _digest(rows[part]):
                rows[part] = make(number)
                entries.write(json.dumps({"part": number, "sha256": _digest(rows[part])}) + "\n")
                entries.flush()
            yield number


def map_rows(folder: Path) -> np.ndarray:
    """Return the file of rows in `folder`, memory-mapped: (rows, width), float32 or float16.

    Rows are read when they are used. What is written to the array stays in memory; the file is never changed.

    Raises:
        OSError: the file is missing.
    """
    return _map(folder / ROWS_FILE, "c")


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _read_journal(journal: Path) -> dict[int, str]:
    """Return the hashes of the finished parts. An incomplete last line is ignored."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
    entries = [json.loads(line) for line in lines]
    return {entry["part"]: entry["sha256"] for entry in entries}


def _create(path: Path, shape: FileShape) -> None:
    """Write a file of zeros.

    The zeros are written in full: a sparse file would be faster, but if the disk fills up later, a write to its memory
    map kills the process.
    """
    header = {"dtype": _DTYPES[shape.precision][0], "shape": [shape.rows, shape.width], "data_offsets": [0, shape.size]}
    text = json.dumps({"rows": header}).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, shape.size, len(_ZEROS)):
            file.write(_ZEROS[: shape.size - start])
        file.flush()
        os.fsync(file.fileno())


def _map(path: Path, mode: Literal["r+", "c"]) -> np.ndarray:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))["rows"]
    dtype = dict(_DTYPES.values())[header["dtype"]]
    if not header["data_offsets"][1]:  # an empty file cannot be mapped
        return np.empty(header["shape"], dtype)
    return np.asarray(np.memmap(path, dtype, mode, offset=8 + length, shape=tuple(header["shape"])))


@dataclass(frozen=True)
class Features:
    """The output of a network for rows of token ids.

    Attributes:
        values: (lines, width), float32 or float16, memory-mapped if it comes from the cache. A line is the vector of a
            row, or the state of one of its tokens.
        starts: index of the first line of each row, int64 (rows,). Rows of equal ids share their lines.
        documents: index of the text that each row is a window of, int64 (rows,); None if rows are texts.
    """

    values: np.ndarray
    starts: np.ndarray
    documents: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Features":
        """Return these rows (indices), in this order, each as a text of its own."""
        return Features(self.values, self.starts[rows])

    @property
    def vectors(self) -> np.ndarray:
        """The vectors of all rows in memory, float32 (rows, width), if a row is one line."""
        vectors: np.ndarray = self.values[self.starts].astype(np.float32, copy=False)
        return vectors


@dataclass(frozen=True)
class FeatureExtraction:
    """What to compute: which network, over which inputs, and under which key the cache holds its output.

    Attributes:
        forward: the network, in eval mode.
        width: of its output.
        key: the cache key, which depends on all that the output depends on.
        title: what the progress bar and messages call the output.
        tokens: the recipe's section on tokens.
        pad_id: id of the padding token.
        every_token: whether the network gives the states of all tokens, in place of one vector for each row.
        precision: in which the output is stored.
        batches_per_part: forward passes of a part of the file.
    """

    forward: FeatureForward
    width: int
    key: str
    title: str
    tokens: TokensConfig
    pad_id: int
    every_token: bool = False
    precision: StoredPrecision = "fp32"
    batches_per_part: int = BATCHES_PER_PART


def extract_features(extraction: FeatureExtraction, encode: Callable[[], Encoded], cache: Cache) -> Features | None:
    """Return the features from the cache, or compute them in one pass and keep them there.

    Several processes share the pass and get vectors in memory. They do not share a pass over the states of all tokens.
    All processes have to call.

    Args:
        extraction: what to compute.
        encode: returns the rows of token ids. It is called only if the cache does not know the key.
        cache: where the features are kept.

    Returns:
        None if the cache cannot hold the features, which a warning says, and for states of all tokens that several
        processes would have to compute.

    Raises:
        DeadlinePassed: see `stopping.deadline`. The parts that are done are kept for the next attempt.
    """
    found = _read_from(cache, extraction.key)
    if ranks.true_on_all_ranks(found is not None) and found is not None:
        say(f"{extraction.title}: {len(found.starts):,} rows found in the cache ({cache.root})")
        return found
    if runtime.world_size() == 1:
        with stopping.interruptible():
            made_again(lambda: _extract_into(cache, extraction, encode()))
        return _read_from(cache, extraction.key)
    return None if extraction.every_token else _extract_together(extraction, encode(), cache)


def extract_in_memory(extraction: FeatureExtraction, encoded: Encoded) -> Features:
    """Compute features of one vector for each row without a cache.

    Several processes take the batches in turn; all have to call.

    Args:
        extraction: what to compute.
        encoded: the rows of token ids.
    """
    first_rows, group_of_row = unique_rows(encoded)
    with stopping.interruptible():
        values = run_batches(
            extraction.forward,
            encoded.take(first_rows),
            tokens=extraction.tokens,
            pad_id=extraction.pad_id,
            device=runtime.device(),
            title=extraction.title,
            shared=True,
        )
    dtype = FileShape(0, 0, extraction.precision).dtype
    return Features(values.astype(dtype, copy=False), group_of_row, encoded.documents)


def _extract_together(extraction: FeatureExtraction, encoded: Encoded, cache: Cache) -> Features:
    """Compute vectors in memory with all processes; the first process puts them into the cache."""
    found = extract_in_memory(extraction, encoded)
    if runtime.rank() == 0:
        rows, width = found.values.shape
        shape = FileShape(rows, width, extraction.precision)

        def write(folder: Path) -> None:
            list(write_rows(folder, shape, [np.arange(shape.rows)], lambda _: found.values))

        _keep(extraction, shape, found.starts, encoded.documents, cache, write)
    return found


def unique_rows(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Group the rows that have the same ids and segments.

    Args:
        encoded: rows of token ids.

    Returns:
        (index of the first row of each group, in ascending order, int64 (groups,); group of each row, int64 (rows,)).
    """
    ids, bounds = encoded.input_ids.view(np.uint8), (encoded.offsets * encoded.input_ids.itemsize).tolist()
    types, offsets = encoded.token_type_ids, encoded.offsets.tolist()
    groups: dict[tuple[bytes, bytes], int] = {}
    first_rows: list[int] = []
    group_of_row = np.empty(len(encoded), np.int64)
    for row in range(len(encoded)):
        segments = b"" if types is None else types[offsets[row] : offsets[row + 1]].tobytes()
        group_of_row[row] = groups.setdefault((ids[bounds[row] : bounds[row + 1]].tobytes(), segments), len(groups))
        if group_of_row[row] == len(first_rows):
            first_rows.append(row)
    return np.array(first_rows, np.int64), group_of_row


def _read_from(cache: Cache, key: str) -> Features | None:
    folder = cache.get(key)
    if folder is None:
        return None
    try:
        known = storage.read_tensors(folder / _STARTS_FILE)
        return Features(map_rows(folder), known[_STARTS_NAME], known.get("documents"))
    except FileNotFoundError:  # another process has just evicted it
        return None


def _extract_into(cache: Cache, extraction: FeatureExtraction, encoded: Encoded) -> None:
    first_rows, group_of_row = unique_rows(encoded)
    rows = encoded.take(first_rows)
    starts, lines = (
        (rows.offsets[:-1], int(rows.offsets[-1])) if extraction.every_token else (np.arange(len(rows)), len(rows))
    )
    shape = FileShape(lines, extraction.width, extraction.precision)

    def write(folder: Path) -> None:
        _write_batches(folder, shape, rows, extraction)

    _keep(extraction, shape, starts[group_of_row], encoded.documents, cache, write)


def _keep(
    extraction: FeatureExtraction,
    shape: FileShape,
    starts: np.ndarray,
    documents: np.ndarray | None,
    cache: Cache,
    write: Callable[[Path], None],
) -> None:
    """Make the entry of the cache, with the rows that `write` writes.

    If there is no place or space for it, only warn: the run can do without.
    """
    if not cache.can_hold(shape.size):
        warn(f"{extraction.title}: {format_size(shape.size)} are more than the cache may hold")
        return
    description = f"{extraction.title}: {shape.rows:,} x {shape.width}, {shape.precision}"
    try:
        with cache.put_resumable(extraction.key, description, shape.size) as folder:
            if folder is not None:
                write(folder)
                arrays = {_STARTS_NAME: starts} | ({} if documents is None else {"documents": documents})
                storage.write_tensors(folder / _STARTS_FILE, arrays)
    except (SpaceFault, OutputError) as fault:
        warn(f"{extraction.title} are not kept on disk: {one_line(fault)}")


def _write_batches(folder: Path, shape: FileShape, rows: Encoded, extraction: FeatureExtraction) -> None:
    plan = inference_plan(padded_lengths(rows, extraction.tokens), token_budget=extraction.tokens.token_budget)
    step = extraction.batches_per_part
    parts = [plan[start : start + step] for start in range(0, len(plan), step)]
    lines = [np.concatenate(part) for part in parts]
    if extraction.every_token:
        lines = [rows.places(part_rows)[0] for part_rows in lines]

    made = set[int]()
    with bar(extraction.title, len(rows), "texts") as advance:

        def make(number: int) -> np.ndarray:
            made.add(number)
            found = []
            for batch in parts[number]:  # a part may take a minute, so the bar counts batches
                found.append(_run_batch(rows, batch, extraction))
                advance(len(batch))
            return np.concatenate(found)

        for number in write_rows(folder, shape, lines, make):
            if number not in made:
                advance(sum(map(len, parts[number])))


@torch.inference_mode()
def _run_batch(rows: Encoded, batch: np.ndarray, extraction: FeatureExtraction) -> np.ndarray:
    """Return the network's output for these rows, float32 (lines, width), without the states of padding."""
    stopping.check()
    inputs = batch_inputs(rows, batch, tokens=extraction.tokens, pad_id=extraction.pad_id, device=runtime.device())
    values = extraction.forward(inputs).float().cpu().numpy()
    if not extraction.every_token:
        return values
    lengths = rows.lengths[batch]
    flat = span_positions(np.arange(len(batch)) * values.shape[1], lengths)
    return values.reshape(-1, values.shape[2])[flat]


def gather_token_states(features: Features, rows: np.ndarray, lengths: np.ndarray, width: int) -> Tensor:
    """Return the states of all tokens of these rows as one batch, float32 (rows, width, hidden), zeros for padding.

    Args:
        features: the states of all tokens.
        rows: indices of rows.
        lengths: tokens of each of these rows.
        width: tokens that the rows are padded to.
    """
    lines = span_positions(features.starts[rows], lengths)
    batch = np.zeros((len(rows) * width, features.values.shape[1]), np.float32)
    batch[span_positions(np.arange(len(rows)) * width, lengths)] = features.values[lines]
    return torch.from_numpy(batch.reshape(len(rows), width, -1))
