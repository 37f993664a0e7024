"""Build a corpus: documents as tokenized sentences, in memory-mapped shards that are built once and cached.

Text is streamed: only one shard (32 million characters) is in memory at a time. Each finished shard is a cache entry
under a key of everything that it depends on (the sources' bytes, the tokenizer, the language, the libraries), so a
build that was killed continues with the first missing shard. The objective is not part of the key: one build serves
all objectives.

Several processes that train together build the shards in turn: each reads all of the text, which is cheap, and
tokenizes every so many-th shard. What is in shard k depends on the text alone, so the order of training does not depend
on the number of readers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from fullbake.core import console, ranks, runtime, storage
from fullbake.core.cache import Cache, deleted_entry_error, made_again
from fullbake.core.console import bar
from fullbake.core.errors import DataError, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.pretraining.corpus_tokens import (
    CORPUS_CHUNK_CHARACTERS,
    PARALLEL_CHARACTERS,
    CorpusTokenizer,
    TokenizedDocuments,
    open_tokenizers,
    tokenize_documents,
)
from fullbake.pretraining.documents import Document, DocumentSource
from fullbake.pretraining.examples import Span
from fullbake.training.elastic import check_all_ranks_see

Ids = npt.NDArray[np.int64]

SHARD_CHARACTERS: Final = 32_000_000
"""How many characters of text a shard holds, about."""

HELD_OUT_TOKENS: Final = 50_000
"""How many tokens are held out at most: enough for a loss to the second decimal, and cheap to evaluate."""

CORPUS_FORMAT: Final = 1
"""Part of the cache key: raise it when a shard's content changes."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Some documents (or parts of a very long one) as memory-mapped arrays."""

    input_ids: npt.NDArray[Any]
    """(tokens,) without special tokens."""

    word_starts: npt.NDArray[np.bool_]
    """(tokens,) True on the first token of each word."""

    sentence_ends: Ids
    """(sentences + 1,) where each sentence starts in the tokens, and the end of the last."""

    document_ends: Ids
    """(documents + 1,) where each document starts in the sentences, and the end of the last."""

    hashes: npt.NDArray[np.uint64]
    """(documents,) hash of each normalized text."""

    def documents(self) -> list[Span]:
        """Return the sentences of each document."""
        ends = self.document_ends.tolist()
        return list(pairwise(ends))


ARRAYS: Final = ("input_ids", "word_starts", "sentence_ends", "document_ends", "hashes")
"""The arrays of a shard; each is a file in its folder."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """All shards of some sources."""

    shards: tuple[Shard, ...]
    """In the order of the text."""

    fingerprint: str
    """Hash of everything that the corpus depends on."""

    facts: dict[str, int]
    """Numbers of documents, sentences, tokens, words, single_sentence_documents and unknown_tokens, and the sources'
    own counts."""


def build_corpus(
    sources: Sequence[DocumentSource],
    tokenizer: CorpusTokenizer,
    cache: Cache,
    *,
    processes: int | None = None,
    shard_characters: int = SHARD_CHARACTERS,
    chunk_characters: int = CORPUS_CHUNK_CHARACTERS,
) -> Corpus:
    """Return the corpus of some sources; shards that are in the cache are not built again.

    Args:
        sources: read one after another.
        tokenizer: how to tokenize.
        cache: where the shards are kept.
        processes: how many processes tokenize; None starts one per processor if there is much text.
        shard_characters: how many characters of text a shard holds, about.
        chunk_characters: how many characters are tokenized at once; it changes no result.

    Raises:
        DataError: there is no text, or a source cannot be read.
        SpaceFault: the corpus is larger than the cache may be.
    """
    key = fingerprint(
        CORPUS_FORMAT,
        [source.fingerprint for source in sources],
        tokenizer.tokenizer,
        tokenizer.language,
        {name: metadata.version(name) for name in ("tokenizers", "sentencex")},
        # another shard size is another corpus; the default is left out, so that existing caches stay valid
        *([] if shard_characters == SHARD_CHARACTERS else [shard_characters]),
    )

    several = runtime.world_size() > 1
    usual = max(1, runtime.count_processors() // runtime.local_world_size())
    count, parallel_from = (usual, PARALLEL_CHARACTERS) if processes is None else (processes, 0)

    def build(reader: int = 0, readers: int = 1) -> None:
        with open_tokenizers(
            tokenizer, count, parallel_from=parallel_from, chunk_characters=chunk_characters
        ) as tokenize:
            build_shards(sources, tokenize, cache, key, shard_characters, reader=reader, readers=readers)

    if not ranks.true_on_all_ranks(_read_corpus(cache, key) is not None):
        if several:
            _check_cache_is_shared(cache, key)
            made_again(lambda: build(runtime.rank(), runtime.world_size()))
            ranks.wait_for_ranks()
        if runtime.rank() == 0 and _read_corpus(cache, key) is None:
            made_again(build)
    ranks.wait_for_ranks()
    corpus = _read_corpus(cache, key)
    if corpus is None:
        raise _too_large(cache)
    return corpus


def _check_cache_is_shared(cache: Cache, key: str) -> None:
    """Refuse a cache that some processes do not share, before hours of work are put into it."""
    begun = f"{key}-begun"
    if runtime.rank() == 0:
        cache.store(begun, "corpus that is being built", lambda folder: storage.write_json(folder / "begun.json", {}))
    ranks.wait_for_ranks()
    check_all_ranks_see(cache.has(begun), cache.root)


def read_shard(source: DocumentSource, tokenizer: CorpusTokenizer) -> tuple[Shard, dict[str, int]]:
    """Tokenize a small source into one shard in memory.

    Returns:
        The shard, and its counts as in `Corpus.facts`.

    Raises:
        DataError: the source holds no text.
    """
    arrays, facts = _join_chunks(tokenize_documents(list(source.read()), tokenizer))
    if not facts["tokens"]:
        raise _no_text([source])
    return Shard(**arrays), facts


# Reading and building shards


Tokenize = Callable[[list[Document]], Iterator[TokenizedDocuments]]
"""From documents to their tokenized chunks, in order."""


def _read_corpus(cache: Cache, key: str) -> Corpus | None:
    """Return the whole corpus from the cache, None if a part of it is missing."""
    index = cache.get(f"{key}-index")
    if index is None:
        return None
    facts = storage.read_json(index / "facts.json")
    folders = [cache.get(_shard_key(key, number)) for number in range(facts.pop("shards"))]
    shards = tuple(_load_shard(folder) for folder in folders if folder is not None)
    return Corpus(shards, key, facts) if len(shards) == len(folders) else None


def _shard_key(key: str, number: int) -> str:
    return f"{key}-{number:05d}"


def _load_shard(folder: Path) -> Shard:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return Shard(**arrays)


def build_shards(
    sources: Sequence[DocumentSource],
    tokenize: Tokenize,
    cache: Cache,
    key: str,
    shard_characters: int,
    *,
    reader: int = 0,
    readers: int = 1,
) -> None:
    """Build those shards of one reader that are missing in the cache; a single reader builds the index too.

    Args:
        sources: all of the text.
        tokenize: from documents to tokenized chunks.
        cache: where the shards are kept.
        key: the corpus' key.
        shard_characters: how many characters of text a shard holds, about.
        reader: number of this reader, from 0: it builds shards `reader`, `reader + readers` and so on.
        readers: how many build shards of this corpus.

    Raises:
        DataError: there is no text, or a source cannot be read.
        SpaceFault: the corpus is larger than the cache may be.
    """
    sizes = [source.size for source in sources]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    documents = chain.from_iterable(source.read() for source in sources)
    counts: list[dict[str, int]] = []
    stored = 0
    with bar("building the corpus", total, "characters") as advance:
        for number, group in enumerate(_group_documents(documents, shard_characters)):
            if number % readers == reader:
                name = _shard_key(key, number)
                folder = cache.get(name) or _store_shard(cache, name, group, tokenize)
                counts.append(storage.read_json(folder / "facts.json"))
                stored += sum(path.stat().st_size for path in folder.iterdir())
                if stored * readers > cache.limit_bytes:  # the cache drops the first shard to make room for the last
                    raise _too_large(cache)
                if not cache.has(_shard_key(key, reader)):
                    raise deleted_entry_error(cache.root)
            advance(sum(document.characters for document in group))
    if readers > 1:
        return
    facts = _add_counts(counts)
    if not facts.get("tokens"):
        raise _no_text(sources)
    facts |= _add_counts([source.counts() for source in sources])

    def write(folder: Path) -> None:
        storage.write_json(folder / "facts.json", facts | {"shards": len(counts)})

    cache.store(f"{key}-index", f"corpus of {facts['documents']:,} documents", write)


def _group_documents(documents: Iterator[Document], shard_characters: int) -> Iterator[list[Document]]:
    """Yield the documents of each shard."""
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += document.characters
        if size >= shard_characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def _store_shard(cache: Cache, key: str, documents: list[Document], tokenize: Tokenize) -> Path:
    """Tokenize documents, write them as a shard with its counts, and return its folder."""
    arrays, facts = _join_chunks(tokenize(documents))
    facts["documents"] -= sum(document.continues for document in documents)

    def write(folder: Path) -> None:
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", arrays[name])
        storage.write_json(folder / "facts.json", facts)

    folder = cache.store(key, f"shard of {facts['documents']:,} documents", write)
    if folder is None:
        raise _too_large(cache)
    return folder


def _join_chunks(chunks: Iterable[TokenizedDocuments]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the arrays of a shard, and its counts."""
    tokenized = list(chunks)
    names = ("input_ids", "word_starts", "hashes", "lengths", "sentences")
    arrays = {name: np.concatenate([getattr(chunk, name) for chunk in tokenized]) for name in names}
    counts, lengths = arrays.pop("sentences"), arrays.pop("lengths")
    arrays["sentence_ends"], arrays["document_ends"] = _cumulate(lengths), _cumulate(counts)
    facts = {
        "documents": len(counts),
        "sentences": len(lengths),
        "tokens": len(arrays["input_ids"]),
        "words": int(arrays["word_starts"].sum()),
        "single_sentence_documents": int((counts == 1).sum()),
        "unknown_tokens": sum(chunk.unknown for chunk in tokenized),
    }
    return arrays, facts


def _cumulate(lengths: npt.NDArray[Any]) -> Ids:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _add_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    facts: dict[str, int] = {}
    for part in counts:
        facts |= {name: facts.get(name, 0) + count for name, count in part.items()}
    return facts


def _too_large(cache: Cache) -> SpaceFault:
    return SpaceFault(
        "the corpus does not fit into its cache",
        where=str(cache.root),
        expected=f"less than {console.format_size(cache.limit_bytes)}",
        remedy="Use a smaller corpus, or another cache folder: --cache-dir.",
    )


def _no_text(sources: Sequence[DocumentSource]) -> DataError:
    return DataError(
        "there is no text",
        where=", ".join(source.name for source in sources),
        expected="at least one sentence",
        remedy="Check that the files are complete, and that --text names the column with the texts.",
    )


# Holding out documents for evaluation


def hold_out(
    corpus: Corpus, share: float, max_tokens: int = HELD_OUT_TOKENS
) -> tuple[list[Sequence[Span]], list[Sequence[Span]]]:
    """Divide a corpus into documents to train on and documents to evaluate on.

    Whole documents are held out, in the order of their hashes: the same documents in any order of the corpus, and equal
    texts are on the same side. If every document is too large for that (a single book, a handful of posts), the last
    sentences of the document with the most sentences are held out; if each document is one sentence, one of them.

    Args:
        corpus: the corpus.
        share: which share of all tokens to hold out, about.
        max_tokens: how many tokens to hold out at most.

    Returns:
        (to train on, held out), each with the documents' sentences for every shard.

    Raises:
        DataError: the corpus is a single sentence, or the same sentence several times.
    """
    hashes = np.concatenate([shard.hashes for shard in corpus.shards])
    sizes = np.concatenate([np.diff(shard.sentence_ends[shard.document_ends]) for shard in corpus.shards])
    sentences = np.concatenate([np.diff(shard.document_ends) for shard in corpus.shards])
    begins = _cumulate(np.array([len(shard.hashes) for shard in corpus.shards]))
    budget = min(share * corpus.facts["tokens"], max_tokens)
    held_out = _choose_documents(hashes, sizes, budget)
    train_sentences = np.where(held_out, 0, sentences)
    if not held_out.any():
        most = int(sentences.argmax())
        shard = corpus.shards[int(np.searchsorted(begins, most, side="right")) - 1]
        place = most - int(begins[np.searchsorted(begins, most, side="right") - 1])
        span = (int(shard.document_ends[place]), int(shard.document_ends[place + 1]))
        longest = hashes == hashes[most]  # equal texts are cut alike
        tail = _count_tail_sentences(shard, span, share, budget)
        train_sentences[longest] = np.maximum(0, sentences[longest] - tail)
    sides: tuple[list[Sequence[Span]], list[Sequence[Span]]] = ([], [])
    for shard, (begin, end) in zip(corpus.shards, pairwise(begins.tolist()), strict=True):
        firsts, lasts = shard.document_ends[:-1], shard.document_ends[1:]
        middles = firsts + train_sentences[begin:end]
        sides[0].append(DocumentSpans(firsts, middles))
        sides[1].append(DocumentSpans(middles, lasts))
    if not any(sides[0]):
        raise DataError(
            "the corpus is too small",
            expected="at least two different sentences: one to train on, one to evaluate on",
            got="a single sentence" if len(sizes) == 1 else f"the same sentence {len(sizes):,} times",
        )
    return sides


class DocumentSpans(Sequence[Span]):
    """The sentences of many documents, as two arrays: a list of pairs would take ten times the memory.

    Args:
        firsts: (documents,) the first sentence of each.
        lasts: (documents,) where it ends. Documents without a sentence are left out.
    """

    def __init__(self, firsts: Ids, lasts: Ids) -> None:
        kept = lasts > firsts
        self._bounds = np.stack([firsts[kept], lasts[kept]], axis=1)

    def __len__(self) -> int:
        return len(self._bounds)

    @overload
    def __getitem__(self, place: int) -> Span: ...

    @overload
    def __getitem__(self, place: slice) -> list[Span]: ...

    def __getitem__(self, place: int | slice) -> Span | list[Span]:
        """Return one span, or a list of several."""
        found = self._bounds[place].tolist()
        return [(first, last) for first, last in found] if isinstance(place, slice) else (found[0], found[1])

    def __iter__(self) -> Iterator[Span]:
        """Yield the spans in order."""
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        """Return True for a sequence of the same spans."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _choose_documents(hashes: npt.NDArray[np.uint64], sizes: Ids, budget: float) -> npt.NDArray[np.bool_]:
    """Return (documents,) True for each document that is held out as a whole; equal documents have the same value.

    Args:
        hashes: (documents,) of the texts.
        sizes: (documents,) tokens of each.
        budget: tokens in all; texts of more than half of it are not chosen.
    """
    _, group_of = np.unique(hashes, return_inverse=True)
    totals = np.bincount(group_of, sizes)
    small = totals <= budget / 2
    chosen = small & (np.where(small, totals, 0).cumsum() <= budget)
    return chosen[group_of]


def _count_tail_sentences(shard: Shard, span: Span, share: float, budget: float) -> int:
    """Return how many sentences at a document's end are held out: at least one, and not all if it has several."""
    ends = shard.sentence_ends[span[0] : span[1] + 1]
    tail = min(share * float(ends[-1] - ends[0]), budget)
    return int(np.clip((ends[:-1] >= ends[-1] - tail).sum(), 1, max(1, len(ends) - 2)))
