"""Tokenize documents into plain arrays, one chunk at a time, in this process or in several.

This module imports neither torch nor transformers, because each tokenizing process would pay for the import. What the
tokenizer returns takes about fifty times the memory of its ids, so few sentences are tokenized at once and only arrays
are kept.

Words are the tokenizer's own, with two exceptions. Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer,
Burmese, Tibetan) would give one word per clause where the tokenizer splits at white space, so there each character is a
word (or each token, if it holds several characters). And a word of more than `LONGEST_WORD` tokens (a URL, a script not
listed) is split: each of its tokens counts as a word.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from fullbake.core import runtime
from fullbake.core.errors import Fault
from fullbake.data.normalization import normalize
from fullbake.pretraining.documents import Document, split_sentences

Paragraphs = tuple[str, ...]

CORPUS_CHUNK_CHARACTERS: Final = 500_000
"""How many characters are tokenized at once."""

PARALLEL_CHARACTERS: Final = 16_000_000
"""From so many characters on it is faster to start processes."""

LONGEST_WORD: Final = 10
"""Tokens."""

_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class CorpusTokenizer:
    """A tokenizer as plain values, so that it can be sent to other processes."""

    tokenizer: str
    """The content of tokenizer.json."""

    unknown_id: int | None
    """The id of the unknown token; None if there is none."""

    language: str
    """ISO 639-1 code, for splitting sentences."""


@dataclass(frozen=True, eq=False)
class TokenizedDocuments:
    """A chunk of documents as arrays; documents and sentences without any token are left out."""

    input_ids: npt.NDArray[Any]
    """(tokens,) without special tokens."""

    word_starts: npt.NDArray[np.bool_]
    """(tokens,) True on the first token of each word."""

    hashes: npt.NDArray[np.uint64]
    """(documents,) hash of each normalized text."""

    lengths: npt.NDArray[np.int32]
    """(sentences,) tokens of each sentence, at least 1."""

    sentences: npt.NDArray[np.int32]
    """(documents,) sentences of each document, at least 1."""

    unknown: int
    """How many tokens are the unknown token."""


@contextmanager
def open_tokenizers(
    tokenizer: CorpusTokenizer,
    processes: int,
    *,
    parallel_from: int = 0,
    chunk_characters: int = CORPUS_CHUNK_CHARACTERS,
) -> Iterator[Callable[[Sequence[Document]], Iterator[TokenizedDocuments]]]:
    """Give a function that tokenizes documents, and stop its processes at the end of the block.

    Args:
        tokenizer: how to tokenize.
        processes: how many processes; 1 does all work in this one.
        parallel_from: characters of one call from which on the processes are started.
        chunk_characters: how many characters are tokenized at once.

    Yields:
        A function from documents to their tokenized chunks, in order. Its iterator raises Fault if a process dies.
    """
    with ExitStack() as stack:
        pool: ProcessPoolExecutor | None = None

        def tokenize_all(documents: Sequence[Document]) -> Iterator[TokenizedDocuments]:
            nonlocal pool
            much = pool is not None or sum(document.characters for document in documents) >= parallel_from
            if processes == 1 or not much:
                return tokenize_documents(documents, tokenizer, chunk_characters=chunk_characters)
            if pool is None:
                # spawn: a forked process could inherit a lock that a thread of torch holds
                pool = stack.enter_context(
                    ProcessPoolExecutor(processes, get_context("spawn"), _start_worker, (tokenizer, chunk_characters))
                )
            return _map_in_order(pool, _chunk_documents(documents, chunk_characters), 2 * processes)

        yield tokenize_all


def tokenize_documents(
    documents: Sequence[Document], tokenizer: CorpusTokenizer, *, chunk_characters: int = CORPUS_CHUNK_CHARACTERS
) -> Iterator[TokenizedDocuments]:
    """Tokenize documents chunk by chunk in this process; no document gives one empty chunk."""
    _load_tokenizer(tokenizer, chunk_characters)
    return map(_tokenize_chunk, _chunk_documents(documents, chunk_characters) if documents else [[]])


def _map_in_order(
    pool: ProcessPoolExecutor, chunks: Iterator[list[Paragraphs]], ahead: int
) -> Iterator[TokenizedDocuments]:
    """Yield the results in order; at most `ahead` chunks are waiting at any time, so that memory stays bounded."""
    try:
        pending = [pool.submit(_tokenize_chunk, chunk) for chunk in islice(chunks, ahead)]
        while pending:
            yield pending.pop(0).result()
            pending.extend(pool.submit(_tokenize_chunk, chunk) for chunk in islice(chunks, 1))
    except BrokenProcessPool as error:
        raise Fault(
            "a tokenizing process has died",
            remedy="If memory was short, use fewer processes. A script of yours that calls fullbake must do so under "
            "`if __name__ == '__main__':`, because each new process imports it.",
        ) from error


def _chunk_documents(documents: Sequence[Document], chunk_characters: int) -> Iterator[list[Paragraphs]]:
    chunk: list[Paragraphs] = []
    size = 0
    for document in documents:
        chunk.append(document.paragraphs)
        size += document.characters
        if size >= chunk_characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


# What runs in a tokenizing process


_worker: dict[str, Any] = {}
"""The tokenizer of this process and its settings; a process pool has no other place for them."""


def _start_worker(tokenizer: CorpusTokenizer, chunk_characters: int) -> None:
    runtime.disable_tokenizer_threads()
    _load_tokenizer(tokenizer, chunk_characters)


def _load_tokenizer(tokenizer: CorpusTokenizer, chunk_characters: int) -> None:
    if _worker.get("settings") != tokenizer:
        backend = Tokenizer.from_str(tokenizer.tokenizer)
        backend.no_truncation()
        backend.no_padding()
        _worker.update(backend=backend, settings=tokenizer)
    _worker["chunk_characters"] = chunk_characters


def _tokenize_chunk(chunk: list[Paragraphs]) -> TokenizedDocuments:
    settings: CorpusTokenizer = _worker["settings"]
    split = [
        [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph, settings.language)]
        for paragraphs in chunk
    ]
    encoded = [_encode(sentences) for sentences in _batch_sentences(list(chain.from_iterable(split)))]
    ids, starts, lengths = (np.concatenate(parts) for parts in zip(_NOTHING, *encoded, strict=True))
    owners = np.repeat(np.arange(len(split)), np.array([len(sentences) for sentences in split], np.int64))
    counts = np.bincount(owners[lengths > 0], minlength=len(split)).astype(np.int32)
    hashes = np.array([_hash_text(paragraphs) for paragraphs in chunk], np.uint64)
    # most vocabularies fit into 16 bits, which halves the shards
    small = _worker["backend"].get_vocab_size() <= 1 << 16
    return TokenizedDocuments(
        ids.astype(np.uint16) if small else ids,
        starts,
        hashes[counts > 0],
        lengths[lengths > 0],
        counts[counts > 0],
        0 if settings.unknown_id is None else int((ids == settings.unknown_id).sum()),
    )


_NOTHING = (np.empty(0, np.int32), np.empty(0, bool), np.empty(0, np.int32))


def _batch_sentences(sentences: list[str]) -> Iterator[list[str]]:
    """Group the sentences of a chunk into batches for the tokenizer: one document may be longer than a chunk."""
    limit = _worker["chunk_characters"]
    sizes = np.fromiter(map(len, sentences), np.int64, len(sentences)).cumsum()
    edges = np.searchsorted(sizes, np.arange(0, sizes[-1:].sum() + limit, limit)).tolist()
    return (sentences[start:end] for start, end in zip(edges, [*edges[1:], len(sentences)], strict=True) if end > start)


def _encode(sentences: list[str]) -> tuple[npt.NDArray[Any], ...]:
    """Return ids (tokens,), word starts (tokens,) and the tokens of each sentence (sentences,)."""
    encodings = _worker["backend"].encode_batch(sentences, add_special_tokens=False)
    lengths = np.fromiter(map(len, encodings), np.int32, len(encodings))
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, int(lengths.sum()))
    words = np.fromiter(
        (-1 if word is None else word for encoding in encodings for word in encoding.word_ids), np.int32, len(ids)
    )
    starts = _find_word_starts(words, lengths)
    ends = lengths.cumsum()
    for number, sentence in enumerate(sentences):
        if not sentence.isascii() and _UNSPACED.search(sentence):
            span = slice(int(ends[number] - lengths[number]), int(ends[number]))
            starts[span] |= _find_character_starts(sentence, encodings[number].offsets)
    return ids, starts, lengths


def _find_word_starts(words: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return (tokens,) True on the first token of each word.

    Args:
        words: (tokens,) number of each token's word within its sentence.
        lengths: (sentences,) tokens of each sentence.
    """
    starts = np.ones(len(words), bool)
    starts[1:] = words[1:] != words[:-1]
    starts[(lengths.cumsum() - lengths)[lengths > 0]] = True  # a sentence starts a word
    sizes = np.diff(np.append(np.flatnonzero(starts), len(words)))
    starts |= np.repeat(sizes > LONGEST_WORD, sizes)
    return starts


def _find_character_starts(sentence: str, offsets: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Return (tokens,) True where a character of a script without spaces begins, or the character after it.

    Args:
        sentence: the text.
        offsets: start and end of each token in the text; the bytes of one character have the same.
    """
    unspaced = [_UNSPACED.search(sentence, *place) is not None for place in offsets]
    before = zip([(-1, -1), *offsets], [False, *unspaced], strict=True)
    flags = [
        place != last and (is_unspaced or last_is_unspaced)
        for place, is_unspaced, (last, last_is_unspaced) in zip(offsets, unspaced, before, strict=False)
    ]
    return np.array(flags, bool)


def _hash_text(paragraphs: Paragraphs) -> int:
    digest = hashlib.blake2b(normalize(" ".join(paragraphs)).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
