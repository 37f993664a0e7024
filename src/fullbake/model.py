"""`Classifier`: encoder, head, labels and tokenizer as one thing that predicts, saves and loads.

Keeps scikit-learn's words (`predict`, `predict_proba`, `classes_`). Which way made it is not asked here, nor anywhere
above.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake import bundle
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core.errors import BundleError, DataError
from fullbake.core.runtime import device
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.models.encoding import Encoded
from fullbake.models.inference import Texts, encode, logits_over


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
    cut and batched, max_length a number. record: the run that made it. decision: how scores become labels (None: the
    likeliest class, or 0.5 for each of many labels).
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        tokens: TokensConfig,
        record: Record,
        decision: Decision | None = None,
    ) -> None:
        placed: Any = network  # transformers' own types do not know a device as an argument of `to`
        self.network = placed.to(device()).eval()
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.record = record
        names: Any = network.config.id2label
        self.classes_: np.ndarray = np.array([names[position] for position in range(len(names))], dtype=np.object_)
        self.decision = decision or Decision(self.problem_type, self.label_names)

    @property
    def problem_type(self) -> ProblemType:
        """`single_label_classification`, or `multi_label_classification` where a text may have many labels."""
        return MULTI_LABEL if self.network.config.problem_type == MULTI_LABEL else SINGLE_LABEL

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.classes_)

    @property
    def columns(self) -> Columns:
        """Which columns held the texts and the labels in training."""
        return Columns.from_json(self.record.facts["columns"])

    @property
    def stamps(self) -> list[str]:
        """What its scores have to be read with, a sentence each: that test texts were learned from, say."""
        return stamps(self.record.facts)

    def logits(self, texts: Texts, text_pair: Texts | None = None) -> np.ndarray:
        """Scores before softmax or sigmoid, float32 (texts, classes), in the order of `texts`.

        text_pair: the second text of each, for a classifier of pairs. Raises DataError for what is no text.
        """
        if isinstance(texts, str):
            raise DataError(
                "texts are taken, not one text",
                expected="a list of strings",
                got=repr(texts[:40]),
                remedy="Put it into a list: predict([text]).",
            )
        self._check_pairs(text_pair is not None)
        if not len(texts):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        encoded = encode(texts, self.tokenizer, self.tokens, text_pair=text_pair)
        return logits_over(self.network, encoded, tokens=self.tokens, pad_id=self.tokenizer.pad_token_id)

    def _check_pairs(self, given: bool) -> None:
        trained = self.record.facts.get("columns", {}).get("text_pair") is not None
        if given != trained:
            raise DataError(
                f"this classifier was trained on {'pairs of texts' if trained else 'single texts'}",
                expected="a second text of each, as text_pair" if trained else "no text_pair",
                got="a text_pair" if given else "single texts",
                remedy="Pass predict(texts, text_pair)." if trained else "Leave text_pair out.",
            )

    def predict_proba(self, texts: Texts, text_pair: Texts | None = None) -> np.ndarray:
        """Probability of each class, float64 (texts, classes); columns in the order of `classes_`. Where a text may
        have many labels, each column is a probability of its own."""
        return probabilities(self.logits(texts, text_pair), self.problem_type)

    def predict(self, texts: Texts, text_pair: Texts | None = None) -> np.ndarray:
        """The class of each text by `decision`: its name, an object array (texts,); or, where a text may have many
        labels, 0 and 1 as uint8 (texts, classes), scikit-learn's indicator matrix."""
        decided = self.decision.decide(self.predict_proba(texts, text_pair))
        named: np.ndarray = decided if decided.ndim == 2 else self.classes_[decided]
        return named

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the bundle (docs/reference/bundle.md), atomically.

        Raises OutputError where the folder holds something and `overwrite` is false; with it the old content stands
        until the new is complete.
        """
        facts = self.record.facts | {
            "problem_type": self.problem_type,
            "label_names": list(self.label_names),
            "thresholds": self.decision.to_json(),
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
        decision = Decision.from_json(facts["thresholds"], facts["problem_type"], facts["label_names"])
        loaded = cls(parts.network, parts.tokenizer, tokens, Record(facts, parts.seen, parts.history), decision)
        if list(loaded.label_names) != facts["label_names"]:
            raise BundleError(
                "config.json and fullbake.json name other labels",
                where=str(folder),
                expected=str(facts["label_names"]),
                got=str(list(loaded.label_names)),
                remedy="Copy the bundle again from where it was whole.",
            )
        return loaded


def stamps(facts: Mapping[str, Any]) -> list[str]:
    """The same out of what a bundle's fullbake.json says."""
    rows = facts.get("data", {}).get("overlap_allowed", 0)
    pretraining = facts.get("further_pretraining") or {}
    found = {
        f"{rows:,} training rows also stand in a later part (--allow-overlap): the scores flatter.": rows > 0,
        "Texts of the validation and test parts were let into further pretraining (--transductive): the scores may "
        "flatter.": pretraining.get("transductive", False),
    }
    return [stamp for stamp, holds in found.items() if holds]


def _probe_logits(network: Any, encoded: Encoded, pad_id: int) -> np.ndarray:
    """The probe texts' logits, batched as every run batches them."""
    settings = TokensConfig(max_length=max(4, int(encoded.lengths.max())))
    return logits_over(network.to(device()).eval(), encoded, tokens=settings, pad_id=pad_id, title="proving")
