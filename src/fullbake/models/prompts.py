"""Keep a prompt at the start of every row, whatever truncation leaves of the text.

A tokenizer may split a word differently after a prompt than alone, so prompt and text are tokenized together. The ids
that every prompted text starts with then count as special tokens: the end of a long text and each of its windows keep
them too.
"""

from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONTINUATIONS: Final = ("", "a", "Z", "the", "7", ".", "é", "漢")
"""Texts after the prompt. The ids that all of them start with are the prompt's own."""


def prompt_ids(tokenizer: "PreTrainedTokenizerFast", prompt: str | None) -> list[int]:
    """Return the ids with which every text after a prompt starts; [] without a prompt.

    Args:
        tokenizer: With padding and truncation switched off.
        prompt: The text before every text, if any.
    """
    if not prompt:
        return []
    backend: Any = tokenizer.backend_tokenizer
    texts = [prompt + text for text in _CONTINUATIONS]
    found = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    return [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*found, strict=False))]


def without_prompt(
    flat: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Leave out the first ids of every text.

    Args:
        flat: The ids of many texts one after another, (tokens,).
        counts: The number of each text's ids, (texts,).
        length: How many ids to leave out of each.
    """
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return flat[np.arange(len(flat)) - starts >= length], np.maximum(counts - length, 0)
