"""Which tokens the masked LM has to guess, and what stands in their place (Devlin et al. 2019, section 3.1).

Every token, or every word, is chosen with the same chance by a draw of its own, so the share varies around it as a
binomial does; Google's script chooses exactly that share of each text. Under whole-word masking all pieces of a word
are chosen together and share one draw of what replaces them. Pure functions of numbers and a random stream.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fullbake.core.rng import uniform

Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Masking:
    """What is chosen, and what becomes of it.

    probability: chance of a token (or word) to be chosen. mask, random: shares of the chosen that become the mask
    token and a random one; the rest stays as it is. whole_words: words, not tokens, are drawn. mask_id: the
    tokenizer's. vocabulary: (n,) the ids that a random token is drawn from, and that may be chosen.
    """

    probability: float
    mask: float
    random: float
    whole_words: bool
    mask_id: int
    vocabulary: Ids


@dataclass(frozen=True, eq=False)
class Masked:
    """input_ids: (tokens,) with the chosen ones replaced. chosen: (tokens,) True where the model has to guess."""

    input_ids: Ids
    chosen: Flags


def mask_tokens(
    input_ids: Ids, word_starts: Flags, special: Flags, masking: Masking, random: np.random.PCG64
) -> Masked:
    """Choose and replace. All (tokens,), texts one after another.

    word_starts: True on the first token of each word. special: tokens that are never chosen (and no part of a word); so
    is whatever the vocabulary does not hold: a [SEP] that stands in the text itself, and the unknown token, of which
    there is nothing to guess.
    """
    special = special | ~np.isin(input_ids, masking.vocabulary, kind="table")
    units = np.cumsum(word_starts | special) - 1 if masking.whole_words else np.arange(len(input_ids))
    draws = uniform(random, 2 * len(input_ids)).reshape(2, -1)
    chosen = (draws[0] < masking.probability)[units] & ~special
    fate = draws[1][units]
    masked = input_ids.copy()
    masked[chosen & (fate < masking.mask)] = masking.mask_id
    swapped = chosen & (fate >= masking.mask) & (fate < masking.mask + masking.random)
    picks = uniform(random, len(input_ids))[swapped] * len(masking.vocabulary)
    masked[swapped] = masking.vocabulary[picks.astype(np.int64)]
    return Masked(masked, chosen)
