"""Small corpora of the tests' own: documents of drawn words, and how a small base's tokenizer reads them."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from fullbake.core.cache import Cache
from fullbake.models.encoding import read_special_token_template
from fullbake.pretraining.corpus import Corpus, Shard, build_corpus, read_shard
from fullbake.pretraining.corpus_tokens import CorpusTokenizer
from fullbake.pretraining.data_loader import Phase
from fullbake.pretraining.documents import Document, DocumentSource
from fullbake.pretraining.examples import Masking
from helpers.bases import WORDS, make_tokenizer

LIMIT = 2**30


def make_documents(count: int, sentences: int = 6, seed: int = 0) -> list[str]:
    """Documents of one paragraph each, of 1 to so many sentences, all different."""
    drawn = random.Random(seed)
    return [
        " ".join(sentence(drawn, f"{seed}{number}") for _ in range(drawn.randint(1, sentences)))
        for number in range(count)
    ]


def sentence(drawn: random.Random, mark: str = "") -> str:
    """Words with a capital and a full stop."""
    words = drawn.choices(WORDS, k=drawn.randint(3, 12))
    return f"{' '.join(words).capitalize()} {mark}."


def source_of(texts: Sequence[str], name: str = "texts", key: str | None = None) -> DocumentSource:
    """A text a document, its lines the paragraphs; the fingerprint is that of the texts unless given."""

    def read() -> Iterator[Document]:
        for number, text in enumerate(texts, 1):
            yield Document(f"{name}, row {number}", tuple(text.split("\n")))

    return DocumentSource(name, key or repr(list(texts)), read)


def load_tokenizer(family: str) -> Any:
    """A small base's, told what its model takes, as a run does."""
    tokenizer = make_tokenizer(family)
    if family in ("roberta", "xlm-roberta", "mpnet", "deberta-v2", "deberta-v3"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def reading(tokenizer: Any, language: str = "en") -> CorpusTokenizer:
    """How a tokenizer reads a corpus."""
    return CorpusTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.unk_token_id, language)


def build(folder: Path, texts: Sequence[str], family: str = "bert", **options: Any) -> Corpus:
    """The corpus of these texts, cached in `folder`."""
    return build_corpus([source_of(texts)], reading(load_tokenizer(family)), Cache(folder, LIMIT), **options)


def shard_of(texts: Sequence[str], tokenizer: Any) -> Shard:
    """These texts in memory."""
    return read_shard(source_of(texts), reading(tokenizer))[0]


def phase(tokenizer: Any, length: int, steps: int = 0) -> Phase:
    """Rows of at most so many tokens."""
    alone, paired = (read_special_token_template(tokenizer, length, pair=pair) for pair in (False, True))
    return Phase(steps, alone, paired, "token_type_ids" in tokenizer.model_input_names)


def masking(tokenizer: transformers.PreTrainedTokenizerBase, **settings: Any) -> Masking:
    """15%, 80/10/10, unless told otherwise."""
    vocabulary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids).astype(np.int32)
    fields: dict[str, Any] = {"probability": 0.15, "mask": 0.8, "random": 0.1, "whole_words": False}
    return Masking(mask_id=int(str(tokenizer.mask_token_id)), vocabulary=vocabulary, **(fields | settings))


def binomial(share: float, count: int) -> Any:
    """What a share of so many draws may stray to: five standard deviations, once in two million."""
    import pytest

    return pytest.approx(share, abs=5 * (share * (1 - share) / count) ** 0.5)
