"""Arrays of equal rows in one file: made part by part in any order, gone on with after a kill, memory-mapped when read.

The file is safetensors with one tensor, `rows`, so anything that reads safetensors reads it. Beside it, while it is
being made, lies a journal: a line a part with the hash of that part's rows. Whoever goes on keeps a part whose rows
still have their hash, and makes any other anew; so nothing hangs on the order in which a dying machine wrote its pages.
The price: what is kept is hashed once more when going on, a second for 1.5 GB.

One pass of a network that does not train over texts, its output on disk: pooled vectors, or states of every token.

Rows of equal token ids go through once, the longest first, and what comes out is written part by part to a file of the
cache, from where it is memory-mapped: neither making nor using it needs memory for the whole. A killed pass is gone on
with at its last whole part, and a process that wants what another one is computing waits for it.
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
from fullbake.core import console, runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say, warn
from fullbake.core.errors import SpaceFault
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, span_positions
from fullbake.models.inference import batch_inputs, padded_lengths, run_batches

ROWS_FILE: Final = "rows.safetensors"
JOURNAL_FILE: Final = "journal.jsonl"

StoredPrecision = Literal["fp32", "fp16"]

_DTYPES: Final[dict[StoredPrecision, tuple[str, type[np.floating[Any]]]]] = {
    "fp32": ("F32", np.float32),
    "fp16": ("F16", np.float16),
}
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True)
class FileShape:
    """What a file holds: `rows` x `width` numbers of a precision. fp16 keeps 11 bits of each number and half the
    bytes."""

    rows: int
    width: int
    precision: StoredPrecision = "fp32"

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return self.rows * self.width * np.dtype(self.dtype).itemsize

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """numpy's type of a number."""
        return _DTYPES[self.precision][1]


FileParts = Sequence[np.ndarray]
"""Which rows of the file each part makes, int64 (n,): every row in exactly one."""


def write_rows(folder: Path, shape: FileShape, parts: FileParts, make: Callable[[int], np.ndarray]) -> Iterator[int]:
    """Make the file in `folder`, part by part, and yield the number of each as it is there (also where it was already).

    make: number of a part -> its rows, float (n, width), in the order of `parts`; called only for what the folder does
    not hold yet. parts and what `make` gives have to be the same each time, which is for the caller's key to see to.
    The journal stays beside the file: a kill after the last part costs no more than one before it.
    """
    path, journal = folder / ROWS_FILE, folder / JOURNAL_FILE
    known = _known(journal) if path.is_file() else {}
    if not known:
        _create(path, shape)
        journal.write_bytes(b"")
    rows = _mapped(path, "r+")
    with journal.open("a", encoding="utf-8") as notes:
        for number, places in enumerate(parts):
            if number not in known or known[number] != _digest(rows[places]):
                rows[places] = make(number)
                notes.write(json.dumps({"part": number, "sha256": _digest(rows[places])}) + "\n")
                notes.flush()
            yield number


def map_rows(folder: Path) -> np.ndarray:
    """The file in `folder`, memory-mapped: (rows, width), float32 or float16. Nothing is read before it is used.

    What is written to the array stays in memory: the file is never changed. Raises OSError where it is missing.
    """
    return _mapped(folder / ROWS_FILE, "c")


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _known(journal: Path) -> dict[int, str]:
    """Hashes of the parts that were noted; a last line that was cut off is no note."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
    notes = [json.loads(line) for line in lines]
    return {note["part"]: note["sha256"] for note in notes}


def _create(path: Path, shape: FileShape) -> None:
    """A file of zeros: really written, since a map over a hole that a full disk cannot fill kills the process."""
    header = {"dtype": _DTYPES[shape.precision][0], "shape": [shape.rows, shape.width], "data_offsets": [0, shape.size]}
    text = json.dumps({"rows": header}).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, shape.size, len(_ZEROS)):
            file.write(_ZEROS[: shape.size - start])
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path, mode: Literal["r+", "c"]) -> np.ndarray:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))["rows"]
    dtype = dict(_DTYPES.values())[header["dtype"]]
    if not header["data_offsets"][1]:  # there is no map of nothing
        return np.empty(header["shape"], dtype)
    return np.asarray(np.memmap(path, dtype, mode, offset=8 + length, shape=tuple(header["shape"])))


FeatureForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs (batch, tokens) -> (batch, width), or (batch, tokens, width)."""

BATCHES_A_PART = 16
"""Forward passes of a part: what a kill costs at most, some seconds on two cores."""


@dataclass(frozen=True)
class Features:
    """What a network gave for rows of token ids.

    values: (lines, width), float32 or float16, memory-mapped where the cache holds it. places: the first line of each
    row, int64 (rows,); rows of equal ids share theirs. documents: which text each row is a window of, None where rows
    are texts.
    """

    values: np.ndarray
    places: np.ndarray
    documents: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Features":
        """These rows (positions), in this order, each a text of its own."""
        return Features(self.values, self.places[rows])

    @property
    def vectors(self) -> np.ndarray:
        """Where a row is one line: all rows in memory, float32 (rows, width)."""
        vectors: np.ndarray = self.values[self.places].astype(np.float32, copy=False)
        return vectors


@dataclass(frozen=True)
class FeatureExtraction:
    """One pass to make. forward: in eval mode. every_token: whether it gives the states of all tokens, not one vector
    a row. width: of what it gives. key: all that its output depends on. title: what the bar says."""

    forward: FeatureForward
    width: int
    key: str
    title: str
    tokens: TokensConfig
    pad_id: int
    every_token: bool = False
    precision: StoredPrecision = "fp32"


def extract_features(asked: FeatureExtraction, encode: Callable[[], Encoded], cache: Cache) -> Features | None:
    """The output from the cache, or by one pass; None where the cache cannot hold it, which a warning says.

    encode: gives the rows; called only where the cache does not know the key. Several processes share the pass and get
    its output in memory where it is one vector a row; the states of all tokens come None then, unless they are known.
    All of them have to call.
    """
    found = _found(asked, cache)
    if runtime.true_on_all_ranks(found is not None) and found is not None:
        say(f"{asked.title}: {len(found.places):,} rows found in the cache ({cache.root})")
        return found
    if runtime.world_size() > 1:
        return None if asked.every_token else _shared(asked, encode(), cache)
    _compute(asked, encode(), cache)
    return _found(asked, cache)


def extract_in_memory(asked: FeatureExtraction, encoded: Encoded) -> Features:
    """The same without a cache, of one vector a row. Several processes take the batches in turn; all have to call."""
    firsts, which = unique_rows(encoded)
    values = run_batches(
        asked.forward,
        encoded.take(firsts),
        tokens=asked.tokens,
        pad_id=asked.pad_id,
        device=runtime.device(),
        title=asked.title,
        shared=True,
    )
    return Features(values.astype(FileShape(0, 0, asked.precision).dtype, copy=False), which, encoded.documents)


def _shared(asked: FeatureExtraction, encoded: Encoded, cache: Cache) -> Features:
    stored = extract_in_memory(asked, encoded)
    if runtime.rank() == 0:
        rows, width = stored.values.shape
        shape = FileShape(rows, width, asked.precision)
        _keep(asked, shape, _places(stored.places, encoded), cache, lambda folder: _copy(folder, shape, stored.values))
    return stored


def _places(places: np.ndarray, encoded: Encoded) -> dict[str, np.ndarray]:
    return {"places": places} | ({} if encoded.documents is None else {"documents": encoded.documents})


def _copy(folder: Path, shape: FileShape, values: np.ndarray) -> None:
    list(write_rows(folder, shape, [np.arange(shape.rows)], lambda _: values))


def unique_rows(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """(the first row of each kind, in order, int64 (kinds,); the kind of each row, int64 (rows,)): rows of the same ids
    and segments are of one kind."""
    ids, bounds = encoded.input_ids.view(np.uint8), (encoded.offsets * encoded.input_ids.itemsize).tolist()
    types, offsets = encoded.token_type_ids, encoded.offsets.tolist()
    kinds: dict[tuple[bytes, bytes], int] = {}
    firsts: list[int] = []
    which = np.empty(len(encoded), np.int64)
    for row in range(len(encoded)):
        segments = b"" if types is None else types[offsets[row] : offsets[row + 1]].tobytes()
        which[row] = kinds.setdefault((ids[bounds[row] : bounds[row + 1]].tobytes(), segments), len(kinds))
        if which[row] == len(firsts):
            firsts.append(row)
    return np.array(firsts, np.int64), which


def _found(asked: FeatureExtraction, cache: Cache) -> Features | None:
    """The output under the key, None where the cache has none (or another process has just thrown it out)."""
    folder = cache.get(asked.key)
    try:
        return None if folder is None else _read(folder)
    except FileNotFoundError:
        return None


def _read(folder: Path) -> Features:
    known = storage.read_tensors(folder / "places.safetensors")
    return Features(map_rows(folder), known["places"], known.get("documents"))


def _compute(asked: FeatureExtraction, encoded: Encoded, cache: Cache) -> None:
    """Make the cache's entry, unless it cannot hold it."""
    firsts, which = unique_rows(encoded)
    rows = encoded.take(firsts)
    starts = rows.offsets[:-1] if asked.every_token else np.arange(len(rows))
    shape = FileShape(int(rows.offsets[-1]) if asked.every_token else len(rows), asked.width, asked.precision)
    _keep(asked, shape, _places(starts[which], encoded), cache, lambda folder: _fill(folder, shape, rows, asked))


def _keep(
    asked: FeatureExtraction,
    shape: FileShape,
    places: Mapping[str, np.ndarray],
    cache: Cache,
    fill: Callable[[Path], None],
) -> None:
    """Make the cache's entry by `fill`, unless the cache cannot hold it: the run can go on without."""
    if not cache.can_hold(shape.size):
        warn(f"{asked.title}: {console.format_size(shape.size)} are more than the cache may hold")
        return
    about = f"{asked.title}: {shape.rows:,} x {shape.width}, {shape.precision}"
    try:
        with cache.put_resumable(asked.key, about, shape.size) as folder:
            if folder is not None:
                fill(folder)
                storage.write_tensors(folder / "places.safetensors", places)
    except SpaceFault as fault:
        warn(f"{asked.title} are not kept on disk: {fault}")


def _fill(folder: Path, shape: FileShape, rows: Encoded, asked: FeatureExtraction) -> None:
    plan = inference_plan(padded_lengths(rows, asked.tokens), token_budget=asked.tokens.token_budget)
    parts = [plan[start : start + BATCHES_A_PART] for start in range(0, len(plan), BATCHES_A_PART)]
    places = [_lines(rows, np.concatenate(part), asked.every_token) for part in parts]

    def make(number: int) -> np.ndarray:
        return np.concatenate([_batch(rows, batch, asked) for batch in parts[number]])

    with bar(asked.title, len(rows), "texts") as advance:
        for number in write_rows(folder, shape, places, make):
            advance(sum(map(len, parts[number])))


def _lines(rows: Encoded, batch: np.ndarray, every_token: bool) -> np.ndarray:
    """The lines of the file that these rows take, row after row."""
    return rows.places(batch)[0] if every_token else batch


@torch.inference_mode()
def _batch(rows: Encoded, batch: np.ndarray, asked: FeatureExtraction) -> np.ndarray:
    """What the network gives for these rows, float32 (lines, width), padding left out."""
    inputs = batch_inputs(rows, batch, tokens=asked.tokens, pad_id=asked.pad_id, device=runtime.device())
    values = asked.forward(inputs).float().cpu().numpy()
    if not asked.every_token:
        return values
    lengths = rows.lengths[batch]
    flat = span_positions(np.arange(len(batch)) * values.shape[1], lengths)
    return values.reshape(-1, values.shape[2])[flat]


def gather_token_states(stored: Features, rows: np.ndarray, lengths: np.ndarray, width: int) -> Tensor:
    """The states of all tokens of these rows as one batch, float32 (rows, width, units), zeros where there is padding.

    lengths: tokens of each row. width: tokens that rows are padded to.
    """
    lines = span_positions(stored.places[rows], lengths)
    batch = np.zeros((len(rows) * width, stored.values.shape[1]), np.float32)
    batch[span_positions(np.arange(len(rows)) * width, lengths)] = stored.values[lines]
    return torch.from_numpy(batch.reshape(len(rows), width, -1))
