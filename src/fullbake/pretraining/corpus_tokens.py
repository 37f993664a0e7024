"""Documents to tokens in plain arrays, a portion at a time, in this process or in several.

Imports neither torch nor transformers, since every process that tokenizes would. What the tokenizer returns is some
fifty times as large as its ids, so few sentences go through it at once and only arrays are kept.

Words are the tokenizer's own, with two exceptions. Where a script sets no spaces between words (Chinese, Japanese,
Thai, Lao, Khmer, Burmese, Tibetan), a pre-tokenizer that splits at white space takes a whole clause for a word: there
each character, or each token where one holds several, is a word. And whatever is longer than `LONGEST_WORD` tokens (an
address, a script not listed) is none: each of its tokens counts as a word.
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
from fullbake.data.duplicates import normalize
from fullbake.pretraining.documents import Document, split_sentences

Paragraphs = tuple[str, ...]

CHUNK_CHARACTERS: Final = 500_000
"""What goes to a process, and through the tokenizer, at once."""

PARALLEL_CHUNKS: Final = 16_000_000
"""Characters from which on it pays to start processes, unless their number is given."""

LONGEST_WORD: Final = 10
"""Tokens."""

_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class CorpusTokenizer:
    """How text becomes tokens: the tokenizer's own JSON, the id of its unknown token, the sentences' language."""

    tokenizer: str
    unknown_id: int | None
    language: str


@dataclass(frozen=True, eq=False)
class TokenizedDocuments:
    """A portion of documents; those without a token are left out.

    input_ids: (tokens,). word_starts: (tokens,) True on the first token of each word. hashes: (documents,) of each
    normalized text. lengths: (sentences,) tokens of each; none has 0. sentences: (documents,) of each; none has 0.
    unknown: how many tokens stand for what the tokenizer does not know.
    """

    input_ids: npt.NDArray[Any]
    word_starts: npt.NDArray[np.bool_]
    hashes: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int32]
    sentences: npt.NDArray[np.int32]
    unknown: int


@contextmanager
def open_tokenizers(
    reading: CorpusTokenizer, processes: int | None
) -> Iterator[Callable[[Sequence[Document]], Iterator[TokenizedDocuments]]]:
    """Yields a function: documents -> their tokenized portions, in order.

    processes: how many; None: one a processor once there is much to do, and this one until then.
    """
    with ExitStack() as stack:
        pool: list[ProcessPoolExecutor] = []

        def tokenize_all(documents: Sequence[Document]) -> Iterator[TokenizedDocuments]:
            count = runtime.count_processors() if processes is None else processes
            little = processes is None and sum(document.characters for document in documents) < PARALLEL_CHUNKS
            if count == 1 or (little and not pool):
                return tokenize_documents(documents, reading)
            if not pool:
                workers = ProcessPoolExecutor(count, get_context("spawn"), _start_apart, (reading,))
                pool.append(stack.enter_context(workers))
            return _in_order(pool[0], _document_chunks(documents), 2 * count)

        yield tokenize_all


def tokenize_documents(documents: Sequence[Document], reading: CorpusTokenizer) -> Iterator[TokenizedDocuments]:
    """The portions of these documents, tokenized in this process."""
    _start(reading)
    return map(_tokenize, _document_chunks(documents) if documents else [[]])


def _in_order(
    pool: ProcessPoolExecutor, portions: Iterator[list[Paragraphs]], ahead: int
) -> Iterator[TokenizedDocuments]:
    """Results in order, with a bounded number under way: text waits in one place only."""
    try:
        pending = [pool.submit(_tokenize, portion) for portion in islice(portions, ahead)]
        while pending:
            yield pending.pop(0).result()
            pending.extend(pool.submit(_tokenize, portion) for portion in islice(portions, 1))
    except BrokenProcessPool as error:
        raise Fault(
            "a process that tokenizes has ended",
            remedy="Was memory short? Then take fewer of them. A script of your own starts processes only where its "
            "work stands under `if __name__ == '__main__':`.",
        ) from error


def _document_chunks(documents: Sequence[Document]) -> Iterator[list[Paragraphs]]:
    held: list[Paragraphs] = []
    size = 0
    for document in documents:
        held.append(document.paragraphs)
        size += document.characters
        if size >= CHUNK_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


# What a tokenizing process does


_at_work: dict[str, Any] = {}
"""What it holds: set when it starts."""


def _start_apart(reading: CorpusTokenizer) -> None:
    runtime.disable_tokenizer_threads()
    _start(reading)


def _start(reading: CorpusTokenizer) -> None:
    if _at_work.get("reading") == reading:
        return
    tokenizer = Tokenizer.from_str(reading.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _at_work.update(tokenizer=tokenizer, reading=reading)


def _tokenize(portion: list[Paragraphs]) -> TokenizedDocuments:
    reading: CorpusTokenizer = _at_work["reading"]
    split = [
        [s for paragraph in paragraphs for s in split_sentences(paragraph, reading.language)] for paragraphs in portion
    ]
    encoded = [_encode(some) for some in _little(list(chain.from_iterable(split)))]
    ids, starts, lengths = (np.concatenate(parts) for parts in zip(_NOTHING, *encoded, strict=True))
    owners = np.repeat(np.arange(len(split)), np.array([len(sentences) for sentences in split], np.int64))
    counts = np.bincount(owners[lengths > 0], minlength=len(split)).astype(np.int32)
    hashes = np.array([_hash(paragraphs) for paragraphs in portion], np.uint64)
    small = _at_work["tokenizer"].get_vocab_size() <= 1 << 16
    return TokenizedDocuments(
        ids.astype(np.uint16) if small else ids,
        starts,
        hashes[counts > 0],
        lengths[lengths > 0],
        counts[counts > 0],
        0 if reading.unknown_id is None else int((ids == reading.unknown_id).sum()),
    )


_NOTHING = (np.empty(0, np.int32), np.empty(0, bool), np.empty(0, np.int32))


def _little(sentences: list[str]) -> Iterator[list[str]]:
    """So many sentences at a time as go through the tokenizer at once."""
    sizes = np.fromiter(map(len, sentences), np.int64, len(sentences)).cumsum()
    edges = np.searchsorted(sizes, np.arange(0, sizes[-1:].sum() + CHUNK_CHARACTERS, CHUNK_CHARACTERS)).tolist()
    return (sentences[start:end] for start, end in zip(edges, [*edges[1:], len(sentences)], strict=True) if end > start)


def _encode(sentences: list[str]) -> tuple[npt.NDArray[Any], ...]:
    """(ids (tokens,), word starts (tokens,), tokens of each sentence)."""
    encodings = _at_work["tokenizer"].encode_batch(sentences, add_special_tokens=False)
    lengths = np.fromiter(map(len, encodings), np.int32, len(encodings))
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, int(lengths.sum()))
    words = np.fromiter(
        (-1 if word is None else word for encoding in encodings for word in encoding.word_ids), np.int32, len(ids)
    )
    starts = _word_starts(words, lengths)
    ends = lengths.cumsum()
    for number, sentence in enumerate(sentences):
        if not sentence.isascii() and _UNSPACED.search(sentence):
            span = slice(int(ends[number] - lengths[number]), int(ends[number]))
            starts[span] |= _character_starts(sentence, encodings[number].offsets)
    return ids, starts, lengths


def _word_starts(words: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """(tokens,). words: number of each token's word within its sentence, (tokens,). lengths: tokens of each
    sentence."""
    starts = np.ones(len(words), bool)
    starts[1:] = words[1:] != words[:-1]
    starts[(lengths.cumsum() - lengths)[lengths > 0]] = True
    sizes = np.diff(np.append(np.flatnonzero(starts), len(words)))
    starts |= np.repeat(sizes > LONGEST_WORD, sizes)
    return starts


def _character_starts(sentence: str, offsets: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """(tokens,) True where a character of a script without spaces begins, or another one after it.

    offsets: start and end of each token in the sentence; the bytes of one character have the same.
    """
    holds = [_UNSPACED.search(sentence, *place) is not None for place in offsets]
    before = zip([(-1, -1), *offsets], [False, *holds], strict=True)
    flags = [
        place != last and (held or held_last)
        for place, held, (last, held_last) in zip(offsets, holds, before, strict=False)
    ]
    return np.array(flags, bool)


def _hash(paragraphs: Paragraphs) -> int:
    digest = hashlib.blake2b(normalize(" ".join(paragraphs)).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
