"""Small corpora for tests: documents of random words, and how a small base's tokenizer reads them."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fullbake.core.cache import Cache
from fullbake.pretraining.corpus import Corpus, Shard, build_corpus, read_shard
from fullbake.pretraining.data_loader import Phase
from fullbake.pretraining.documents import Document, DocumentSource
from fullbake.pretraining.examples import Masking
from fullbake.pretraining.forgetting import corpus_tokenizer_of, make_masking, make_phase
from helpers.bases import WORDS, make_tokenizer

LIMIT = 2**30
"""Bytes of a test's cache."""


def make_documents(count: int, sentences: int = 6, seed: int = 0) -> list[str]:
    """Return documents of one paragraph each, with 1 to so many sentences, all different."""
    drawn = random.Random(seed)
    return [
        " ".join(make_sentence(drawn, f"{seed}{number}") for _ in range(drawn.randint(1, sentences)))
        for number in range(count)
    ]


def make_sentence(drawn: random.Random, mark: str = "") -> str:
    """Return random words with a capital letter and a full stop; the mark is the last word."""
    words = drawn.choices(WORDS, k=drawn.randint(3, 12))
    return f"{' '.join(words).capitalize()} {mark}."


def source_of(texts: Sequence[str], name: str = "texts", key: str | None = None) -> DocumentSource:
    """Return a source with a document for each text; the lines are paragraphs. key: None uses the texts."""

    def read() -> Iterator[Document]:
        for number, text in enumerate(texts, 1):
            yield Document(f"{name}, row {number}", tuple(text.split("\n")))

    return DocumentSource(name, key or repr(list(texts)), read)


def load_tokenizer(family: str) -> Any:
    """Return a small base's tokenizer with the model inputs that a run sets."""
    tokenizer = make_tokenizer(family)
    if family in ("roberta", "xlm-roberta", "mpnet", "deberta-v2", "deberta-v3"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def build_small_corpus(folder: Path, texts: Sequence[str], family: str = "bert", **options: Any) -> Corpus:
    """Return the corpus of some texts, cached in `folder`."""
    return build_corpus(
        [source_of(texts)], corpus_tokenizer_of(load_tokenizer(family)), Cache(folder, LIMIT), **options
    )


def shard_of(texts: Sequence[str], tokenizer: Any) -> Shard:
    """Return some texts as a shard in memory."""
    return read_shard(source_of(texts), corpus_tokenizer_of(tokenizer))[0]


def phase(tokenizer: Any, length: int, steps: int = 0) -> Phase:
    """Return a phase with rows of at most so many tokens."""
    return make_phase(tokenizer, steps, length)


def masking(tokenizer: Any, **settings: Any) -> Masking:
    """Return the masking 15%, 80/10/10, or another if the settings say so."""
    return make_masking(tokenizer, **settings)


def binomial(share: float, count: int) -> Any:
    """Return how far a share of so many draws may be off: five standard deviations, once in two million tests."""
    return pytest.approx(share, abs=5 * (share * (1 - share) / count) ** 0.5)
