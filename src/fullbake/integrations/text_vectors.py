"""Frozen features by text: each text is computed once, whatever selection of the texts is asked for.

Cross-validation asks for another selection of the same texts in each fold. The cache of a training is known by all its
texts together, so that every fold would be a new entry. Here the entries hold the hash of each text, and a text that
any entry of the same base and settings knows is not computed again. The trade-off: a vector depends, by rounding (to
1e-5), on the texts it was first computed with; a training by `adapt` therefore does not read these entries.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fullbake.config.recipe import Recipe
from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import warn
from fullbake.core.errors import OutputError, SpaceFault, one_line
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import PAIR_SEPARATOR, Dataset
from fullbake.data.splits import Part, Parts
from fullbake.models import network
from fullbake.models.admission import admit
from fullbake.models.fast_layers import fast_layers
from fullbake.models.prediction import pool_windows
from fullbake.training.features import FeatureExtraction, extract_in_memory
from fullbake.training.job import (
    Job,
    encode_dataset,
    feature_cache,
    feature_key,
    initial_network,
    recipe_tokenizer,
    resolve_recipe,
)

TEXTS_PER_ENTRY: Final = 8192
"""Texts that are computed and kept together. A kill loses at most so many."""

_FILE: Final = "vectors.safetensors"
_HASH_BYTES: Final = 16
_MOST_SETTINGS: Final = 4
"""Bases and settings whose vectors stay in memory."""


@dataclass
class _Known:
    """The vectors that this process has read or computed for one base and its settings."""

    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Hash of a text -> (which of `vectors`, row)."""

    vectors: list[np.ndarray] = field(default_factory=list)
    """float32 or float16, each (texts, width)."""

    entries: set[str] = field(default_factory=set)
    """The entries of the cache that were read."""

    def add(self, hashes: list[bytes], vectors: np.ndarray) -> None:
        self.places.update({value: (len(self.vectors), row) for row, value in enumerate(hashes)})
        self.vectors.append(vectors)

    def rows(self, hashes: list[bytes]) -> np.ndarray:
        """Return the vectors of these texts, float32 (texts, width)."""
        found = [self.places[value] for value in hashes]
        rows: np.ndarray = np.stack([self.vectors[number][row] for number, row in found]).astype(np.float32, copy=False)
        return rows


_memory: OrderedDict[str, _Known] = OrderedDict()
_lock = threading.Lock()


def text_vectors(dataset: Dataset, recipe: Recipe, cache_dir: str | Path | None = None) -> np.ndarray:
    """Return the frozen features of each text, float32 (texts, width). Those of a text's windows are pooled.

    Args:
        dataset: The texts. Their labels do not matter.
        recipe: Names the base, its pooling, and how texts are cut.
        cache_dir: Folder of the caches; None for the default.

    Raises:
        RecipeError: A field does not fit the base.
        BaseModelError: The base cannot be found or used.
    """
    job = _open_base(recipe, cache_dir, _files_of(recipe.base), runtime.threads())
    pooling = job.recipe.head.pooling or job.recipe.head.kind
    settings = fingerprint(feature_key(job, pooling).of("texts"), job.recipe.tokens.window_pooling)[:32]
    hashes = _hash_texts(dataset)
    with _lock:
        known = _remember(settings)
        if any(value not in known.places for value in hashes):
            _read_entries(known, job.cache, settings)
        missing = {value: row for row, value in enumerate(hashes) if value not in known.places}
        rows = np.array(sorted(missing.values()), dtype=np.int64)
        for start in range(0, len(rows), TEXTS_PER_ENTRY):
            chunk = rows[start : start + TEXTS_PER_ENTRY]
            vectors = _compute(job, dataset.take(chunk))
            new = [hashes[row] for row in chunk]
            known.add(new, vectors)
            _keep_entry(known, job.cache, settings, new, vectors)
        return known.rows(hashes)


def _remember(settings: str) -> _Known:
    """Return what is known for these settings, and forget those that were not used for longest."""
    known = _memory.setdefault(settings, _Known())
    _memory.move_to_end(settings)
    while len(_memory) > _MOST_SETTINGS:
        _memory.popitem(last=False)
    return known


@lru_cache(maxsize=_MOST_SETTINGS)
def _open_base(recipe: Recipe, cache_dir: str | Path | None, files: object, threads: int) -> Job:  # noqa: ARG001
    """Return a job of the base without rows. files, threads: what else its features depend on, for the memory."""
    chosen = resolve_recipe(recipe.with_fields(way="frozen", head="linear", optimizer="lbfgs"))
    admit(chosen.base, cache_dir=cache_dir)
    empty = pa.chunked_array([], pa.large_string())
    names = ("0", "1")
    columns = recipe.data.columns
    rows = Dataset(empty, np.empty(0, np.int64), names, np.empty(0, np.int64), "X", columns)
    parts = Parts(Part(rows, np.empty(0, np.int64)), None, None)
    base = network.base_fingerprint(chosen.base)
    return Job(chosen, parts, recipe_tokenizer(chosen), base, feature_cache(cache_dir))


def _files_of(base: str) -> tuple[tuple[str, int, int], ...]:
    """Return (name, size, time) of each file of a base that is a folder: a changed base is another one."""
    folder = Path(base)
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file())


def _hash_texts(dataset: Dataset) -> list[bytes]:
    """Return the hash of each text, or of each pair. Unlike `Dataset.joined_texts` no two pairs can be confused."""
    digest = partial(hashlib.blake2b, digest_size=_HASH_BYTES)
    texts = dataset.texts.to_pylist()
    if dataset.text_pair is None:
        return [digest(text.encode()).digest() for text in texts]
    pairs = zip(texts, dataset.text_pair.to_pylist(), strict=True)
    return [digest(f"{len(one)}{PAIR_SEPARATOR}{one}{other}".encode()).digest() for one, other in pairs]


def _compute(job: Job, dataset: Dataset) -> np.ndarray:
    """Return the vectors of these texts by one pass of the base."""
    model: Any = initial_network(job)
    model.to(runtime.device()).eval()
    extraction = FeatureExtraction(
        partial(network.features, model),
        network.features_width(model),
        "not kept by this key",
        "features",
        job.recipe.tokens,
        job.tokenizer.pad_token_id,
        precision=job.recipe.training.cache_precision,
    )
    with fast_layers(model, first_token=network.reads_first_token(model), packed=True):
        found = extract_in_memory(extraction, encode_dataset(dataset, job))
    values: np.ndarray = found.values[found.starts]
    if found.documents is None:
        return values
    pooled = pool_windows(values.astype(np.float32), found.documents, job.recipe.tokens.window_pooling)
    return pooled.astype(values.dtype)


def _read_entries(known: _Known, cache: Cache, settings: str) -> None:
    """Read the entries of the cache that this process does not know yet."""
    for folder in sorted(cache.root.glob(f"texts-{settings}-*")):
        name = folder.name
        if name in known.entries or "." in name:  # a dot: not finished
            continue
        place = cache.get(name)
        if place is None:
            continue
        try:
            found = storage.read_tensors(place / _FILE)
        except FileNotFoundError:  # another process has just evicted it
            continue
        known.add([row.tobytes() for row in found["hashes"]], found["vectors"])
        known.entries.add(name)


def _keep_entry(known: _Known, cache: Cache, settings: str, hashes: list[bytes], vectors: np.ndarray) -> None:
    """Keep computed vectors in the cache. If there is no place for them, only warn."""
    name = f"texts-{settings}-{hashlib.sha256(b''.join(hashes)).hexdigest()[:32]}"
    known.entries.add(name)
    arrays = {"hashes": np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _HASH_BYTES), "vectors": vectors}
    description = f"features by text: {vectors.shape[0]:,} x {vectors.shape[1]}"
    try:
        cache.store(name, description, lambda folder: storage.write_tensors(folder / _FILE, arrays))
    except (SpaceFault, OutputError) as fault:
        warn(f"features are not kept on disk: {one_line(fault)}")
