"""Texts that are hard to tokenize, and their rows of ids."""

from collections.abc import Sequence
from typing import Any

from fullbake.models.encoding import Encoded, tokenize

TEXTS = [
    "",
    " ",
    "good",
    "The film was not bad, but I want my money back!",
    "never " * 40,
    "unknownword émigré 漢字 \U0001f600 \x00 nul\x00inside",
    "a [SEP] b [MASK] </s> <pad> [PAD]",
    "1234567890" * 30,
    "line one\r\nline two\ttab   spaces   ",
]


def rows_of(encoded: Encoded) -> list[list[int]]:
    """Return the ids of each row."""
    return [encoded.input_ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


def encode(
    tokenizer: Any, texts: Sequence[str], max_length: int = 16, truncation: Any = "head", **options: Any
) -> Encoded:
    """Tokenize texts to rows of at most 16 ids, if no other length is given."""
    return tokenize(tokenizer, texts, max_length=max_length, truncation=truncation, **options)
