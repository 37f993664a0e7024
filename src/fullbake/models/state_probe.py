"""Try whether a base's states of a text depend on that text alone, as scores that repeat need.

Some encoders do not: FNet mixes padding into every token, convolutions carry it into its neighbors, BigBird switches to
another attention for good once it has seen a short text, and YOSO and Reformer hash at random. Rows of random tokens
are run alone, padded, beside other rows and again, and the states of their own tokens are compared. It costs some
forward passes, and needs no table of families.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fullbake.core.errors import BaseModelError
from fullbake.models.collation import collate
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.tokenizer import count_special_tokens

STATE_TOLERANCE: Final = 1e-4
"""Largest difference of two states that should be equal, as a share of the largest value of the states."""

SAME_TEXT: Final = 1e-6
"""States of different texts that are as close as this, by the same measure, are taken for equal."""

SHORT_ROWS: Final = (7, 12, 23, 40)
"""Tokens of the rows that are run alone, padded and together, special tokens included."""

LONGEST_ROW: Final = 1024
"""Tokens of the long row at most. BigBird's sparse attention begins at 704 tokens."""


class StateProbe:
    """Rows of random tokens and their states.

    Building it runs the base on a long row first, then on short ones: a base that changes with its first short text
    shows it later. Nothing else is done to the encoder.

    Args:
        encoder: The base's encoder, in eval mode on the CPU.
        tokenizer: As `load_tokenizer` gives it; rows have segments if its model_input_names do.
        limit: Longest row in tokens that the base takes.
        place: The base, for errors.

    Raises:
        BaseModelError: The base raises an error on a row, or its states are not what states must be.
    """

    def __init__(self, encoder: Any, tokenizer: Any, limit: int, place: Path | str) -> None:
        self.encoder, self.place, self.limit = encoder, place, limit
        self.pad_id = tokenizer.pad_token_id
        self.has_segments = "token_type_ids" in tokenizer.model_input_names
        self.pair = tokenizer.backend_tokenizer.encode("a", "b")
        self._around = _special_ids(tokenizer)
        rows = len(encoder.get_input_embeddings().weight)
        words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        self._words = np.array(sorted(word for word in words if word < rows) or [self.pad_id])
        self._random = np.random.default_rng(0)
        self.kinds = _string_attributes(encoder)
        self.long = self._row(min(limit, LONGEST_ROW))
        lengths = [length for length in SHORT_ROWS if length <= limit]
        self.short = [self._row(length) for length in lengths + [limit] * (2 - len(lengths))]
        self.first_long = self.states([self.long])[0]
        self.alone = [self.states([row])[0] for row in self.short]

    def _row(self, length: int) -> NDArray[np.int64]:
        before, after = self._around
        words = self._random.choice(self._words, max(length - len(before) - len(after), 1))
        return np.concatenate([before, words, after])

    def states(self, rows: Sequence[NDArray[Any]], width: int = 0, types: Sequence[int] | None = None) -> list[Tensor]:
        """Return the last states of each row's own tokens.

        Args:
            rows: Token ids.
            width: Pad to so many tokens at least.
            types: Segments of the only row; None: all 0.
        """
        lengths = [len(row) for row in rows]
        ids = np.concatenate(rows).astype(np.int32)
        segments = np.zeros(len(ids), np.uint8) if types is None else np.array(types, np.uint8)
        encoded = Encoded(ids, row_offsets(np.array(lengths)), segments if self.has_segments else None)
        width = max(width, *lengths)
        batch = collate(
            encoded, np.arange(len(rows)), pad_id=self.pad_id, padding="max_length", max_length=min(width, self.limit)
        )
        try:
            with torch.no_grad():
                found = self.encoder(**batch).last_hidden_state
            expected = (*batch["input_ids"].shape, self.encoder.config.hidden_size)
        except Exception as error:  # whatever its code raises
            self._refuse(
                f"the base fails on {'a text' if len(rows) == 1 else 'texts'} of {max(lengths)} tokens",
                got=f"{type(error).__name__}: {_short(error)}",
            )
        if tuple(found.shape) != expected:
            self._refuse(
                "the base does not give one state of its width for each token",
                expected=f"states of the shape {expected}",
                got=str(tuple(found.shape)),
            )
        own = [row_states[:length] for row_states, length in zip(found, lengths, strict=True)]
        if not all(bool(torch.isfinite(part).all()) for part in own):
            self._refuse("the base gives numbers that are not finite", expected="finite states", got="inf or nan")
        return own

    def difference(self, left: Tensor, right: Tensor) -> float:
        """Return the largest difference of two states, as a share of the largest value of the first."""
        return float((left - right).abs().max() / left.abs().max().clamp_min(1e-30))

    def check_texts(self) -> None:
        """Refuse a base whose states are drawn at random, or do not depend on the text, or that fails on a pair."""
        apart = self.difference(self.alone[-1], self.states([self.short[-1]])[0])
        self._require(
            apart,
            "the base gives other states for the same text each time",
            "Its attention is drawn at random. Choose another base.",
        )
        first, last = self.alone[0].mean(0), self.alone[-1].mean(0)
        if len(self._words) > 1 and self.difference(first, last) <= SAME_TEXT:
            self._refuse(
                "the base gives the same states for every text",
                expected="states that depend on the words",
                got="equal ones, as weights of zeros give them",
            )
        if len(self._words) > 1:
            self._check_that_words_are_seen()
        if len(self.pair.ids) <= self.limit:
            self.states([np.array(self.pair.ids)], types=self.pair.type_ids)

    def _check_that_words_are_seen(self) -> None:
        """Refuse a base in which a word changes no state but its own, as where the attention gives zeros."""
        row, place = self.short[-1].copy(), len(self._around[0])
        row[place] = self._words[0] if row[place] != self._words[0] else self._words[-1]
        left, right = self.alone[-1][place + 1 :], self.states([row])[0][place + 1 :]
        if len(left) and self.difference(left, right) <= SAME_TEXT:
            self._refuse(
                "the base reads each word by itself",
                expected="states that depend on the other words of a text",
                got="equal ones where another word is changed",
                remedy="Its attention gives nothing here: it may need a kernel that runs on a GPU only. Choose another "
                "base.",
            )

    def check_padding(self) -> float:
        """Refuse a base whose states change with padding or with the other texts of a batch.

        Returns:
            The largest difference, as a share of the states' largest value.
        """
        widest = max(len(row) for row in self.short)
        padded = [self.states([row], width=len(row) + 9)[0] for row in self.short]
        wide = [self.states([row], width=widest + 24)[0] for row in self.short]
        remedy = (
            "It mixes padding into the words, so a text's score would depend on the batch that it stands in. Choose "
            "another base."
        )
        apart = max(
            self.difference(left, right)
            for others in (padded, wide)
            for left, right in zip(self.alone, others, strict=True)
        )
        self._require(apart, "padding changes the base's states of a text", remedy)
        together = self.states(self.short)
        beside = max(self.difference(left, right) for left, right in zip(self.alone, together, strict=True))
        self._require(beside, "the other texts of a batch change the base's states of a text", remedy)
        return max(apart, beside)

    def check_history(self) -> float:
        """Refuse a base whose states of a text change once it has seen others.

        Returns:
            The difference, as a share of the states' largest value.
        """
        apart = self.difference(self.first_long, self.states([self.long])[0])
        what = "earlier texts change the base's states of a text"
        self._require(
            apart,
            what,
            "After a short text it computes otherwise, until it is loaded again. Choose another base, or name the "
            'computation in config.json of a copy (BigBird: "attention_type": "original_full").',
        )
        changed = [name for name, kind in _string_attributes(self.encoder).items() if kind != self.kinds.get(name)]
        if changed:
            self._refuse(
                what,
                expected="parts that stay as they were loaded",
                got=f"{changed[0]} changed from {self.kinds.get(changed[0])!r}",
                remedy='Name the computation in config.json of a copy (BigBird: "attention_type": "original_full").',
            )
        return apart

    def _require(self, apart: float, what: str, remedy: str) -> None:
        if apart > STATE_TOLERANCE:
            self._refuse(
                what,
                expected=f"equal states, up to {STATE_TOLERANCE:g} of their largest value",
                got=f"a difference of {apart:.1g}",
                remedy=remedy,
            )

    def _refuse(self, what: str, **facts: str) -> Any:
        where = f"base '{self.place}', model type {self.encoder.config.model_type!r}"
        raise BaseModelError(what, where=where, **{"remedy": "Choose another base."} | facts)


def _special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    before, after = count_special_tokens(tokenizer)
    ids = tokenizer.backend_tokenizer.encode("a").ids
    return ids[:before], ids[len(ids) - after :]


def _string_attributes(encoder: Any) -> dict[str, str]:
    """Return the words that a model's parts hold, such as the kind of their attention, by part and name."""
    return {
        f"{name}.{attribute}": value
        for name, module in encoder.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, str)
    }


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
