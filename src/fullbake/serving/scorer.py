"""What the queue needs of a classifier: texts to token ids, and token ids to logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.model import Answers, Classifier
from fullbake.models.encoding import Encoded, join_encoded, tokenize
from fullbake.models.prediction import padded_lengths


@dataclass(frozen=True, eq=False)
class Prepared:
    """Texts of one request, ready to be computed."""

    texts: Sequence[str]
    encoded: Encoded

    costs: NDArray[np.int64]
    """Tokens that each text takes in a batch, those of all its windows, (texts,)."""

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

    def prepare(self, texts: Sequence[str], text_pair: Sequence[str] | None = None) -> Prepared:
        """Turn texts into token ids.

        Args:
            texts: The texts of a request.
            text_pair: The second text of each, for a classifier of pairs.

        Raises:
            DataError: A text is not Unicode.
        """
        tokens = self.classifier.tokens
        assert tokens.max_length is not None, "a bundle's max_length is filled in"
        encoded = tokenize(
            self.classifier.tokenizer,
            texts,
            max_length=tokens.max_length,
            truncation=tokens.truncation,
            stride=tokens.stride or 0,
            text_pair=text_pair,
            prompt=tokens.prompt,
        )
        costs = padded_lengths(encoded, tokens).astype(np.int64)
        if encoded.documents is not None:
            costs = np.bincount(encoded.documents, costs, minlength=len(texts)).astype(np.int64)
        return Prepared(texts, encoded, costs)

    def answers(self, parts: Sequence[tuple[Prepared, NDArray[np.int64]]]) -> Answers:
        """Compute the logits of texts of several requests together.

        Args:
            parts: Of each request, which of its texts, by their places.

        Returns:
            Logits, float32 (texts, classes), the parts one after another.
        """
        if self.classifier.first is not None:  # student and teacher may cut texts differently
            return self.classifier.answers([part.texts[place] for part, places in parts for place in places])
        joined = join_encoded([part.encoded.of_documents(places) for part, places in parts])
        return Answers(self.classifier.predictor.logits(joined, self.classifier.tokens), None)

    def pooled(self, prepared: Prepared) -> NDArray[np.float32]:
        """Compute what the head reads of texts, float32 (texts, width); of a cascade that of the teacher."""
        return self.classifier.predictor.pooled(prepared.encoded, self.classifier.tokens)
