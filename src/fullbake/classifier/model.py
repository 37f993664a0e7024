"""`Classifier`: encoder, head, labels and tokenizer as one object that predicts, saves and loads.

It uses scikit-learn's names (`predict`, `predict_proba`, `classes_`). Saved, it is a bundle: with the standard head a
plain Hugging Face model folder, where `fullbake.json` and other files add what transformers does not keep. Loading
hashes every file (0.2 s for 90 MB) and computes the logits of packaged probe texts again, so that wrong or missing
weights are found.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake.classifier import manifest
from fullbake.classifier.arguments import as_texts, check_pair_lengths
from fullbake.classifier.bundle_shape import is_history
from fullbake.classifier.manifest import BUNDLE_FORMAT, TOLERANCE, sign_manifest
from fullbake.config.problems import SINGLE_LABEL, Problem, ProblemType, problem_named
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core import hashing, storage
from fullbake.core.errors import BundleError, DataError
from fullbake.core.json_files import ShapeFault, read_checked_json
from fullbake.core.runtime import device
from fullbake.core.storage import MANIFEST_FILE
from fullbake.evaluation import plots
from fullbake.evaluation.decisions import Decision
from fullbake.models.encoding import Encoded
from fullbake.models.inference import logits_over
from fullbake.models.network import load_network
from fullbake.models.prediction import TextsOrPairs, encode
from fullbake.models.pretrained import first_line, max_positions, quiet_transformers
from fullbake.models.tokenizer import load_tokenizer
from fullbake.models.tokenizer_safety import TokenizerFacts, remember_written

LogitsFunction = Callable[[PreTrainedModel, Encoded, int], np.ndarray]
"""(network, encoded texts, pad id) -> logits (texts, classes)."""


@dataclass(frozen=True)
class BundleContents:
    """What a bundle holds."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    facts: dict[str, Any]
    """The entries of fullbake.json but for `format` and `files`."""

    seen: dict[str, np.ndarray] = field(default_factory=dict)
    """`hashes` of the training texts, uint8 (texts, 16), and the row numbers of each part, int64."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch, as the training loop made them."""


def write_bundle(target: Path, bundle: BundleContents, score: LogitsFunction, *, overwrite: bool) -> None:
    """Save a bundle atomically: `target` holds the complete bundle, or what it held before.

    Args:
        target: Folder for the bundle.
        bundle: What to save.
        score: Computes the logits of the probe texts.
        overwrite: Replace what `target` holds.

    Raises:
        OutputError: `target` holds something, and `overwrite` is False.
        SpaceFault: The disk has too little space.
    """
    weights = sum(tensor.nbytes for tensor in bundle.network.state_dict().values())
    with storage.staged(target, overwrite=overwrite, needed=weights + 4_000_000) as folder:
        with quiet_transformers():
            bundle.network.save_pretrained(folder)
            bundle.tokenizer.save_pretrained(folder)
        remember_written(folder / "tokenizer.json")
        storage.write_tensors(folder / "probe.safetensors", _probe_arrays(bundle, score))
        storage.write_tensors(folder / "seen.safetensors", bundle.seen)
        files = hashing.hash_files(folder)
        storage.write_json(
            folder / MANIFEST_FILE, sign_manifest({"format": BUNDLE_FORMAT, **bundle.facts, "files": files})
        )
        _write_unhashed_files(folder, bundle)


def read_bundle(folder: Path, score: LogitsFunction) -> BundleContents:
    """Load a bundle, and check its format, its hashes and the logits of the probe texts.

    Raises:
        BundleError: A check failed; the message names the file.
    """
    facts = manifest.read_manifest(folder)
    files = facts.pop("files")
    manifest.verify_files(folder, files)
    tokenizer_facts = manifest.check_contents(folder, facts, files)
    network = load_network(folder)
    with manifest.explain_faults(folder, "tokenizer.json"):
        tokenizer = load_tokenizer(folder)
    bundle = BundleContents(
        network=network,
        tokenizer=tokenizer,
        facts=facts,
        seen=manifest.read_seen(folder),
        history=_read_history(folder, facts["recipe"]["training"]["metric"]),
    )
    _check_tokenizer(folder, bundle, tokenizer_facts)
    _check_probe(folder, bundle, score)
    return bundle


def _check_tokenizer(folder: Path, bundle: BundleContents, known: TokenizerFacts) -> None:
    """Raise BundleError if the tokenizer gives ids, segments or lengths for which the network has no weights."""
    network: Any = bundle.network
    tokens = TokensConfig.model_validate(bundle.facts["tokens"])
    assert tokens.max_length is not None
    with manifest.explain_faults(folder, "tokenizer.json"):
        limit = max_positions(getattr(network.config, "encoder", network.config))
        if tokens.max_length > limit:
            raise ShapeFault("tokens.max_length of fullbake.json", f"at most {limit:,}", f"{tokens.max_length:,}")
        rows = network.get_input_embeddings().weight.shape[0]
        # tokenizer_config.json may name tokens that tokenizer.json lacks: transformers then adds them.
        highest = max(known.highest_id, *bundle.tokenizer.added_tokens_decoder)
        if highest >= rows:
            raise ShapeFault("ids", f"ids below {rows:,}, for which there are weights", f"{highest:,}")
        texts = manifest.probe_texts()
        pair = None if bundle.facts["columns"]["text_pair"] is None else texts
        types = encode(texts, bundle.tokenizer, tokens, pair).token_type_ids
        segments = getattr(getattr(network.config, "encoder", network.config), "type_vocab_size", None) or 0
        if types is not None and int(types.max(initial=0)) >= segments > 0:
            raise ShapeFault("segments", f"segments below {segments}", str(types.max()))


def _probe_arrays(bundle: BundleContents, score: LogitsFunction) -> dict[str, np.ndarray]:
    """Return the token ids of the probe texts, and the logits that they give now."""
    encoded = _encode_probe(bundle)
    arrays: dict[str, np.ndarray] = {"input_ids": encoded.input_ids, "offsets": encoded.offsets}
    if encoded.token_type_ids is not None:
        arrays["token_type_ids"] = encoded.token_type_ids
    return arrays | {"logits": score(bundle.network, encoded, bundle.tokenizer.pad_token_id)}


def _encode_probe(bundle: BundleContents) -> Encoded:
    tokens = manifest.probe_settings(TokensConfig.model_validate(bundle.facts["tokens"]))
    return encode(manifest.probe_texts(), bundle.tokenizer, tokens)


def _check_probe(folder: Path, bundle: BundleContents, score: LogitsFunction) -> None:
    """Raise BundleError if the probe texts give other token ids or other logits than the stored ones."""
    network: Any = bundle.network
    limit = max_positions(getattr(network.config, "encoder", network.config))
    stored = manifest.read_probe(folder, labels=len(bundle.facts["label_names"]), max_length=limit)
    expected = stored.pop("logits")
    if not manifest.has_same_ids(stored, _encode_probe(bundle)):
        raise BundleError(
            "the tokenizer gives the probe texts other token ids than when this bundle was saved",
            where=str(folder),
            expected="the ids in probe.safetensors",
            remedy="tokenizer.json, tokenizer_config.json or the installed libraries have changed. Compare `versions` "
            f"in {MANIFEST_FILE} with the versions that are installed here.",
        )
    got = _score_probe(folder, bundle, Encoded(**stored), score)
    difference = manifest.relative_difference(expected, got)
    if not difference <= TOLERANCE:  # so written, NaN is refused too
        raise BundleError(
            "the probe texts give other logits than when this bundle was saved",
            where=str(folder),
            expected=f"logits within {TOLERANCE:g} of their scale",
            got=f"a difference of {difference:.2g}",
            remedy="The weights, the tokenizer or the installed libraries have changed. Compare "
            f"`versions` in {MANIFEST_FILE} with the versions that are installed here.",
        )


def _score_probe(folder: Path, bundle: BundleContents, probe: Encoded, score: LogitsFunction) -> np.ndarray:
    """Return the logits of the probe's rows. Raise BundleError if the network has no weights for one of its tokens."""
    network: Any = bundle.network
    with manifest.explain_faults(folder, "probe.safetensors"):
        rows = network.get_input_embeddings().weight.shape[0]
        if probe.input_ids.min() < 0 or probe.input_ids.max() >= rows:
            raise ShapeFault("input_ids", f"ids from 0 to {rows - 1:,}", f"{probe.input_ids.max():,}")
        try:
            return score(bundle.network, probe, bundle.tokenizer.pad_token_id)
        except (IndexError, TypeError) as error:  # segments that the network does not take
            raise ShapeFault("", "rows that the network takes", first_line(error)) from error


def _read_history(folder: Path, metric: str) -> list[dict[str, Any]]:
    """Return the history; [] if the user, who may edit it, removed or changed it."""
    try:
        history = read_checked_json(folder / "history.json")
    except (OSError, ValueError):
        return []
    return history if is_history(history, metric) else []


def _write_unhashed_files(folder: Path, bundle: BundleContents) -> None:
    """Write the files that users may edit: history, plots and model card."""
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
    storage.write_bytes(folder / "README.md", model_card(bundle.facts).encode("utf-8", "backslashreplace"))


def model_card(facts: dict[str, Any]) -> str:
    """Return the model card, in Markdown, made from the entries of fullbake.json."""
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
    """What is known of the run that made a classifier. It is saved with it."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Base, recipe, columns, data, metrics, versions, threads and more, as JSON values."""

    seen: dict[str, np.ndarray] = field(default_factory=dict)
    """`hashes` of the training texts, uint8 (texts, 16), and the row numbers of each part, int64."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch."""

    rows: dict[str, Any] = field(default_factory=dict)
    """What a page shows of the rows that were scored (`row_facts.describe_rows`). Never saved: it holds texts of rows,
    and a bundle is shared. Empty for a classifier that was loaded."""


class Classifier:
    """A trained text classifier.

    Args:
        network: A transformers model whose `logits` are (texts, classes).
        tokenizer: The tokenizer of the base.
        tokens: How texts are cut and batched; `max_length` must be a number.
        record: The run that made the classifier.
        decision: How probabilities become labels. None: the likeliest class, or for multi label each label of 0.5 and
            more.

    Attributes:
        classes_: Names of the classes in the order of the logits, an object array.
        problem: The kind of problem, single label or multi label.
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
        self.problem: Problem = problem_named(network.config.problem_type or SINGLE_LABEL)
        self.decision = decision or Decision(self.problem, self.label_names)

    @property
    def problem_type(self) -> ProblemType:
        """`single_label_classification` or `multi_label_classification`, as in transformers' config.json."""
        return self.problem.name

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.classes_)

    @property
    def columns(self) -> Columns:
        """The names of the text and label columns in training."""
        return Columns.from_json(self.record.facts.get("columns", {"text": "text"}))

    @property
    def dropped_labels(self) -> tuple[str, ...]:
        """Labels that training left out because they were rare (`--drop-rare`)."""
        return tuple(self.record.facts.get("data", {}).get("dropped_labels") or ())

    @property
    def stamps(self) -> list[str]:
        """Sentences that must accompany the scores, for example that test texts were in the pretraining corpus."""
        return score_warnings(self.record.facts)

    def logits(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
        """Compute the scores before softmax or sigmoid.

        Args:
            texts: A list of strings, or what can stand for one: a column of pandas, numpy or Arrow, a generator, or a
                table (a data frame, a dict of lists, a `Dataset`) with the text columns of training.
            text_pair: The second text of each, for a classifier of pairs.

        Returns:
            float32 (texts, classes), in the order of `texts`.

        Raises:
            DataError: A text is not a string, or pairs and single texts are mixed up.
        """
        texts, text_pair = as_texts(texts, text_pair, self.columns)
        self._check_pairs(text_pair is not None)
        check_pair_lengths(texts, text_pair)
        if not len(texts):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        encoded = encode(texts, self.tokenizer, self.tokens, text_pair=text_pair)
        return logits_over(self.network, encoded, tokens=self.tokens, pad_id=self.tokenizer.pad_token_id)

    def _check_pairs(self, given: bool) -> None:
        trained = self.columns.text_pair is not None
        if given != trained:
            raise DataError(
                f"this classifier was trained on {'pairs of texts' if trained else 'single texts'}",
                expected="a second text of each, as text_pair" if trained else "no text_pair",
                got="a text_pair" if given else "single texts",
                remedy="Pass predict(texts, text_pair)." if trained else "Leave text_pair out.",
            )

    def predict_proba(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
        """Compute the probability of each class.

        Args:
            texts: As for `logits`.
            text_pair: As for `logits`.

        Returns:
            float64 (texts, classes), columns in the order of `classes_`. Of a single-label classifier each row sums to
            1; of a multi-label one each column is a probability of its own.
        """
        return self.problem.probabilities(self.logits(texts, text_pair))

    def predict(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
        """Predict the label or labels of each text, by `decision`.

        Args:
            texts: As for `logits`.
            text_pair: As for `logits`.

        Returns:
            Class names, an object array (texts,); of a multi-label classifier 0 and 1 as uint8 (texts, classes), which
            is scikit-learn's label indicator matrix.
        """
        decided = self.decision.decide(self.predict_proba(texts, text_pair))
        return self.problem.predictions(decided, self.classes_)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save the classifier as a bundle (docs/reference/bundle.md), atomically.

        Args:
            folder: Folder for the bundle.
            overwrite: Replace what the folder holds when the new bundle is complete.

        Raises:
            OutputError: The folder holds something, and `overwrite` is False.
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
        """Load a bundle. Its files' hashes and the logits of its probe texts are checked.

        Args:
            folder: A folder that `save` or `fullbake train` wrote.

        Raises:
            BundleError: The folder is not a bundle, is damaged, or gives other logits than when it was saved.
        """
        parts = read_bundle(Path(folder), _probe_logits)
        facts = dict(parts.facts)
        tokens = TokensConfig.model_validate(facts["tokens"])
        decision = Decision.from_json(facts["thresholds"], problem_named(facts["problem_type"]), facts["label_names"])
        return cls(parts.network, parts.tokenizer, tokens, RunRecord(facts, parts.seen, parts.history), decision)


def score_warnings(facts: Mapping[str, Any]) -> list[str]:
    """Return the sentences that must accompany the scores of a bundle. facts: the entries of its fullbake.json."""
    data = facts.get("data", {})
    rows, near, dropped = data.get("overlap_allowed", 0), data.get("near_overlap", 0), data.get("dropped_labels")
    pretraining, group = facts.get("further_pretraining") or {}, facts.get("columns", {}).get("group")
    shared = "" if group is None else f", by their text or their {group!r}"
    found = {
        f"{rows:,} training rows are in the validation or test part too{shared} (--allow-overlap): scores are too "
        "high.": rows > 0,
        f"{near:,} rows that were scored are nearly equal to a training text (--near-duplicates apart): scores may be "
        "too high.": near > 0,
        f"Rare labels were left out ({len(dropped or ())}, --drop-rare) and are never predicted: scores are of the "
        "others.": bool(dropped),
        "Texts of the validation and test parts were used in further pretraining (--transductive): scores may be too "
        "high.": pretraining.get("transductive", False),
    }
    return [sentence for sentence, applies in found.items() if applies]


def _probe_logits(network: Any, encoded: Encoded, pad_id: int) -> np.ndarray:
    """Compute the logits of the probe texts, in batches as in every other run."""
    settings = TokensConfig(max_length=max(4, int(encoded.lengths.max())))
    return logits_over(network.to(device()).eval(), encoded, tokens=settings, pad_id=pad_id, title="checking")
