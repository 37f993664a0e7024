"""A saved classifier on disk: which files it has, and the proof on reload that they are what was saved.

With the standard head the folder is a plain Hugging Face model folder; `fullbake.json` and the files beside it add what
transformers does not keep. Loading hashes every file (0.2 s for 90 MB) and scores packaged probe texts again, so that
wrong or missing weights never pass in silence.

`Classifier`: encoder, head, labels and tokenizer as one thing that predicts, saves and loads.

Keeps scikit-learn's words (`predict`, `predict_proba`, `classes_`). Which way made it is not asked here, nor anywhere
above.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake.classifier import manifest
from fullbake.classifier.manifest import BUNDLE_FORMAT, MANIFEST_FILE, TOLERANCE, sign_manifest
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core import hashing, storage
from fullbake.core.errors import BundleError, DataError
from fullbake.core.runtime import device
from fullbake.evaluation import plots
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.models.encoding import Encoded
from fullbake.models.inference import TextsOrPairs, encode, logits_over
from fullbake.models.network import load_network
from fullbake.models.pretrained import quiet_transformers
from fullbake.models.tokenizer import load_tokenizer

PROBE_TEXT_TOKENS = 64
"""Probe texts are cut to this many tokens: enough to touch every weight, quick on every load."""

LogitsFunction = Callable[[PreTrainedModel, Encoded, int], np.ndarray]
"""(network, encoded texts, pad id) -> logits (texts, classes)."""


@dataclass(frozen=True)
class BundleContents:
    """What a bundle holds.

    facts: `fullbake.json` without its format and files. seen: hashes of the training texts, uint8 (texts, 16), and row
    numbers of each part, int64, by name. history: entries as the loop made them.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: dict[str, Any]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def write_bundle(target: Path, bundle: BundleContents, score: LogitsFunction, *, overwrite: bool) -> None:
    """Save atomically: `target` holds a whole bundle or stays as it was.

    Raises OutputError where `target` holds something and `overwrite` is false, SpaceFault where the disk is too small.
    """
    weights = sum(tensor.nbytes for tensor in bundle.network.state_dict().values())
    with storage.staged(target, overwrite=overwrite, needed=weights + 4_000_000) as folder:
        with quiet_transformers():
            bundle.network.save_pretrained(folder)
            bundle.tokenizer.save_pretrained(folder)
        storage.write_tensors(folder / "probe.safetensors", _probe(bundle, score))
        storage.write_tensors(folder / "seen.safetensors", bundle.seen)
        files = hashing.hash_files(folder)
        storage.write_json(
            folder / MANIFEST_FILE, sign_manifest({"format": BUNDLE_FORMAT, **bundle.facts, "files": files})
        )
        _write_free_files(folder, bundle)


def read_bundle(folder: Path, score: LogitsFunction) -> BundleContents:
    """Load a bundle, checking format, hashes and the probe's logits. Raises BundleError that names the file at
    fault."""
    facts = manifest.read_manifest(folder)
    manifest.verify_files(folder, facts.pop("files"))
    bundle = BundleContents(
        network=load_network(folder),
        tokenizer=load_tokenizer(folder),
        facts=facts,
        seen=storage.read_tensors(folder / "seen.safetensors"),
        history=_read_history(folder),
    )
    _check_probe(folder, bundle, score)
    return bundle


def probe_texts() -> list[str]:
    """The packaged probe texts: never a user's rows."""
    return (resources.files("fullbake") / "resources" / "samples" / "probe.txt").read_text("utf-8").splitlines()


def _probe(bundle: BundleContents, score: LogitsFunction) -> dict[str, np.ndarray]:
    limit = min(PROBE_TEXT_TOKENS, bundle.facts["tokens"]["max_length"])
    tokens = TokensConfig(max_length=limit)
    encoded = encode(probe_texts(), bundle.tokenizer, tokens)
    arrays: dict[str, np.ndarray] = {"input_ids": encoded.input_ids, "offsets": encoded.offsets}
    if encoded.token_type_ids is not None:
        arrays["token_type_ids"] = encoded.token_type_ids
    return arrays | {"logits": score(bundle.network, encoded, bundle.tokenizer.pad_token_id)}


def _check_probe(folder: Path, bundle: BundleContents, score: LogitsFunction) -> None:
    stored = storage.read_tensors(folder / "probe.safetensors")
    expected = stored.pop("logits")
    got = score(bundle.network, Encoded(**stored), bundle.tokenizer.pad_token_id)
    apart = manifest.relative_difference(expected, got)
    if not apart <= TOLERANCE:
        raise BundleError(
            "the probe texts score otherwise than when this bundle was saved",
            where=str(folder),
            expected=f"logits within {TOLERANCE:g} of their scale",
            got=f"a difference of {apart:.2g}",
            remedy="The weights, the tokenizer or the installed libraries are not those it was saved with; compare "
            f"`versions` in {MANIFEST_FILE} with what is installed here.",
        )


def _read_history(folder: Path) -> list[dict[str, Any]]:
    """The history, [] where the user removed it or made something else of it: it is theirs to edit."""
    try:
        history = storage.read_json(folder / "history.json")
    except (OSError, ValueError):
        return []
    return history if isinstance(history, list) else []


def _write_free_files(folder: Path, bundle: BundleContents) -> None:
    storage.write_json(folder / "history.json", bundle.history)
    if bundle.history:
        metric = bundle.facts["recipe"]["training"]["metric"]
        storage.write_bytes(folder / "history.png", plots.history_figure(bundle.history, metric))
    calibration, validation = bundle.facts.get("calibration"), bundle.facts.get("metrics", {}).get("validation")
    if calibration:
        figure = plots.reliability_figure(calibration["before"], calibration["after"])
        storage.write_bytes(folder / "reliability.png", figure)
    if validation and validation["confusion_matrix"] is None:
        storage.write_bytes(folder / "labels.png", plots.labels_figure(validation["per_class"]))
    storage.write_bytes(folder / "README.md", model_card(bundle.facts).encode())


def model_card(facts: dict[str, Any]) -> str:
    """The model card, Markdown, from what `fullbake.json` says."""
    environment = Environment(
        loader=PackageLoader("fullbake", "resources/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["figure"] = lambda score: "-" if score["value"] is None else f"{score['value']:.4f}"
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template("model_card.md").render(**facts)


@dataclass(frozen=True)
class RunRecord:
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
        record: RunRecord,
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
        return score_warnings(self.record.facts)

    def logits(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
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

    def predict_proba(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
        """Probability of each class, float64 (texts, classes); columns in the order of `classes_`. Where a text may
        have many labels, each column is a probability of its own."""
        return probabilities(self.logits(texts, text_pair), self.problem_type)

    def predict(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
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
        parts = BundleContents(self.network, self.tokenizer, facts, self.record.seen, self.record.history)
        write_bundle(Path(folder), parts, _probe_logits, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> "Classifier":
        """Read a bundle, checking every file's hash and the probe's logits. Raises BundleError."""
        parts = read_bundle(Path(folder), _probe_logits)
        facts = dict(parts.facts)
        tokens = TokensConfig.model_validate(facts["tokens"])
        decision = Decision.from_json(facts["thresholds"], facts["problem_type"], facts["label_names"])
        loaded = cls(parts.network, parts.tokenizer, tokens, RunRecord(facts, parts.seen, parts.history), decision)
        if list(loaded.label_names) != facts["label_names"]:
            raise BundleError(
                "config.json and fullbake.json name other labels",
                where=str(folder),
                expected=str(facts["label_names"]),
                got=str(list(loaded.label_names)),
                remedy="Copy the bundle again from where it was whole.",
            )
        return loaded


def score_warnings(facts: Mapping[str, Any]) -> list[str]:
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
