"""A corpus: documents as tokenized sentences, in memory-mapped shards that are built once.

Streamed: text of one shard (32 million characters) is in memory at a time, however large the corpus. Each finished
shard is a cache entry of its own under a key of all it depends on (the sources' bytes, the tokenizer, the language, the
libraries), so a build that was killed goes on with the first shard that is missing. Which objective will read it plays
no part: one build serves them all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fullbake.core import console, runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar
from fullbake.core.errors import DataError, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.pretraining.corpus_tokens import CorpusTokenizer, TokenizedDocuments, open_tokenizers, tokenize_documents
from fullbake.pretraining.documents import Document, DocumentSource
from fullbake.pretraining.examples import Span

Ids = npt.NDArray[np.int64]

SHARD_CHARACTERS: Final = 32_000_000
HELD_OUT_TOKENS: Final = 50_000
"""At most so many are held out: enough for a loss to the second decimal, and cheap to score."""

CORPUS_FORMAT: Final = 1


@dataclass(frozen=True, eq=False)
class Shard:
    """Some documents (of a very long one its parts), memory-mapped.

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
    unknown_tokens, words, and what the sources counted."""

    shards: tuple[Shard, ...]
    fingerprint: str
    facts: dict[str, int]


def build_corpus(
    sources: Sequence[DocumentSource], reading: CorpusTokenizer, cache: Cache, *, processes: int | None = None
) -> Corpus:
    """The corpus of these sources, from the cache as far as it is there.

    processes: how many tokenize; None: one a processor where there is much to do. Raises DataError where there is no
    text, or what stands in a source cannot be read; SpaceFault where the cache cannot hold it.
    """
    key = fingerprint(
        CORPUS_FORMAT, [source.fingerprint for source in sources], reading.tokenizer, reading.language, _versions()
    )
    if runtime.rank() == 0 and _known(cache, key) is None:
        _build(sources, reading, cache, key, processes)
    runtime.wait_for_ranks()
    corpus = _known(cache, key)
    if corpus is None:
        raise _no_room(cache)
    return corpus


def _no_room(cache: Cache) -> SpaceFault:
    return SpaceFault(
        "the corpus does not fit into its cache",
        where=str(cache.root),
        expected=f"less than {console.format_size(cache.limit_bytes)}",
        remedy="Name another cache folder by --cache-dir, or take a smaller corpus.",
    )


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


def _build(
    sources: Sequence[DocumentSource], reading: CorpusTokenizer, cache: Cache, key: str, processes: int | None
) -> None:
    """Every shard that is not there yet, then the index."""
    sizes = [source.size for source in sources]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    documents = chain.from_iterable(source.read() for source in sources)
    counts: list[dict[str, int]] = []
    with open_tokenizers(reading, processes) as tokenized, bar("building the corpus", total, "characters") as advance:
        for number, lot in enumerate(_document_groups(documents)):
            folder = cache.get(_shard_key(key, number))
            counts.append(_counted(folder) if folder else _store_shard(cache, _shard_key(key, number), lot, tokenized))
            if not (cache.root / _shard_key(key, 0)).is_dir():  # the first of them had to make room for the last
                raise _no_room(cache)
            advance(sum(document.characters for document in lot))
    facts = _added_up(counts)
    if not facts.get("tokens"):
        raise _no_text(sources)
    facts |= _added_up([source.counts() for source in sources])
    with cache.put(f"{key}-index", f"corpus of {facts['documents']:,} documents") as folder:
        storage.write_json(folder / "facts.json", facts | {"shards": len(counts)})


def _added_up(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    facts: dict[str, int] = {}
    for counted in counts:
        facts |= {name: facts.get(name, 0) + count for name, count in counted.items()}
    return facts


def _counted(folder: Path) -> dict[str, int]:
    counted: dict[str, int] = storage.read_json(folder / "facts.json")
    return counted


def read_shard(source: DocumentSource, reading: CorpusTokenizer) -> tuple[Shard, dict[str, int]]:
    """A small source as one shard in memory, and its counts. Raises DataError where it holds no text."""
    arrays, facts = _joined(tokenize_documents(list(source.read()), reading))
    if not facts["tokens"]:
        raise _no_text([source])
    return Shard(**arrays), facts


def _no_text(sources: Sequence[DocumentSource]) -> DataError:
    return DataError(
        "there is no text",
        where=", ".join(source.name for source in sources),
        expected="at least one sentence",
        remedy="Check that the files were written whole, and that --text names the column of the texts.",
    )


def _store_shard(
    cache: Cache, key: str, lot: list[Document], tokenized: Callable[[list[Document]], Iterator[TokenizedDocuments]]
) -> dict[str, int]:
    """Write a shard; returns its counts."""
    arrays, facts = _joined(tokenized(lot))
    facts["documents"] -= sum(document.continues for document in lot)
    with cache.put(key, f"shard of {facts['documents']:,} documents") as folder:
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", arrays[name])
        storage.write_json(folder / "facts.json", facts)
    return facts


def _joined(parts: Iterable[TokenizedDocuments]) -> tuple[dict[str, Any], dict[str, int]]:
    """The arrays of a shard, and its counts."""
    tokenized = list(parts)
    names = ("input_ids", "word_starts", "hashes", "lengths", "sentences")
    arrays = {name: np.concatenate([getattr(part, name) for part in tokenized]) for name in names}
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


def _document_groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in lists of about a shard's characters."""
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += document.characters
        if size >= SHARD_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


# What is held out


def hold_out(corpus: Corpus, share: float) -> tuple[list[list[Span]], list[list[Span]]]:
    """(documents to train on, documents held out), for each shard their sentences.

    Whole documents of about that share of all tokens, at most HELD_OUT_TOKENS, by the order of their hashes: the same
    ones in any order of the corpus, and equal texts stand on one side. Where no document is small enough (a single
    book, a handful of posts), the last sentences of the one that has most; where all are of one sentence, one of them.
    Raises DataError for a corpus of one sentence, however often it stands there.
    """
    spans = [(number, span) for number, shard in enumerate(corpus.shards) for span in shard.documents()]
    hashes = np.concatenate([shard.hashes for shard in corpus.shards])
    sizes = np.concatenate([np.diff(shard.sentence_ends[shard.document_ends]) for shard in corpus.shards])
    sentences = np.array([last - first for _, (first, last) in spans])
    budget = min(share * corpus.facts["tokens"], HELD_OUT_TOKENS)
    out = _whole_documents(hashes, sizes, budget)
    edges = np.where(out, 0, sentences)
    if not out.any():
        number, span = spans[int(sentences.argmax())]
        longest = hashes == hashes[sentences.argmax()]
        tail = _tail_sentences(corpus.shards[number], span, share, budget)
        edges[longest] = np.maximum(0, sentences[longest] - tail)
    sides: tuple[list[list[Span]], list[list[Span]]] = ([[] for _ in corpus.shards], [[] for _ in corpus.shards])
    for (number, (first, last)), kept in zip(spans, edges.tolist(), strict=True):
        for side, span in zip(sides, ((first, first + kept), (first + kept, last)), strict=True):
            if span[0] < span[1]:
                side[number].append(span)
    if not any(sides[0]):
        raise DataError(
            "the corpus is too small",
            expected="two sentences at least: one to learn from, one to measure by",
            got="a single one" if len(spans) == 1 else f"{len(spans):,} times the same one",
        )
    return sides


def _tail_sentences(shard: Shard, span: Span, share: float, budget: float) -> int:
    """How many sentences at a document's end are held out: one at least, and not all where it has several."""
    ends = shard.sentence_ends[span[0] : span[1] + 1]
    tail = min(share * float(ends[-1] - ends[0]), budget)
    return int(np.clip((ends[:-1] >= ends[-1] - tail).sum(), 1, max(1, len(ends) - 2)))


def _whole_documents(hashes: npt.NDArray[np.uint64], sizes: Ids, budget: float) -> npt.NDArray[np.bool_]:
    """(documents,) which are held out whole: equal ones together, none where the first would take half of the budget.

    sizes: tokens of each.
    """
    _, group_of = np.unique(hashes, return_inverse=True)
    totals = np.bincount(group_of, sizes)
    small = totals <= budget / 2
    chosen = small & (np.where(small, totals, 0).cumsum() <= budget)
    return chosen[group_of]
