"""`Classifier`: encoder, head, labels and tokenizer as one thing that predicts, saves and loads.

Keeps scikit-learn's words (`predict`, `predict_proba`, `classes_`). Which way made it is not asked here, nor anywhere
above.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake import bundle
from fullbake.config import TokensConfig
from fullbake.errors import BundleError, DataError
from fullbake.inference import Texts, encode, logits_over, probabilities
from fullbake.runtime import device
from fullbake.tokens import Encoded


@dataclass(frozen=True)
class Record:
    """What is known of the run that made a classifier; saved with it.

    facts: base, recipe, columns, data, metrics, versions, threads: JSON values. seen: hashes of the training texts
    (uint8, texts x 16) and the row numbers of each part. history: an entry an epoch.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Classifier:
    """A trained text classifier.

    network: a transformers model whose `logits` are (texts, classes). tokenizer: the base's. tokens: how texts are
    cut and batched, max_length a number. record: the run that made it.
    """

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tokens: TokensConfig, record: Record
    ) -> None:
        placed: Any = network  # transformers' own types do not know a device as an argument of `to`
        self.network = placed.to(device()).eval()
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.record = record
        names: Any = network.config.id2label
        self.classes_: np.ndarray = np.array([names[position] for position in range(len(names))], dtype=np.object_)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.classes_)

    @property
    def text_column(self) -> str:
        """The column that held the texts in training."""
        return str(self.record.facts["columns"]["text"])

    @property
    def label_column(self) -> str:
        """The column that held the labels in training."""
        return str(self.record.facts["columns"]["label"])

    def logits(self, texts: Texts) -> np.ndarray:
        """Scores before the softmax, float32 (texts, classes), in the order of `texts`. Raises DataError for what is
        no text."""
        if isinstance(texts, str):
            raise DataError(
                "texts are taken, not one text",
                expected="a list of strings",
                got=repr(texts[:40]),
                remedy="Put it into a list: predict([text]).",
            )
        if not len(texts):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        encoded = encode(texts, self.tokenizer, self.tokens)
        return logits_over(self.network, encoded, tokens=self.tokens, pad_id=self.tokenizer.pad_token_id)

    def predict_proba(self, texts: Texts) -> np.ndarray:
        """Probability of each class, float64 (texts, classes); columns in the order of `classes_`."""
        return probabilities(self.logits(texts))

    def predict(self, texts: Texts) -> np.ndarray:
        """Name of the likeliest class of each text, an object array (texts,)."""
        likeliest: np.ndarray = self.classes_[self.logits(texts).argmax(axis=1)]
        return likeliest

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the bundle (docs/reference/bundle.md), atomically.

        Raises OutputError where the folder holds something and `overwrite` is false; with it the old content stands
        until the new is complete.
        """
        facts = self.record.facts | {
            "problem_type": self.network.config.problem_type,
            "label_names": list(self.label_names),
            "thresholds": None,
            "tokens": self.tokens.model_dump(mode="json"),
        }
        parts = bundle.Bundle(self.network, self.tokenizer, facts, self.record.seen, self.record.history)
        bundle.write(Path(folder), parts, _probe_logits, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> "Classifier":
        """Read a bundle, checking every file's hash and the probe's logits. Raises BundleError."""
        parts = bundle.read(Path(folder), _probe_logits)
        facts = dict(parts.facts)
        tokens = TokensConfig.model_validate(facts["tokens"])
        loaded = cls(parts.network, parts.tokenizer, tokens, Record(facts, parts.seen, parts.history))
        if list(loaded.label_names) != facts["label_names"]:
            raise BundleError(
                "config.json and fullbake.json name other labels",
                where=str(folder),
                expected=str(facts["label_names"]),
                got=str(list(loaded.label_names)),
                remedy="Copy the bundle again from where it was whole.",
            )
        return loaded


def _probe_logits(network: Any, encoded: Encoded, pad_id: int) -> np.ndarray:
    """The probe texts' logits, batched as every run batches them."""
    settings = TokensConfig(max_length=max(4, int(encoded.lengths.max())))
    return logits_over(network.to(device()).eval(), encoded, tokens=settings, pad_id=pad_id, title="proving")
