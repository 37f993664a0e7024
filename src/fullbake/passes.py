"""One pass of a network that does not train over texts, its output on disk: pooled vectors, or states of every token.

Rows of equal token ids go through once, the longest first, and what comes out is written part by part to a file of the
cache, from where it is memory-mapped: neither making nor using it needs memory for the whole. A killed pass is gone on
with at its last whole part, and a process that wants what another one is computing waits for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fullbake import rowfiles
from fullbake.config.sections import TokensConfig
from fullbake.core import console, runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say, warn
from fullbake.core.errors import SpaceFault
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, spans_of
from fullbake.models.inference import inputs_for, padded_lengths, run_over
from fullbake.rowfiles import Precision, Shape

Forward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs (batch, tokens) -> (batch, width), or (batch, tokens, width)."""

PART_BATCHES = 16
"""Forward passes of a part: what a kill costs at most, some seconds on two cores."""


@dataclass(frozen=True)
class Stored:
    """What a network gave for rows of token ids.

    values: (lines, width), float32 or float16, memory-mapped where the cache holds it. places: the first line of each
    row, int64 (rows,); rows of equal ids share theirs. documents: which text each row is a window of, None where rows
    are texts.
    """

    values: np.ndarray
    places: np.ndarray
    documents: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Stored":
        """These rows (positions), in this order, each a text of its own."""
        return Stored(self.values, self.places[rows])

    @property
    def vectors(self) -> np.ndarray:
        """Where a row is one line: all rows in memory, float32 (rows, width)."""
        vectors: np.ndarray = self.values[self.places].astype(np.float32, copy=False)
        return vectors


@dataclass(frozen=True)
class Pass:
    """One pass to make. forward: in eval mode. every_token: whether it gives the states of all tokens, not one vector
    a row. width: of what it gives. key: all that its output depends on. title: what the bar says."""

    forward: Forward
    width: int
    key: str
    title: str
    tokens: TokensConfig
    pad_id: int
    every_token: bool = False
    precision: Precision = "fp32"


def stored_output(asked: Pass, encode: Callable[[], Encoded], cache: Cache) -> Stored | None:
    """The output from the cache, or by one pass; None where the cache cannot hold it, which a warning says.

    encode: gives the rows; called only where the cache does not know the key. Several processes share the pass and get
    its output in memory where it is one vector a row; the states of all tokens come None then, unless they are known.
    All of them have to call.
    """
    found = _found(asked, cache)
    if runtime.all_ranks(found is not None) and found is not None:
        say(f"{asked.title}: {len(found.places):,} rows found in the cache ({cache.root})")
        return found
    if runtime.world_size() > 1:
        return None if asked.every_token else _shared(asked, encode(), cache)
    _compute(asked, encode(), cache)
    return _found(asked, cache)


def output_in_memory(asked: Pass, encoded: Encoded) -> Stored:
    """The same without a cache, of one vector a row. Several processes take the batches in turn; all have to call."""
    firsts, which = distinct(encoded)
    values = run_over(
        asked.forward,
        encoded.take(firsts),
        tokens=asked.tokens,
        pad_id=asked.pad_id,
        device=runtime.device(),
        title=asked.title,
        shared=True,
    )
    return Stored(values.astype(Shape(0, 0, asked.precision).dtype, copy=False), which, encoded.documents)


def _shared(asked: Pass, encoded: Encoded, cache: Cache) -> Stored:
    stored = output_in_memory(asked, encoded)
    if runtime.rank() == 0:
        rows, width = stored.values.shape
        shape = Shape(rows, width, asked.precision)
        _keep(asked, shape, _places(stored.places, encoded), cache, lambda folder: _copy(folder, shape, stored.values))
    return stored


def _places(places: np.ndarray, encoded: Encoded) -> dict[str, np.ndarray]:
    return {"places": places} | ({} if encoded.documents is None else {"documents": encoded.documents})


def _copy(folder: Path, shape: Shape, values: np.ndarray) -> None:
    list(rowfiles.fill(folder, shape, [np.arange(shape.rows)], lambda _: values))


def distinct(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
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


def _found(asked: Pass, cache: Cache) -> Stored | None:
    """The output under the key, None where the cache has none (or another process has just thrown it out)."""
    folder = cache.get(asked.key)
    try:
        return None if folder is None else _read(folder)
    except FileNotFoundError:
        return None


def _read(folder: Path) -> Stored:
    known = storage.read_tensors(folder / "places.safetensors")
    return Stored(rowfiles.map_rows(folder), known["places"], known.get("documents"))


def _compute(asked: Pass, encoded: Encoded, cache: Cache) -> None:
    """Make the cache's entry, unless it cannot hold it."""
    firsts, which = distinct(encoded)
    rows = encoded.take(firsts)
    starts = rows.offsets[:-1] if asked.every_token else np.arange(len(rows))
    shape = Shape(int(rows.offsets[-1]) if asked.every_token else len(rows), asked.width, asked.precision)
    _keep(asked, shape, _places(starts[which], encoded), cache, lambda folder: _fill(folder, shape, rows, asked))


def _keep(
    asked: Pass, shape: Shape, places: Mapping[str, np.ndarray], cache: Cache, fill: Callable[[Path], None]
) -> None:
    """Make the cache's entry by `fill`, unless the cache cannot hold it: the run can go on without."""
    if not cache.holds(shape.size):
        warn(f"{asked.title}: {console.amount(shape.size)} are more than the cache may hold")
        return
    about = f"{asked.title}: {shape.rows:,} x {shape.width}, {shape.precision}"
    try:
        with cache.growing(asked.key, about, shape.size) as folder:
            if folder is not None:
                fill(folder)
                storage.write_tensors(folder / "places.safetensors", places)
    except SpaceFault as fault:
        warn(f"{asked.title} are not kept on disk: {fault}")


def _fill(folder: Path, shape: Shape, rows: Encoded, asked: Pass) -> None:
    plan = inference_plan(padded_lengths(rows, asked.tokens), token_budget=asked.tokens.token_budget)
    parts = [plan[start : start + PART_BATCHES] for start in range(0, len(plan), PART_BATCHES)]
    places = [_lines(rows, np.concatenate(part), asked.every_token) for part in parts]

    def make(number: int) -> np.ndarray:
        return np.concatenate([_batch(rows, batch, asked) for batch in parts[number]])

    with bar(asked.title, len(rows), "texts") as advance:
        for number in rowfiles.fill(folder, shape, places, make):
            advance(sum(map(len, parts[number])))


def _lines(rows: Encoded, batch: np.ndarray, every_token: bool) -> np.ndarray:
    """The lines of the file that these rows take, row after row."""
    return rows.places(batch)[0] if every_token else batch


@torch.inference_mode()
def _batch(rows: Encoded, batch: np.ndarray, asked: Pass) -> np.ndarray:
    """What the network gives for these rows, float32 (lines, width), padding left out."""
    inputs = inputs_for(rows, batch, tokens=asked.tokens, pad_id=asked.pad_id, device=runtime.device())
    values = asked.forward(inputs).float().cpu().numpy()
    if not asked.every_token:
        return values
    lengths = rows.lengths[batch]
    flat = spans_of(np.arange(len(batch)) * values.shape[1], lengths)
    return values.reshape(-1, values.shape[2])[flat]


def gathered(stored: Stored, rows: np.ndarray, lengths: np.ndarray, width: int) -> Tensor:
    """The states of all tokens of these rows as one batch, float32 (rows, width, units), zeros where there is padding.

    lengths: tokens of each row. width: tokens that rows are padded to.
    """
    lines = spans_of(stored.places[rows], lengths)
    batch = np.zeros((len(rows) * width, stored.values.shape[1]), np.float32)
    batch[spans_of(np.arange(len(rows)) * width, lengths)] = stored.values[lines]
    return torch.from_numpy(batch.reshape(len(rows), width, -1))
