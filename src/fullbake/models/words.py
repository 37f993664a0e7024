"""The words of a text, and the tokens that each of them is made of.

Where a script puts spaces between words, a word is a run of letters, marks and digits, with apostrophes and hyphens
inside it; runs of punctuation and of symbols are words too. In scripts without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese, Tibetan) the tokenizer's own tokens are taken: no dictionary is needed, and what is counted as a word is
what the model reads. Words that share a token are one word.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fullbake.config.sections import TokensConfig
from fullbake.models.encoding import (
    Encoded,
    SpecialTokenTemplate,
    assemble_rows,
    concatenate_rows,
    read_special_token_template,
)
from fullbake.models.prompts import prompt_ids
from fullbake.models.tokenizer import disable_padding_and_truncation
from fullbake.models.tokenizer_safety import explain_failure

Ids = npt.NDArray[np.int64]

Spans = list[tuple[int, int]]
"""Start and end of pieces of a text, in characters."""

_WITHOUT_SPACES: Final = (
    *("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "IDEOGRAPHIC", "BOPOMOFO", "YI", "THAI", "LAO", "KHMER"),
    *("MYANMAR", "TIBETAN", "TAI", "NEW TAI LUE", "JAVANESE", "BALINESE"),
)
"""First words of the Unicode names of letters that are written without spaces between words."""

_WORD = re.compile(r"U[UM]*|[LD][LDM]*(?:(?:A|(?<=D)N(?=D))[LD][LDM]*)*|[PAN]+M*|[SM]+")
"""Words in a string that holds the kind of each character."""


@cache
def _kind(character: str) -> str:
    """Return the kind of a character, as one letter: see `_WORD`. A space is what separates words."""
    category = unicodedata.category(character)
    if category[0] == "L":
        name = unicodedata.name(character, "")
        return "U" if name.startswith(tuple(f"{script} " for script in _WITHOUT_SPACES)) else "L"
    if category[0] == "M" or category == "Cf":  # joiners and other invisible characters stay with their word
        return "M"
    if category[0] == "N":
        return "D"
    if character in "'’-‐\u2011":
        return "A"
    if character in ".,:":
        return "N"
    if character == "_":
        return "L"
    return {"P": "P", "S": "S", "Z": " ", "C": " "}[category[0]]


def find_words(text: str) -> list[tuple[int, int, bool]]:
    """Return start and end of each word, and whether its script has no spaces, so that it may be several words."""
    kinds = "".join(map(_kind, text))
    return [(*found.span(), found[0][0] == "U") for found in _WORD.finditer(kinds)]


@dataclass(frozen=True, eq=False)
class WordTokens:
    """One text, or one pair of texts, as token ids, with the words that the tokens belong to."""

    encoded: Encoded
    """What `encoding.tokenize` gives of it: one row, or a row for each window."""

    words: Ids
    """(words, 3) the text that each word is in (0, or 1 for the second of a pair), its start and its end."""

    word_of: Ids
    """(tokens,) the word that each token of `encoded` belongs to; -1 for special tokens and the prompt."""

    unread: tuple[tuple[int, int, int], ...]
    """(text, start, end) of what truncation left out."""


def tokenize_words(tokenizer: Any, tokens: TokensConfig, text: str, text_pair: str | None = None) -> WordTokens:
    """Turn one text into ids as `encoding.tokenize` does, and say which word each token belongs to.

    Args:
        tokenizer: As for `encoding.tokenize`.
        tokens: Truncation, stride, prompt and max_length, which must be a number.
        text: The text.
        text_pair: The second text of a pair.
    """
    assert tokens.max_length is not None, "the effective recipe has max_length filled in"
    disable_padding_and_truncation(tokenizer)
    prefix = prompt_ids(tokenizer, tokens.prompt)
    template = read_special_token_template(tokenizer, tokens.max_length, pair=text_pair is not None).with_prompt(prefix)
    read = [_read(tokenizer, text, tokens.prompt or "", len(prefix))]
    read += [] if text_pair is None else [_read(tokenizer, text_pair, "", 0)]
    segments = "token_type_ids" in tokenizer.model_input_names
    encoded = _rows(template, [ids for ids, _ in read], tokens, segments)
    # The same truncation of the tokens' numbers says which tokens it keeps.
    numbers = np.split(np.arange(sum(len(ids) for ids, _ in read), dtype=np.int32), [len(read[0][0])])[: len(read)]
    blank = replace(template, specials=tuple((-1,) * len(special) for special in template.specials))
    kept = _rows(blank, numbers, tokens, segments).input_ids.astype(np.int64)
    words, owners = _words_of_texts([text] if text_pair is None else [text, text_pair], [spans for _, spans in read])
    is_read = np.isin(np.arange(len(owners)), kept)
    remaining = np.setdiff1d(owners[is_read], [-1])
    renumbered = np.full(len(words) + 1, -1)
    renumbered[remaining] = np.arange(len(remaining))
    # the place -1 of special tokens, and the word -1 of a text without words, both lead to the last entry, -1
    word_of = renumbered[np.append(owners, -1)[kept]]
    return WordTokens(encoded, words[remaining], word_of, _gaps([spans for _, spans in read], is_read))


def _read(tokenizer: Any, text: str, prompt: str, prompt_length: int) -> tuple[NDArray[np.int32], Spans]:
    """Return the ids of a text without special tokens and prompt, and the characters of each, without white space."""
    with explain_failure(getattr(tokenizer, "name_or_path", "")):
        encoding = tokenizer.backend_tokenizer.encode(prompt + text, add_special_tokens=False)
    spans = []
    for start, end in encoding.offsets[prompt_length:]:
        first, last = max(0, start - len(prompt)), max(0, end - len(prompt))
        piece = text[first:last]
        spans.append((last - len(piece.lstrip()), first + len(piece.rstrip())) if piece.strip() else (last, last))
    return np.array(encoding.ids[prompt_length:], np.int32), spans


def _rows(
    template: SpecialTokenTemplate, ids: list[NDArray[np.int32]], tokens: TokensConfig, segments: bool
) -> Encoded:
    texts = [(flat, np.array([len(flat)], np.int64)) for flat in ids]
    rows = assemble_rows(template, texts, tokens.truncation, tokens.stride or 0, 0)
    return concatenate_rows([rows], segments, tokens.truncation)


def _words_of_texts(texts: Sequence[str], spans: Sequence[Spans]) -> tuple[Ids, Ids]:
    """Return the words of all texts, (words, 3), and the word that each token belongs to, (tokens,)."""
    words, owners, before = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)], 0
    for place, (text, own) in enumerate(zip(texts, spans, strict=True)):
        found, owner = _words_of_text(text, own)
        words.append(np.array([(place, *span) for span in found], np.int64).reshape(-1, 3))
        owners.append(owner + before)
        before += len(found)
    return np.concatenate(words), np.concatenate(owners)


def _words_of_text(text: str, spans: Spans) -> tuple[Spans, Ids]:
    """Return the words of a text, and the word that each token belongs to, (tokens,)."""
    pieces = _pieces(text, spans)
    if not pieces:
        return [], np.full(len(spans), -1)
    starts, ends = np.array([piece[0] for piece in pieces]), np.array([piece[1] for piece in pieces])
    first = np.searchsorted(ends, [start for start, _ in spans], side="right")
    last = np.searchsorted(starts, [end for _, end in spans], side="left") - 1
    # A token of no word, such as a space, belongs to the word after it.
    last = np.maximum(last, first)
    joined = np.zeros(len(pieces) + 1, dtype=bool)  # whether a piece is one word with the piece before it
    for one, other in zip(first.tolist(), last.tolist(), strict=True):
        joined[one + 1 : other + 1] = True
    begins = np.flatnonzero(~joined[:-1])
    words = zip(starts[begins].tolist(), ends[np.append(begins[1:], len(pieces)) - 1].tolist(), strict=True)
    number = np.cumsum(~joined[:-1]) - 1
    return list(words), number[np.minimum(first, len(pieces) - 1)]


def _pieces(text: str, spans: Spans) -> Spans:
    """Return the words of a text, those of scripts without spaces cut where a token starts."""
    cuts = sorted({start for start, _ in spans})
    pieces = []
    for start, end, without_spaces in find_words(text):
        within = cuts[bisect_right(cuts, start) : bisect_left(cuts, end)] if without_spaces else []
        bounds = [start, *(cut for cut in within if _kind(text[cut]) != "M"), end]
        pieces += list(pairwise(bounds))
    return pieces


def _gaps(spans: Sequence[Spans], is_read: NDArray[np.bool_]) -> tuple[tuple[int, int, int], ...]:
    """Return (text, start, end) of each run of tokens that are not read."""
    gaps: list[tuple[int, int, int]] = []
    before = 0
    for place, own in enumerate(spans):
        read = is_read[before : before + len(own)]
        before += len(own)
        edges = np.flatnonzero(np.diff(np.concatenate([[True], read, [True]]).astype(np.int8)))
        gaps += [(place, own[start][0], own[end - 1][1]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(gaps)
