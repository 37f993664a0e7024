"""Say what a base, and the general text that measures forgetting, do not know of a corpus.

A base learns nothing from letters that its tokenizer does not know, and forgetting is measured on general text, which
by default is English. Both are easy to overlook: the losses look as usual.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Final

from transformers import PreTrainedTokenizerFast

from fullbake.core.console import warn
from fullbake.data.text_checks import count_letters, script_shares
from fullbake.models.tokenizer import warn_of_unknown_tokens
from fullbake.pretraining.documents import DocumentSource, first_paragraphs

SAMPLE_CHARACTERS: Final = 200_000
"""Characters of a text whose letters are counted."""

MAIN_SCRIPT: Final = 0.1
"""A script is reported from this share of all letters on."""

RARE_SCRIPT: Final = 0.01
"""General text does not have a script if less than this share of its letters belongs to it."""

UNKNOWN_LETTERS: Final = 0.05
"""A tokenizer does not know a script if it has no token for more than this share of the letters in a text."""


def warn_of_unfamiliar_text(
    sources: Sequence[DocumentSource],
    tokenizer: PreTrainedTokenizerFast,
    unknown_share: float,
    general: DocumentSource | None,
) -> None:
    """Warn of scripts that the tokenizer or the general text does not know, and of many unknown tokens.

    Args:
        sources: the corpus.
        tokenizer: the base's tokenizer.
        unknown_share: share of the corpus's tokens that are unknown.
        general: the text on which forgetting is measured; None if it is not measured.
    """
    letters = count_first_letters(sources)
    shares = script_shares(letters)
    known = None if general is None else script_shares(count_first_letters([general]))
    for script, counts in letters.items():
        share = shares[script]
        if share < MAIN_SCRIPT:
            continue
        unknown = share_without_token(counts, tokenizer)
        if unknown > UNKNOWN_LETTERS:
            warn(f"the base's tokenizer has no token for {unknown:.0%} of the {script} letters of this text")
        if known is not None and known.get(script, 0) < RARE_SCRIPT:
            warn(
                f"{share:.0%} of the letters of this text are {script}, but the general text has none of them: what "
                "the base forgets in this script is not measured. Name general text that has it: --probe-text"
            )
    warning = warn_of_unknown_tokens(unknown_share)
    if warning is not None:
        warn(warning)


def count_first_letters(sources: Sequence[DocumentSource]) -> dict[str, Counter[str]]:
    """Return how often each letter occurs at the beginning of the sources, by its script (Latin, Han, Cyrillic, ...).

    Args:
        sources: each is read until it gave its part of SAMPLE_CHARACTERS.
    """
    parts = [first_paragraphs(source, SAMPLE_CHARACTERS // len(sources)) for source in sources]
    return count_letters(chain.from_iterable(document.paragraphs for part in parts for document in part.read()))


def share_without_token(letters: Counter[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the share of letters for which the tokenizer has no token: unknown ones, and those cut into bytes.

    Args:
        letters: how often each occurs.
        tokenizer: the base's tokenizer.
    """
    names = list(letters)
    # "a" before it, because some tokenizers put a token of their own at the beginning of a text
    texts = ["a", *(f"a{letter}" for letter in names)]
    alone, *found = (
        encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    )
    lacking = sum(
        letters[letter]
        for letter, ids in zip(names, found, strict=True)
        if tokenizer.unk_token_id in ids or len(ids) > len(alone) + 1
    )
    return lacking / max(1, letters.total())
