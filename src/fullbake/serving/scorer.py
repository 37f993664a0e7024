"""What the queue needs of a classifier: texts to token ids, and token ids to logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.model import Answers, Classifier
from fullbake.models.encoding import Encoded, join_encoded, read_special_token_template, tokenize
from fullbake.models.long_texts import LONG_TEXT_CHARACTERS, EndsOfText
from fullbake.models.prediction import padded_lengths
from fullbake.models.prompts import prompt_ids
from fullbake.serving.refusals import invalid, too_large


@dataclass(frozen=True)
class Reading:
    """How the texts of a request are read, where it asks for another way than that of training."""

    truncation: Literal["head", "tail"] | None = None
    """What stays of a text that is too long; None for what stayed in training."""

    whole: bool = False
    """Refuse texts that would be cut."""

    pooled: bool = False
    """Compute what the head reads, in place of logits."""


AS_TRAINED: Final = Reading()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Texts of one request, ready to be computed."""

    texts: Sequence[str]
    encoded: Encoded

    costs: NDArray[np.int64]
    """Tokens that each text takes in a batch, those of all its windows, (texts,)."""

    pooled: bool = False
    """Whether what the head reads is computed, in place of logits."""

    member: Classifier | None = None
    """The classifier of a cascade that computes these rows, whatever its margin; None for the cascade as a whole."""

    @property
    def kind(self) -> object:
        """What is computed together: texts of one kind alone share a round."""
        return self.pooled, self.member

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.costs)


class TextScorer:
    """A classifier, for the queue. Its methods may be called by several threads at once.

    Args:
        classifier: A bundle or a cascade.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def prepare(
        self, texts: Sequence[str], text_pair: Sequence[str] | None = None, reading: Reading = AS_TRAINED
    ) -> Prepared:
        """Turn texts into token ids.

        Args:
            texts: The texts of a request.
            text_pair: The second text of each, for a classifier of pairs.
            reading: How they are read.

        Raises:
            DataError: A text is not Unicode.
            Refusal: They cannot be read as the request wants.
        """
        self._check_reading(reading, pair=text_pair is not None)
        tokens = self.classifier.tokens
        truncation = reading.truncation or tokens.truncation
        assert tokens.max_length is not None, "a bundle's max_length is filled in"
        encoded = tokenize(
            self.classifier.tokenizer,
            texts,
            max_length=tokens.max_length,
            truncation=truncation,
            stride=tokens.stride or 0,
            text_pair=text_pair,
            prompt=tokens.prompt,
        )
        if reading.whole and (truncation != "windows" or text_pair is not None):
            self._check_whole(encoded, texts, text_pair)
        if tokens.truncation == "windows" and encoded.documents is None:  # all texts of a round have windows, or none
            encoded = replace(encoded, documents=np.arange(len(encoded)))
        costs = padded_lengths(encoded, tokens).astype(np.int64)
        if encoded.documents is not None:
            costs = np.bincount(encoded.documents, costs, minlength=len(texts)).astype(np.int64)
        return Prepared(texts, encoded, costs, reading.pooled)

    def _check_reading(self, reading: Reading, *, pair: bool) -> None:
        """Refuse a truncation that this classifier cannot read by."""
        if reading.truncation is None:
            return
        if pair and reading.truncation == "tail":
            raise invalid("A pair that is too long is cut at the end of its longer text, never at the start.")
        if self.classifier.first is not None and not reading.pooled:
            raise invalid("The classifiers of a cascade cut texts as they did in training; leave the direction out.")

    def _check_whole(self, encoded: Encoded, texts: Sequence[str], text_pair: Sequence[str] | None) -> None:
        """Refuse texts that were cut. Only rows of the greatest length can be such."""
        tokenizer, tokens = self.classifier.tokenizer, self.classifier.tokens
        assert tokens.max_length is not None, "a bundle's max_length is filled in"
        template = read_special_token_template(tokenizer, tokens.max_length, pair=text_pair is not None)
        around = template.with_prompt(prompt_ids(tokenizer, tokens.prompt)).around
        whole = EndsOfText(tokenizer.backend_tokenizer)
        for place in np.flatnonzero(encoded.lengths == tokens.max_length).tolist():
            row = [texts[place]] if text_pair is None else [texts[place], text_pair[place]]
            # of a long text only the start is read: it is too long as soon as that fills a row
            length = around + sum(len(whole.first(text, tokens.max_length)) for text in row)
            if length > tokens.max_length:
                is_long = max(map(len, row)) >= LONG_TEXT_CHARACTERS
                got = f"more than {tokens.max_length}" if is_long else around + sum(map(whole.count, row))
                raise too_large(f"`inputs` must have at most {tokens.max_length} tokens. Given: {got}")

    def answers(self, parts: Sequence[tuple[Prepared, NDArray[np.int64]]]) -> Answers:
        """Compute the logits of texts of several requests together, or what the head reads of them.

        Args:
            parts: Of each request, which of its texts, by their places. All ask for the same.

        Returns:
            float32 (texts, classes), or (texts, width) of what the head reads, in a cascade that of the teacher; the
            parts one after another.
        """
        pooled, member = parts[0][0].pooled, parts[0][0].member
        if not pooled and member is None and self.classifier.first is not None:
            # student and teacher may cut texts differently
            return self.classifier.answers([part.texts[place] for part, places in parts for place in places])
        joined = join_encoded([part.encoded.of_documents(places) for part, places in parts])
        own = self.classifier if member is None else member
        compute = own.predictor.pooled if pooled else own.predictor.logits
        return Answers(compute(joined, own.tokens), None)
