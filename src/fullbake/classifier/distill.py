"""Distill a classifier into a student: a classifier without attention that is many times as fast.

A bundle holds no text, so the texts of training are given again, with any others of the same kind; labels are not
needed, but where texts have some the student learns from them too. A tenth of the texts is held out: it chooses the
strength of the regularization (with an mlp head, the epoch), and shows how often student and teacher agree.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.evaluate import read_as_trained
from fullbake.classifier.model import Classifier, RunRecord
from fullbake.classifier.predict import as_classifier, text_columns
from fullbake.classifier.recorded import recorded_training
from fullbake.config.recipe import dialect_of
from fullbake.config.sections import Columns
from fullbake.core import rng, runtime, storage
from fullbake.core.console import say
from fullbake.core.errors import BundleError, DataError
from fullbake.core.hashing import fingerprint
from fullbake.core.tracker_names import Track, find_trackers
from fullbake.core.tracking import flat_settings
from fullbake.data.dataset import Dataset, read_dataset
from fullbake.data.duplicates import duplicate_groups
from fullbake.data.label_checks import with_labels_of
from fullbake.data.normalization import text_hashes
from fullbake.data.sources import NamelessTexts, Source, as_source, open_source
from fullbake.evaluation.agreement import agreement_facts
from fullbake.evaluation.calibration import score_decision
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import token_pieces
from fullbake.training import checkpoints
from fullbake.training.checkpoints import CheckpointInterval, ResumeMode, UnfinishedRun, check_resume_mode
from fullbake.training.distillation import Lesson, StudentSettings, train_student
from fullbake.training.job import feature_cache
from fullbake.training.teacher_outputs import network_fingerprint, teacher_outputs

HELD_OUT: Final = 0.1
"""Share of the texts that is held out."""

MOST_HELD_OUT: Final = 2_000
LEAST_TEXTS: Final = 20
"""Fewest different texts that a student is trained on."""

TextNumbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GivenTexts:
    """Texts that were given, each once, with labels where they were given too."""

    texts: list[str]

    labels: NDArray[Any] | None
    """Labels by the classifier's numbers, (texts,) or (texts, labels); zeros for a text without a label. None where no
    text has one."""

    labeled: NDArray[np.bool_]
    """Whether each text has a label, (texts,)."""

    source: str
    """Names of the files, without folders."""

    def fingerprint(self) -> str:
        """Return the sha256 of the texts in their order."""
        return fingerprint(self.texts)


@dataclass(frozen=True, eq=False)
class Distillation:
    """A student, and what a table about it needs."""

    student: Classifier
    given: GivenTexts
    train: TextNumbers
    """Texts that the student was trained on, as places in `given.texts`."""

    held_out: TextNumbers

    teacher_logits: NDArray[np.float32]
    """Of all texts, (texts, classes)."""

    teacher_labels: NDArray[Any]
    """The teacher's decisions on all texts, class ids or a label matrix."""

    label_share: float = 0.0
    """Share of the true labels in what the student learned, where texts have labels."""

    def labels_to_learn(self) -> NDArray[Any]:
        """Return the true labels where the student learned from them, and the teacher's elsewhere."""
        if self.given.labels is None or not self.label_share:
            return self.teacher_labels
        labels = self.teacher_labels.copy()
        labels[self.given.labeled] = self.given.labels[self.given.labeled]
        return labels


def distill(
    classifier: Classifier | str | Path,
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
    text: str | None = None,
    track: Track = None,
    **settings: Any,
) -> Classifier:
    """Train a student of a classifier: a classifier without attention, many times as fast, on the classifier's scores.

    Args:
        classifier: The teacher, or the folder of its bundle: a classifier of single texts.
        data: Texts like those it will meet, best with those of the teacher's training: a list of strings, a column, a
            table (pandas, polars, Arrow, a Hugging Face Dataset, a dict of columns), a pair (texts, labels), a
            `Dataset`, a file, or a list of `Path`s of files. Of a text with a label (in the columns of training) the
            student learns `label_share` of the label and the rest of the teacher's score.
        out: Folder for the student's bundle. None saves nothing, no checkpoint either.
        overwrite: Replace what the folder holds when the new bundle is complete.
        cache_dir: Folder of the caches, which keep the teacher's scores. None: FULLBAKE_CACHE_DIR, or the user's cache
            folder.
        checkpoint_every: Steps (`50`) or time (`30s`, `5m`) between checkpoints.
        resume: What to do with an unfinished run of the same `out`, as for `adapt`.
        text: Column of the texts in files. None: its name in training.
        track: Where to record the run, as for `adapt`.
        **settings: Fields of `training.distillation.StudentSettings`: width, pair_buckets, head, epochs, seed,
            label_share.

    Returns:
        The student.

    Raises:
        BundleError: The teacher reads pairs of texts, is a student or a cascade itself.
        DataError: The texts cannot be read, or there are too few.
        RecipeError: A setting is wrong.
        OutputError: `out` holds something else, or cannot be written.
        Interrupted: A signal stopped the work; what is done is kept.
    """
    return distill_texts(
        classifier,
        data,
        out=out,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=resume,
        text=text,
        track=track,
        settings=StudentSettings(**settings),
    ).student


def distill_texts(
    classifier: Classifier | str | Path,
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
    text: str | None = None,
    track: Track = None,
    settings: StudentSettings = StudentSettings(),  # noqa: B008  (it is frozen)
    **dialect: Any,
) -> Distillation:
    """Train a student as `distill` does, and return it with what a table about it needs. Arguments as there."""
    check_resume_mode(resume)
    interval, trackers = CheckpointInterval.parse(checkpoint_every), find_trackers(track)
    teacher = as_classifier(classifier, engine="torch")  # a graph does not give its hidden states
    check_teacher(teacher)
    network: Any = teacher.network
    settings = settings.check(network.base_model.config.hidden_size, len(teacher.label_names))
    given = read_texts(teacher, data, text=text, **dialect)
    shown = flat_settings(asdict(settings) | {"way": "distill", "versions": runtime.versions()})
    if out is None:
        with recorded_training(trackers, "student", shown, None) as recorded:
            found = _distill(teacher, given, settings, cache_dir, None)
            recorded.finish(found.student.record.facts, None)
            return found
    with checkpoints.sole_run(out, writes=True):
        storage.recover(out)
        storage.require_vacant(out, overwrite=overwrite)
        facts = _run_facts(teacher, given, settings)
        run = checkpoints.open_unfinished_run(out, facts, interval, resume, writes=True)
        with recorded_training(trackers, Path(out).resolve().name, shown, run) as recorded:
            found = _distill(teacher, given, settings, cache_dir, run)
            found.student.save(out, overwrite=overwrite)
            recorded.finish(found.student.record.facts, Path(out))
        run.close()
    return found


def check_teacher(teacher: Classifier) -> None:
    """Raise BundleError if a classifier cannot have a student, with the reason."""
    reasons = {
        "the teacher reads pairs of texts, and a student without attention cannot compare two texts": (
            teacher.columns.text_pair is not None
        ),
        "the teacher is a student itself": teacher.record.facts.get("student") is not None,
        "the teacher is a cascade": teacher.first is not None,
    }
    for reason, applies in reasons.items():
        if applies:
            raise BundleError(
                f"{reason}",
                expected="a classifier of single texts that `fullbake train` made",
                remedy="Distill the bundle of the teacher itself."
                if teacher.columns.text_pair is None
                else "Use the classifier as it is.",
            )


# Texts


def read_texts(teacher: Classifier, data: Any, *, text: str | None = None, **dialect: Any) -> GivenTexts:
    """Read texts, each once, with their labels where they have some.

    Args:
        teacher: Whose columns are read.
        data: As for `distill`.
        text: Column of the texts in files. None: its name in training.
        **dialect: How files are written, as for `read_dataset`.

    Raises:
        DataError: They cannot be read, or there are fewer than LEAST_TEXTS different ones.
    """
    if isinstance(data, Dataset):
        parts = [data]
    elif isinstance(data, list | tuple) and data and all(isinstance(one, Path) for one in data):
        parts = [_read_source(teacher, path, text, dialect) for path in data]
    else:
        parts = [_read_source(teacher, as_source(data, "data"), text, dialect)]
    return _unique_texts(teacher, parts)


def _read_source(teacher: Classifier, source: Source, text: str | None, dialect: dict[str, Any]) -> Dataset:
    """Read rows, with their labels if they have the label columns of training."""
    (column,) = text_columns(teacher, text, None)
    labels = teacher.columns.of_labels
    names = open_source(source, Columns(column), dialect_of(**dialect)).names
    labeled = source.labels is not None if isinstance(source, NamelessTexts) else set(labels) <= set(names)
    if labels and labeled:
        try:
            return read_as_trained(teacher, source, text=column, **dialect)
        except DataError as error:
            say(f"{source}: labels are left out, as they cannot be read like those of training ({error.what})")
    return read_dataset(source, text=column, **dialect)


def _unique_texts(teacher: Classifier, parts: Sequence[Dataset]) -> GivenTexts:
    """Join data sets and keep each text once; of equal texts the first one with a label, else the first."""
    texts = [text for part in parts for text in part.texts.to_pylist()]
    own = [
        None if part.labels is None else with_labels_of(part, teacher.label_names, teacher.problem).labels
        for part in parts
    ]
    labeled = np.concatenate([np.full(len(part), labels is not None) for part, labels in zip(parts, own, strict=True)])
    known = [labels for labels in own if labels is not None]
    values = None
    if known:
        empty = [np.zeros((len(part), *known[0].shape[1:]), known[0].dtype) for part in parts]
        values = np.concatenate([e if labels is None else labels for e, labels in zip(empty, own, strict=True)])
    order = np.argsort(~labeled, kind="stable")
    hashes = text_hashes([texts[row] for row in order])
    first = np.sort(order[np.unique(hashes, axis=0, return_index=True)[1]]) if len(texts) else order
    if len(first) < LEAST_TEXTS:
        raise DataError(
            "there are too few texts to train a student on",
            expected=f"at least {LEAST_TEXTS} different texts; thousands are better",
            got=f"{len(first):,}",
            remedy="Give the texts of the teacher's training, and as many others of the same kind as you have.",
        )
    return GivenTexts(
        [texts[row] for row in first],
        None if values is None else values[first],
        labeled[first],
        ", ".join(dict.fromkeys(Path(part.source).name for part in parts)),
    )


def divide_texts(given: GivenTexts, seen: set[bytes], seed: int) -> tuple[TextNumbers, TextNumbers, int]:
    """Hold out a tenth of the texts, those first that the teacher was not trained on.

    Near-equal texts stay on one side.

    Args:
        given: All texts.
        seen: Hashes of the texts of the teacher's training.
        seed: Of the draw.

    Returns:
        The texts to train on and those held out, both ascending; and how many of the latter are in `seen`.
    """
    wanted = min(max(round(HELD_OUT * len(given.texts)), 2), MOST_HELD_OUT)
    known = np.array([bytes(row) in seen for row in text_hashes(given.texts)])
    groups = duplicate_groups(given.texts)
    shuffled = rng.random_permutation(rng.rng_stream(seed, _DIVISION), int(groups.max()) + 1)
    of_seen = np.zeros(len(shuffled), bool)
    of_seen[groups[known]] = True
    order = shuffled[np.argsort(of_seen[shuffled], kind="stable")]
    sizes = np.bincount(groups)[order]
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes), wanted)) + 1)]
    held = np.isin(groups, chosen)
    if held.all():
        raise DataError(
            "all texts are nearly equal to each other, so none can be held out",
            got=f"{len(given.texts):,} texts",
            remedy="Give texts that differ.",
        )
    return np.flatnonzero(~held), np.flatnonzero(held), int(known[held].sum())


_DIVISION: Final = 1
"""Number of the random stream that divides the texts."""


# The run


def _run_facts(teacher: Classifier, given: GivenTexts, settings: StudentSettings) -> dict[str, Any]:
    """Return all that a student's weights depend on."""
    learned = given.labels is not None and settings.label_share > 0
    return {
        "teacher": network_fingerprint(teacher.network),
        "texts": given.fingerprint(),
        "labels": fingerprint(given.labels, given.labeled) if learned else None,
        "settings": asdict(settings),
        "tokens": teacher.tokens.model_dump(mode="json"),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "fast_kernels": runtime.fast_layers_enabled(),
        "versions": runtime.versions(),
    }


def _distill(
    teacher: Classifier,
    given: GivenTexts,
    settings: StudentSettings,
    cache_dir: str | Path | None,
    run: UnfinishedRun | None,
) -> Distillation:
    """Score the texts with the teacher, train the student, and compare the two."""
    known = teacher.record.seen.get("hashes")
    seen = set() if known is None else {bytes(row) for row in known}
    train, held, held_seen = divide_texts(given, seen, settings.seed)
    say(f"{given.source}: {len(given.texts):,} different texts, {len(held):,} of them held out")
    encoded = encode(given.texts, teacher.tokenizer, teacher.tokens)
    pad_id = teacher.tokenizer.pad_token_id
    outputs = teacher_outputs(
        teacher.network,
        encoded,
        tokens=teacher.tokens,
        pad_id=pad_id,
        teacher=network_fingerprint(teacher.network),
        cache=feature_cache(cache_dir),
    )
    metric = teacher.record.facts.get("recipe", {}).get("training", {}).get("metric", "f1_macro")
    network: Any = teacher.network
    pieces = token_pieces(teacher.tokenizer, len(network.get_input_embeddings().weight))
    lesson = Lesson(
        *(outputs, encoded, train, held, teacher.problem, teacher.label_names, teacher.tokens, pad_id, metric, pieces),
        labels=given.labels,
        labeled=given.labeled,
    )
    trained, history, temperature = train_student(
        teacher.network, lesson, settings, None if run is None else run.checkpoints("student")
    )
    logits = lesson.pooled(outputs.logits, lesson.rows_of(np.arange(len(given.texts))))
    labels = teacher.decision.decide(teacher.problem.probabilities(logits))
    student = Classifier.of_network(trained, teacher.tokenizer, teacher.tokens, RunRecord(), teacher.decision)
    found = Distillation(student, given, train, held, logits, labels, settings.label_share)
    about = {"temperature": temperature, "held_out_seen": held_seen, "settings": asdict(settings)}
    student.record = _record(teacher, found, history, about)
    return found


def _record(
    teacher: Classifier, found: Distillation, history: list[dict[str, Any]], about: dict[str, Any]
) -> RunRecord:
    """Return what is saved beside the student's weights. Its scores are against the teacher's labels."""
    given, held, problem = found.given, found.held_out, teacher.problem
    logits = found.student.logits([given.texts[row] for row in held])
    scores = score_decision(found.teacher_labels[held], logits, teacher.decision)
    decided = teacher.decision.decide(problem.probabilities(logits))
    agrees = problem.equal_rows(decided, found.teacher_labels[held])
    weights = sum(tensor.nbytes for tensor in found.student.network.state_dict().values())
    facts = _run_facts(teacher, given, StudentSettings(**about["settings"]))
    own = {
        "teacher": facts["teacher"],
        "texts": len(given.texts),
        "learned_labels": int(given.labeled[found.train].sum()) if found.label_share else 0,
        "agreement": agreement_facts(agrees),
        "labeled": _labeled_scores(teacher, found, logits),
        "bytes": weights,
    }
    data = {
        "source": {"train": given.source},
        "fingerprint": {"train": facts["texts"]},
        "rows": {"train": len(found.train), "validation": len(held)},
        "folds": 0,
        "overlap_allowed": 0,
        "overlap_dropped": 0,
        "near_overlap": 0,
        "dropped_labels": teacher.record.facts.get("data", {}).get("dropped_labels"),
    }
    return RunRecord(
        teacher.record.facts
        | {
            "run": fingerprint(facts),
            "metrics": {"validation": scores | {"thresholds": []}},
            "calibration": None,
            "data": data,
            "chosen": {"head": about["settings"]["head"]},
            "versions": facts["versions"],
            "threads": facts["threads"],
            "device": facts["device"],
            "student": about | own,
        },
        {"hashes": text_hashes(given.texts), "train_rows": found.train + 1, "validation_rows": held + 1},
        history,
    )


def _labeled_scores(teacher: Classifier, found: Distillation, logits: NDArray[np.float32]) -> dict[str, Any] | None:
    """Return scores of student and teacher on the held-out texts with labels, None where there are none.

    Args:
        teacher: The teacher.
        found: The student and the texts.
        logits: The student's logits of the held-out texts.
    """
    given, held = found.given, found.held_out
    places = np.flatnonzero(given.labeled[held])
    if given.labels is None or not len(places):
        return None
    truth = given.labels[held[places]]
    both = {"student": logits[places], "teacher": found.teacher_logits[held[places]]}
    scores = {name: score_decision(truth, values, teacher.decision)["overall"] for name, values in both.items()}
    return {"rows": len(places)} | {
        name: {metric: overall[metric] for metric in ("accuracy", "f1_macro")} for name, overall in scores.items()
    }
