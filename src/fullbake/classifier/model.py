"""`Classifier`: encoder, head, labels and tokenizer as one object that predicts, saves and loads.

It uses scikit-learn's names (`predict`, `predict_proba`, `classes_`). Saved, it is a bundle: with the standard head a
plain Hugging Face model folder, where `fullbake.json` and other files add what transformers does not keep. Loading
hashes every file (0.2 s for 90 MB) and computes the logits of packaged probe texts again, so that wrong or missing
weights are found.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fullbake.classifier.accuracy import accuracy_of
from fullbake.classifier.arguments import as_texts, check_pair_lengths, take_texts
from fullbake.classifier.bundle_reader import read_bundle
from fullbake.classifier.cascade_files import MEMBERS, is_cascade, read_cascade, write_cascade
from fullbake.classifier.classifier_view import ClassifierFacts, classifier_html, describe_in_a_line
from fullbake.classifier.explanation import MOST_PARTS, Explanation, explain_text, require_one_text
from fullbake.classifier.hub_bundles import hub_faults, is_hub_id, local_bundle
from fullbake.classifier.occlusion import OcclusionScorer
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.config.problems import SINGLE_LABEL, Problem, ProblemType, problem_named
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core.attributes import NamesRightAttribute
from fullbake.core.errors import BundleError, DataError
from fullbake.core.extras import name_missing_extra
from fullbake.core.synonyms import METHOD_NOTES, METHOD_SYNONYMS
from fullbake.evaluation.agreement import CascadeThreshold, decision_margins
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.history import TrainingHistory
from fullbake.evaluation.top_labels import LabelScore, Threshold, list_top_labels, with_threshold
from fullbake.models.prediction import Predictor, TextsOrPairs, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from fullbake.models.torch_predictor import TorchPredictor


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


@dataclass(frozen=True)
class FirstAnswers:
    """The faster classifier that answers before another one in a cascade."""

    student: "Classifier"
    """A classifier of the same labels."""

    threshold: CascadeThreshold
    """From which margin on it answers."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores before softmax or sigmoid, and whose they are."""

    logits: np.ndarray
    """float32 (texts, classes)."""

    answered_by: np.ndarray | None
    """`student` or `teacher` for each text, an object array (texts,); None of a classifier that is no cascade."""


class Classifier(NamesRightAttribute):
    """A trained text classifier. Any number of threads may use it at once.

    With `first` it is a cascade: a faster classifier answers where it is sure enough, this one the rest. Labels are
    made by this one's decision, whoever answers.

    Args:
        predictor: The engine that computes logits and what the head reads.
        tokenizer: What `prediction.encode` needs of the base's tokenizer.
        tokens: How texts are cut and batched; `max_length` must be a number.
        record: The run that made the classifier.
        decision: How probabilities become labels. None: the likeliest class, or for multi label each label of 0.5 and
            more.
        label_names: Names of the classes, in the order of the logits.
        problem: The kind of problem, single label or multi label.
        first: The classifier that answers first, in a cascade.

    Attributes:
        classes_: Names of the classes in the order of the logits, an object array.
        problem: The kind of problem, single label or multi label.
    """

    _synonyms = METHOD_SYNONYMS
    _notes = METHOD_NOTES

    def __init__(
        self,
        predictor: Predictor,
        tokenizer: Any,
        tokens: TokensConfig,
        record: RunRecord,
        decision: Decision | None = None,
        *,
        label_names: Sequence[str],
        problem: Problem,
        first: FirstAnswers | None = None,
    ) -> None:
        self.predictor = predictor
        self.first = first
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.record = record
        self.classes_: np.ndarray = np.array(label_names, dtype=np.object_)
        self.problem = problem
        self.decision = decision or Decision(problem, self.label_names)

    @classmethod
    def of_network(
        cls,
        network: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerFast",
        tokens: TokensConfig,
        record: RunRecord,
        decision: Decision | None = None,
    ) -> "Classifier":
        """Make a classifier of a network, with the engine `torch`. Its config says the labels and the problem.

        Args:
            network: A transformers model whose `logits` are (texts, classes). It is moved to this machine's device.
            tokenizer: The tokenizer of the base.
            tokens: As for the class; `record` and `decision` too.
            record: The run.
            decision: The decision.
        """
        from fullbake.models.torch_predictor import TorchPredictor

        names: Any = network.config.id2label
        return cls(
            TorchPredictor(network, int(tokenizer.pad_token_id)),
            tokenizer,
            tokens,
            record,
            decision,
            label_names=[names[position] for position in range(len(names))],
            problem=problem_named(network.config.problem_type or SINGLE_LABEL),
        )

    def __repr__(self) -> str:
        """Return one line: labels, way, base, the score that counts most, and the engine."""
        return describe_in_a_line(self._facts())

    def _repr_html_(self) -> str:
        """Return what it is, its scores, what it costs, and its decision, for a notebook."""
        return classifier_html(self._facts())

    def _facts(self) -> ClassifierFacts:
        first = None if self.first is None else self.first.threshold
        weights = None if self.engine != "torch" else list(self.network.parameters())
        return ClassifierFacts(
            self.record.facts,
            self.label_names,
            self.problem,
            self.decision,
            self.engine,
            None if weights is None else sum(tensor.numel() for tensor in weights),
            None if weights is None else sum(tensor.nbytes for tensor in weights),
            self.stamps,
            None if first is None else f"a student, {first.share:.0%} of the texts that the cascade was made with",
        )

    @property
    def history(self) -> TrainingHistory:
        """The entries of its training: one an epoch, or one for each strength of regularization that was tried."""
        training = self.record.facts.get("recipe", {}).get("training", {})
        return TrainingHistory(self.record.history, training.get("metric", "f1_macro"))

    @property
    def engine(self) -> str:
        """What computes: `torch` or `onnx`."""
        return self.predictor.engine

    @property
    def network(self) -> "PreTrainedModel":
        """The transformers model.

        Raises:
            BundleError: The classifier was loaded with an engine that has none.
        """
        return self._torch_predictor("network").network

    def _torch_predictor(self, what: str) -> "TorchPredictor":
        if self.engine != "torch":
            raise BundleError(
                f"Classifier.{what} needs the engine torch",
                got=f"a classifier that was loaded with the engine {self.engine}",
                remedy="Load it by Classifier.load(FOLDER, engine='torch').",
            )
        predictor: Any = self.predictor
        found: TorchPredictor = predictor
        return found

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
        return self.answers(texts, text_pair).logits

    def answers(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> Answers:
        """Compute the scores before softmax or sigmoid, and who gave them in a cascade.

        Args:
            texts: As for `logits`.
            text_pair: As for `logits`.
        """
        texts, text_pair = self._checked_texts(texts, text_pair)
        if self.first is None:
            return Answers(self._own_logits(texts, text_pair), None)
        return self._cascade_answers(texts, self.first)

    def _checked_texts(
        self, texts: TextsOrPairs, text_pair: TextsOrPairs | None
    ) -> tuple[TextsOrPairs, TextsOrPairs | None]:
        texts, text_pair = as_texts(texts, text_pair, self.columns)
        self._check_pairs(text_pair is not None)
        check_pair_lengths(texts, text_pair)
        return texts, text_pair

    def _own_logits(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None) -> np.ndarray:
        if not len(texts):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        encoded = encode(texts, self.tokenizer, self.tokens, text_pair=text_pair)
        return self.predictor.logits(encoded, self.tokens)

    def _cascade_answers(self, texts: TextsOrPairs, first: FirstAnswers) -> Answers:
        """Let the student answer where its margin reaches the threshold, and this classifier the rest."""
        answered_by = np.full(len(texts), "teacher", dtype=np.object_)
        if first.threshold.margin is None:
            return Answers(self._own_logits(texts, None), answered_by)
        logits = first.student.logits(texts)
        margins = decision_margins(self.decision, self.problem.probabilities(logits))
        sure = margins >= first.threshold.margin
        answered_by[sure] = "student"
        rest = np.flatnonzero(~sure)
        if len(rest):
            logits[rest] = self._own_logits(take_texts(texts, rest), None)
        return Answers(logits, answered_by)

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

    @overload
    def predict(
        self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None, *, threshold: Threshold | None = None
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        texts: TextsOrPairs,
        text_pair: TextsOrPairs | None = None,
        *,
        top_k: int,
        threshold: Threshold | None = None,
    ) -> list[list[LabelScore]]: ...

    def predict(
        self,
        texts: TextsOrPairs,
        text_pair: TextsOrPairs | None = None,
        *,
        top_k: int | None = None,
        threshold: Threshold | None = None,
    ) -> np.ndarray | list[list[LabelScore]]:
        """Predict the label or labels of each text, by `decision`, or list the likeliest labels with their scores.

        Args:
            texts: As for `logits`.
            text_pair: As for `logits`.
            top_k: Return so many of the likeliest labels of each text with their scores, as a pipeline of transformers
                does. All labels: `len(classifier.classes_)`.
            threshold: Decide by this score in place of `decision`: see `top_labels.with_threshold`. With `top_k`:
                leave out labels with a lower score. A number, or a mapping from labels to numbers.

        Returns:
            Without `top_k`, as scikit-learn does: class names, an object array (texts,); of a multi-label classifier 0
            and 1 as uint8 (texts, classes), the label indicator matrix. With `top_k`, a list for each text of
            `{"label": name, "score": probability}`, the likeliest first; with a threshold it may be empty.

        Raises:
            RecipeError: `top_k` or `threshold` is wrong, or it is not clear which class a threshold belongs to.
        """
        probabilities = self.predict_proba(texts, text_pair)
        if top_k is not None:
            return list_top_labels(probabilities, self.label_names, top_k, threshold)
        decision = self.decision if threshold is None else with_threshold(self.decision, threshold)
        return self.problem.predictions(decision.decide(probabilities), self.classes_)

    def score(
        self,
        X: TextsOrPairs,  # noqa: N803  (scikit-learn's name)
        y: Any,
        text_pair: TextsOrPairs | None = None,
        sample_weight: Any = None,
    ) -> float:
        """Return the accuracy on labeled texts, as scikit-learn's classifiers do: the share of right labels.

        Of a multi-label classifier a text counts as right if all its labels are (subset accuracy). For macro-F1 and
        the other metrics, with intervals, there is `fullbake.evaluate`.

        Args:
            X: The texts, as for `logits`.
            y: Their labels: class names (texts,); of a multi-label classifier 0 and 1 (texts, classes), or a list of
                names for each text.
            text_pair: As for `logits`.
            sample_weight: How much each text counts, (texts,).

        Raises:
            DataError: X and y differ in length, or a label is none of the classifier's.
        """
        decided = self.decision.decide(self.predict_proba(X, text_pair))
        return accuracy_of(decided, y, self.problem, self.label_names, sample_weight)

    def embed(self, texts: TextsOrPairs, text_pair: TextsOrPairs | None = None) -> np.ndarray:
        """Compute what the head reads of each text, with either engine: vectors for search, clusters or another model.

        In a cascade they are those of this classifier, not of the student.

        Args:
            texts: As for `logits`.
            text_pair: As for `logits`.

        Returns:
            float32 (texts, width). Of a text in windows it is pooled over them as the logits are.
        """
        texts, text_pair = self._checked_texts(texts, text_pair)
        if not len(texts):
            width = self.embed([""], None if text_pair is None else [""]).shape[1]
            return np.empty((0, width), dtype=np.float32)
        encoded = encode(texts, self.tokenizer, self.tokens, text_pair=text_pair)
        return self.predictor.pooled(encoded, self.tokens)

    def explain(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        labels: str | Sequence[str] | None = None,
        max_parts: int = MOST_PARTS,
    ) -> Explanation:
        """Show which words the answer to one text rests on: each is left out once, and the scores are computed again.

        Args:
            text: The text.
            text_pair: The second text, for a classifier of pairs.
            labels: The label or labels to explain. None: those that the classifier gives, or the likeliest one if it
                gives none.
            max_parts: How many words are left out at most. Of a text with more words, groups of neighboring words are
                left out first, then the single words of the groups that matter most.

        Raises:
            DataError: `text` is no string, or it is one text and pairs are needed.
            RecipeError: There is no such label.
        """
        require_one_text(text, "text")
        if text_pair is not None:
            require_one_text(text_pair, "text_pair")
        answers = self.answers([text], None if text_pair is None else [text_pair])
        who = None if answers.answered_by is None else str(answers.answered_by[0])
        own = self.first.student if self.first is not None and who == "student" else self
        return explain_text(
            OcclusionScorer(own.predictor, own.tokenizer, own.tokens, self.problem),
            self.decision,
            [text] if text_pair is None else [text, text_pair],
            labels=labels,
            max_parts=max_parts,
            answered_by=who,
        )

    def to_transformers(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
        """Return a model and a tokenizer of transformers, for pipelines and trainers. Both are copies.

        With the standard head the model is the architecture's own class, such as BertForSequenceClassification. With
        the heads `linear` and `mlp`, and of a distilled student, it is `EncoderForTextClassification`, which fullbake
        registers with the Auto classes. The decision (thresholds, costs) is not part of a model.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            BundleError: It is a cascade, which is two models, or it was loaded with the engine `onnx`.
        """
        with name_missing_extra():
            from fullbake.classifier.transformers_model import copy_for_transformers

        if self.first is not None:
            raise BundleError(
                "a cascade is two models",
                remedy="Take the teacher's: classifier.with_first(None).to_transformers(), or the student's: "
                "classifier.first.student.to_transformers().",
            )
        network = self._torch_predictor("to_transformers").network
        return copy_for_transformers(network, self.tokenizer, self.tokens)

    def save(self, folder: str | Path, *, overwrite: bool = False, graph: bool = False) -> None:
        """Save the classifier as a bundle (docs/reference/bundle.md), atomically.

        Args:
            folder: Folder for the bundle.
            overwrite: Replace what the folder holds when the new bundle is complete.
            graph: Add an ONNX graph afterwards, as `fullbake export` does, so that the bundle predicts without torch.

        Raises:
            OutputError: The folder holds something, and `overwrite` is False.
            BundleError: The family has no graph that computes what torch does; the bundle is complete without one.
            MissingExtraError: `graph` needs the packages of the extra `export`.
        """
        if self.first is not None:
            self._save_cascade(Path(folder), self.first, overwrite, graph)
            return
        facts = self.record.facts | {
            "problem_type": self.problem_type,
            "label_names": list(self.label_names),
            "thresholds": self.decision.to_json(),
            "tokens": self.tokens.model_dump(mode="json"),
        }
        for name in ("graph", "int8"):
            facts.pop(name, None)  # their files are not written again
        predictor = self._torch_predictor("save")
        with name_missing_extra():
            from fullbake.classifier.bundle_writer import BundleContents, write_bundle

        parts = BundleContents(predictor, self.tokenizer, facts, self.record.seen, self.record.history)
        write_bundle(Path(folder), parts, overwrite=overwrite)
        if graph:
            from fullbake.classifier.graph_files import GraphSource, add_graph

            source = GraphSource(predictor.network, self.tokenizer, self.tokens, len(self.label_names))
            add_graph(Path(folder), source)

    def _save_cascade(self, folder: Path, first: FirstAnswers, overwrite: bool, graph: bool) -> None:
        members = {"student": first.student, "teacher": self.with_first(None)}
        sizes = [tensor.nbytes for one in members.values() for tensor in one.network.state_dict().values()]
        savers = {name: partial(one.save, graph=graph) for name, one in members.items()}
        write_cascade(folder, savers, first.threshold, needed=sum(sizes), overwrite=overwrite)

    def with_first(self, first: FirstAnswers | None) -> "Classifier":
        """Return the same classifier with another one that answers first, or with none."""
        facts = {name: value for name, value in self.record.facts.items() if name != "cascade"}
        if first is not None:
            facts["cascade"] = asdict(first.threshold)
        twin = copy.copy(self)
        twin.first, twin.record = first, replace(self.record, facts=facts)
        return twin

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        engine: Engine = "auto",
        precision: ScoringPrecision = "fp32",
        revision: str | None = None,
    ) -> "Classifier":
        """Load a bundle or a cascade. Its files' hashes and the logits of its probe texts are checked.

        Args:
            folder: A folder that `save`, `fullbake train`, `distill` or `cascade` wrote; or the id of a repository on
                the hub, such as `org/name`, that `fullbake push` made. A folder of that name wins.
            engine: `torch` runs the network by transformers, on a GPU where there is one. `onnx` runs the graph that
                `fullbake export` adds, by onnxruntime: it starts faster and needs no torch. `auto` takes `onnx` where
                the bundle has a graph and there is no GPU.
            precision: `int8` runs the int8 graph that `fullbake export --int8` adds, with a decision of its own.
            revision: A branch, a tag or a commit of that repository.

        Raises:
            BundleError: The folder is not a bundle, is damaged, or gives other logits than when it was saved; or it has
                no graph for this engine and precision.
        """
        place = local_bundle(folder, revision)
        if is_hub_id(folder):
            with hub_faults(str(folder), place):
                return cls._load_folder(place, engine, precision)
        return cls._load_folder(place, engine, precision)

    @classmethod
    def _load_folder(cls, folder: Path, engine: Engine, precision: ScoringPrecision) -> "Classifier":
        if not is_cascade(folder):
            return cls._load_bundle(folder, engine, precision)
        if precision != "fp32":
            raise BundleError(
                "a cascade is scored in fp32 alone",
                where=str(folder),
                got=f"--precision {precision}",
                remedy="Its agreement was measured against the teacher in fp32. Leave out --precision (precision), or "
                f"score with {folder / MEMBERS[1]}.",
            )
        threshold = read_cascade(folder)
        student, teacher = (cls._load_bundle(folder / name, engine) for name in MEMBERS)
        if (student.label_names, student.problem_type) != (teacher.label_names, teacher.problem_type):
            raise BundleError("student and teacher of this cascade differ in their labels", where=str(folder))
        return teacher.with_first(FirstAnswers(student, threshold))

    @classmethod
    def _load_bundle(cls, folder: Path, engine: Engine, precision: ScoringPrecision = "fp32") -> "Classifier":
        bundle = read_bundle(folder, engine, precision)
        facts = bundle.facts
        rule = facts["thresholds"] if precision == "fp32" else facts["int8"]["thresholds"]
        names, problem = facts["label_names"], problem_named(facts["problem_type"])
        return cls(
            bundle.predictor,
            bundle.tokenizer,
            bundle.tokens,
            RunRecord(facts, bundle.seen, bundle.history),
            Decision.from_json(rule, problem, names),
            label_names=names,
            problem=problem,
        )


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
