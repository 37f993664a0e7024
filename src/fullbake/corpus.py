"""A corpus: documents as tokenized sentences, in memory-mapped shards that are built once.

Streamed: text of one shard (32 million characters) is in memory at a time, however large the corpus. Each finished
shard is a cache entry of its own under a key of all it depends on (the sources' bytes, the tokenizer, the language, the
libraries), so a build that was killed goes on with the first shard that is missing. Which objective will read it plays
no part: one build serves them all. Imports neither torch nor transformers, since every process that tokenizes would.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from fullbake import runtime, storage
from fullbake.cache import Cache
from fullbake.documents import Document, Source
from fullbake.duplicates import normalize
from fullbake.errors import DataError, SpaceFault
from fullbake.examples import Span
from fullbake.hashing import fingerprint
from fullbake.progress import bar
from fullbake.sentences import split_sentences

Ids = npt.NDArray[np.int64]

SHARD_CHARACTERS: Final = 32_000_000
PORTION_CHARACTERS: Final = 500_000
"""What goes to a process at once."""

LONGEST_WORD: Final = 10
"""Tokens. What the tokenizer takes for a longer word is none (a sentence of Thai or Chinese under a pre-tokenizer that
splits at white space): each of its tokens counts as a word."""

HELD_OUT_TOKENS: Final = 50_000
"""At most so many are held out: enough for a loss to the second decimal, and cheap to score."""

FORMAT: Final = 1


@dataclass(frozen=True, eq=False)
class Shard:
    """Some documents, memory-mapped.

    input_ids: (tokens,). word_starts: (tokens,) True on the first token of each word. sentence_ends: (sentences + 1,)
    where sentences start in the tokens, and the end. document_ends: (documents + 1,) where documents start in the
    sentences, and the end. hashes: (documents,) of each normalized text.
    """

    input_ids: npt.NDArray[Any]
    word_starts: npt.NDArray[np.bool_]
    sentence_ends: Ids
    document_ends: Ids
    hashes: npt.NDArray[np.uint64]

    def documents(self) -> list[Span]:
        """The sentences of each document."""
        ends = self.document_ends.tolist()
        return list(pairwise(ends))


ARRAYS: Final = ("input_ids", "word_starts", "sentence_ends", "document_ends", "hashes")


@dataclass(frozen=True, eq=False)
class Corpus:
    """fingerprint: of all it depends on. facts: documents, sentences, tokens, single_sentence_documents,
    unknown_tokens, words."""

    shards: tuple[Shard, ...]
    fingerprint: str
    facts: dict[str, int]


@dataclass(frozen=True)
class Reading:
    """How text becomes tokens: the tokenizer's own JSON, the id of its unknown token, the sentences' language."""

    tokenizer: str
    unknown_id: int | None
    language: str


def build_corpus(sources: Sequence[Source], reading: Reading, cache: Cache, *, processes: int | None = None) -> Corpus:
    """The corpus of these sources, from the cache as far as it is there.

    processes: how many tokenize; None: one a processor where there is much to do. Raises DataError where there is no
    text, or what stands in a source cannot be read; SpaceFault where the cache cannot hold it.
    """
    key = fingerprint(
        FORMAT, [source.fingerprint for source in sources], reading.tokenizer, reading.language, _versions()
    )
    if runtime.rank() == 0 and _known(cache, key) is None:
        _build(sources, reading, cache, key, processes)
    runtime.wait_for_ranks()
    corpus = _known(cache, key)
    if corpus is None:
        raise SpaceFault(
            "the corpus does not fit into its cache",
            where=str(cache.root),
            expected=f"less than {storage.amount(cache.limit_bytes)}",
            remedy="Name another cache folder by --cache-dir, or take a smaller corpus.",
        )
    return corpus


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("tokenizers", "sentencex")}


def _known(cache: Cache, key: str) -> Corpus | None:
    """The whole corpus, None where a part of it is missing."""
    index = cache.get(f"{key}-index")
    if index is None:
        return None
    facts = storage.read_json(index / "facts.json")
    folders = [cache.get(_shard_key(key, number)) for number in range(facts.pop("shards"))]
    shards = tuple(_load(folder) for folder in folders if folder is not None)
    return Corpus(shards, key, facts) if len(shards) == len(folders) else None


def _shard_key(key: str, number: int) -> str:
    return f"{key}-{number:05d}"


def _load(folder: Path) -> Shard:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return Shard(**arrays)


def _build(sources: Sequence[Source], reading: Reading, cache: Cache, key: str, processes: int | None) -> None:
    """Every shard that is not there yet, then the index."""
    sizes = [source.size for source in sources]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    documents = chain.from_iterable(source.read() for source in sources)
    facts: dict[str, int] = {}
    shards = 0
    with _tokenizers(reading, processes, total) as tokenize, bar("building the corpus", total, "characters") as advance:
        for shards, lot in enumerate(_lots(documents, SHARD_CHARACTERS), 1):
            folder = cache.get(_shard_key(key, shards - 1))
            counted = _counted(folder) if folder else _put(cache, _shard_key(key, shards - 1), tokenize(lot))
            facts = {name: facts.get(name, 0) + count for name, count in counted.items()}
            advance(sum(document.characters for document in lot))
    if not facts.get("tokens"):
        raise DataError(
            "the corpus holds no text",
            where=", ".join(source.name for source in sources),
            expected="at least one sentence",
            remedy="Check that the files were written whole, and that --text names the column of the texts.",
        )
    with cache.put(f"{key}-index", f"corpus of {facts['documents']:,} documents") as folder:
        storage.write_json(folder / "facts.json", facts | {"shards": shards})


def _counted(folder: Path) -> dict[str, int]:
    counted: dict[str, int] = storage.read_json(folder / "facts.json")
    return counted


def read_shard(source: Source, reading: Reading) -> tuple[Shard, dict[str, int]]:
    """A small source as one shard in memory, and its counts."""
    _start(reading, alone=True)
    arrays, facts = _joined(map(_tokenize, _portions(list(source.read()))))
    return Shard(**arrays), facts


def _put(cache: Cache, key: str, parts: Iterable["_Tokenized"]) -> dict[str, int]:
    """Write a shard; returns its counts."""
    arrays, facts = _joined(parts)
    with cache.put(key, f"shard of {facts['documents']:,} documents") as folder:
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", arrays[name])
        storage.write_json(folder / "facts.json", facts)
    return facts


def _joined(parts: Iterable["_Tokenized"]) -> tuple[dict[str, Any], dict[str, int]]:
    """The arrays of a shard, and its counts."""
    tokenized = list(parts)
    arrays = {name: np.concatenate([getattr(part, name) for part in tokenized]) for name in _Tokenized.JOINED}
    counts, lengths = arrays.pop("sentences"), arrays.pop("lengths")
    arrays["sentence_ends"], arrays["document_ends"] = _ends(lengths), _ends(counts)
    facts = {
        "documents": len(counts),
        "sentences": len(lengths),
        "tokens": len(arrays["input_ids"]),
        "words": int(arrays["word_starts"].sum()),
        "single_sentence_documents": int((counts == 1).sum()),
        "unknown_tokens": sum(part.unknown for part in tokenized),
    }
    return arrays, facts


def _ends(lengths: npt.NDArray[Any]) -> Ids:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _lots(documents: Iterator[Document], characters: int) -> Iterator[list[Document]]:
    """Documents in lists of about so many characters."""
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += document.characters
        if size >= characters:
            yield held
            held, size = [], 0
    if held:
        yield held


# Tokenizing, in this process or in several


@dataclass(frozen=True, eq=False)
class _Tokenized:
    """A portion of documents. lengths: tokens of each sentence. sentences: of each document; none has 0."""

    JOINED = ("input_ids", "word_starts", "hashes", "lengths", "sentences")

    input_ids: npt.NDArray[Any]
    word_starts: npt.NDArray[np.bool_]
    hashes: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int32]
    sentences: npt.NDArray[np.int32]
    unknown: int


@contextmanager
def _tokenizers(reading: Reading, processes: int | None, size: int | None) -> Iterator[Any]:
    """Yields a function: documents -> their tokenized portions, in order."""
    if processes is None:
        processes = runtime.processors() if size is None or size > SHARD_CHARACTERS // 2 else 1
    if processes == 1:
        _start(reading, alone=True)
        yield lambda lot: map(_tokenize, _portions(lot))
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (reading,)) as pool:
        yield lambda lot: _in_order(pool, _portions(lot), 2 * processes)


def _in_order(pool: ProcessPoolExecutor, portions: Iterator[Any], ahead: int) -> Iterator[_Tokenized]:
    """Results in order, with a bounded number under way: text waits in one place only."""
    pending = [pool.submit(_tokenize, portion) for portion in islice(portions, ahead)]
    while pending:
        yield pending.pop(0).result()
        pending.extend(pool.submit(_tokenize, portion) for portion in islice(portions, 1))


def _portions(lot: list[Document]) -> Iterator[list[tuple[str, ...]]]:
    return ([document.paragraphs for document in part] for part in _lots(iter(lot), PORTION_CHARACTERS))


_at_work: dict[str, Any] = {}
"""What a tokenizing process holds: set once when it starts."""


def _start(reading: Reading, alone: bool = False) -> None:
    if not alone:
        runtime.tokenize_alone()
    tokenizer = Tokenizer.from_str(reading.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _at_work.update(tokenizer=tokenizer, reading=reading)


def _tokenize(portion: list[tuple[str, ...]]) -> _Tokenized:
    tokenizer, reading = _at_work["tokenizer"], _at_work["reading"]
    split = [
        [s for paragraph in paragraphs for s in split_sentences(paragraph, reading.language)] for paragraphs in portion
    ]
    encodings = tokenizer.encode_batch(list(chain.from_iterable(split)), add_special_tokens=False)
    lengths = np.fromiter(map(len, encodings), np.int32, len(encodings))
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, int(lengths.sum()))
    words = np.fromiter(
        (-1 if word is None else word for encoding in encodings for word in encoding.word_ids), np.int32, len(ids)
    )
    owners = np.repeat(np.arange(len(split)), [len(sentences) for sentences in split])
    counts = np.bincount(owners[lengths > 0], minlength=len(split)).astype(np.int32)
    hashes = np.array([_hash(paragraphs) for paragraphs in portion], np.uint64)
    small = tokenizer.get_vocab_size() <= 1 << 16
    return _Tokenized(
        ids.astype(np.uint16) if small else ids,
        _word_starts(words, lengths),
        hashes[counts > 0],
        lengths[lengths > 0],
        counts[counts > 0],
        0 if reading.unknown_id is None else int((ids == reading.unknown_id).sum()),
    )


def _hash(paragraphs: tuple[str, ...]) -> int:
    digest = hashlib.blake2b(normalize(" ".join(paragraphs)).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _word_starts(words: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """(tokens,). words: number of each token's word within its sentence, (tokens,). lengths: tokens of each
    sentence."""
    starts = np.ones(len(words), bool)
    starts[1:] = words[1:] != words[:-1]
    starts[_ends(lengths[lengths > 0])[:-1]] = True
    sizes = np.diff(np.append(np.flatnonzero(starts), len(words)))
    starts |= np.repeat(sizes > LONGEST_WORD, sizes)
    return starts


# What is held out


def hold_out(corpus: Corpus, share: float) -> tuple[list[list[Span]], list[list[Span]]]:
    """(documents to train on, documents held out), for each shard their sentences.

    Whole documents of about that share of all tokens, at most HELD_OUT_TOKENS, by the order of their hashes: the same
    ones in any order of the corpus, and equal texts stand on one side. Where no document is small enough (a single
    book), the last sentences of one. Raises DataError for a corpus of one sentence.
    """
    spans = [(number, span) for number, shard in enumerate(corpus.shards) for span in shard.documents()]
    hashes = np.concatenate([shard.hashes for shard in corpus.shards])
    sizes = np.concatenate([np.diff(shard.sentence_ends[shard.document_ends]) for shard in corpus.shards])
    budget = min(share * corpus.facts["tokens"], HELD_OUT_TOKENS)
    order = np.argsort(hashes, kind="stable")
    small = order[sizes[order] <= budget / 2]
    chosen = np.isin(hashes, hashes[small[np.cumsum(sizes[small]) <= budget]])
    if not chosen.any() or chosen.all():
        return _hold_out_tail(spans, len(corpus.shards), share)
    sides: tuple[list[list[Span]], list[list[Span]]] = ([[] for _ in corpus.shards], [[] for _ in corpus.shards])
    for (number, span), out in zip(spans, chosen.tolist(), strict=True):
        sides[out][number].append(span)
    return sides


def _hold_out_tail(
    spans: list[tuple[int, Span]], shards: int, share: float
) -> tuple[list[list[Span]], list[list[Span]]]:
    """The last sentences of the document that has most of them."""
    longest = max(range(len(spans)), key=lambda place: spans[place][1][1] - spans[place][1][0])
    number, (first, last) = spans[longest]
    if last - first < 2:
        raise DataError(
            "the corpus is too small",
            expected="two sentences at least: one to learn from, one to measure by",
            got=f"{len(spans):,} documents of one sentence each",
        )
    edge = last - max(1, round(share * (last - first)))
    kept: list[list[Span]] = [[] for _ in range(shards)]
    for place, (owner, span) in enumerate(spans):
        kept[owner].append((first, edge) if place == longest else span)
    held: list[list[Span]] = [[] for _ in range(shards)]
    held[number].append((edge, last))
    return kept, held
