"""Settings of a student on six sets: its scores on validation texts that neither the teacher nor the student has seen.

    python benchmarks/student_settings.py FOLDER_OF_DATA [name ...] --work FOLDER [--only SETTING ...]

The teacher is a frozen `demo` with a linear head. The texts that `students.py` gives the student are the teacher's own
and four folds of others. Each of three folds is once the validation set of a student that learns all the other texts,
and its number is the seed. So the scores are means over three seeds, and no test text takes part in the choice. Every
setting differs from the first one in what its name says. `own labels` are those of the teacher's training texts.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import students
import torch
from machine import store_result, stored_rows
from sklearn.metrics import f1_score
from students import Task, write

from fullbake import Classifier, Recipe, adapt
from fullbake.classifier.distill import GivenTexts, divide_texts
from fullbake.core.console import silenced
from fullbake.data.normalization import text_hashes
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.inference import logits_over
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import token_pieces
from fullbake.training import distillation, linear_student
from fullbake.training.baselines import BaselineRows, fit_baseline
from fullbake.training.distillation import Lesson, StudentSettings, train_student
from fullbake.training.job import feature_cache
from fullbake.training.teacher_outputs import TeacherOutputs, network_fingerprint, teacher_outputs

FOLDS, SEEDS = 4, 3
COMMENTS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
TASKS = students.TASKS | {
    "banking77": Task("banking77_train.csv", None, "text", "label", 64, (2500, 6000, 0, 0)),
    "comments": Task("jigsaw_8k.csv", None, "comment_text", "", 64, (1500, 5000, 0, 0)),
}
"""`comments` has the six labels of jigsaw_8k, each text any number of them."""


@dataclass(frozen=True)
class Setting:
    """What differs from the first setting."""

    labels: str = "own"
    """The texts with labels: `none`, `own` (the teacher's training texts) or `all`."""

    label_share: float = StudentSettings.label_share
    states: float = linear_student.STATE_SHARE
    characters: float = linear_student.CHARACTER_SHARE
    descent: bool = False
    """Whether a linear head is trained by gradient descent too."""

    head: str = "linear"
    pair_buckets: int = StudentSettings.pair_buckets


SETTINGS = {
    "as distill does, own labels": Setting(),
    "mlp head": Setting(head="mlp"),
    "mlp head, all labels": Setting(head="mlp", labels="all"),
    "no labels": Setting(labels="none"),
    "own labels, share 0.8": Setting(label_share=0.8),
    "all labels": Setting(labels="all"),
    "all labels, share 0.8": Setting(labels="all", label_share=0.8),
    "mean states 0.1": Setting(states=0.1),
    "mean states 1": Setting(states=1.0),
    "characters 0": Setting(characters=1e-6),
    "262,139 pair buckets": Setting(pair_buckets=262_139),
    "gradient descent, 128 numbers a vector": Setting(descent=True),
}
SLOW = ("gradient descent, 128 numbers a vector",)
"""Settings that are tried on SOME sets only."""

SOME = ("ag_news", "toxic", "trec", "sms_spam")


@dataclass(frozen=True, eq=False)
class Part:
    """Texts, and what is known of them."""

    texts: list[str]
    truth: np.ndarray
    encoded: Encoded
    outputs: TeacherOutputs


def read_comments(folder: Path, work: Path) -> tuple[list[str], np.ndarray, Path]:
    """Return texts, label matrix, and the file of the teacher's rows of the set with several labels."""
    task = TASKS["comments"]
    with (folder / task.train).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))[: task.rows[1]]
    rows = [rows[place] for place in order if rows[place][task.text].strip()]
    path = work / "jigsaw-0.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        values = [(row[task.text], *(row[name] for name in COMMENTS)) for row in rows[: task.rows[0]]]
        csv.writer(file).writerows([(task.text, *COMMENTS), *values])
    return [row[task.text] for row in rows], np.array([[int(row[name]) for name in COMMENTS] for row in rows]), path


def prepare(folder: Path, name: str, work: Path) -> tuple[Classifier, list[Part]]:
    """Return the teacher, and its own texts and the folds of the others."""
    task = TASKS[name]
    fields: dict[str, Any] = {"text": task.text, "max_length": task.max_length}
    if name == "comments":
        texts, truth, path = read_comments(folder, work)
        fields["labels"] = list(COMMENTS)
    else:
        drawn = students.draw(folder, task)
        path = write(work / f"{name}-0.csv", next(drawn), task)
        texts, names = map(list, zip(*next(drawn), strict=True))
        fields["label"] = task.label
    teacher = adapt(Recipe.load("frozen-linear", base="demo", **fields), path, cache_dir=work / "cache")
    if name != "comments":
        truth = np.array([teacher.label_names.index(label) for label in names])
    others = np.arange(task.rows[0], len(texts))
    parts = [np.arange(task.rows[0]), *(others[fold::FOLDS] for fold in range(FOLDS))]
    return teacher, [score(teacher, [texts[row] for row in part], truth[part], work) for part in parts]


def score(teacher: Classifier, texts: list[str], truth: np.ndarray, work: Path) -> Part:
    encoded = encode(texts, teacher.tokenizer, teacher.tokens)
    outputs = teacher_outputs(
        teacher.network,
        encoded,
        tokens=teacher.tokens,
        pad_id=teacher.tokenizer.pad_token_id,
        teacher=network_fingerprint(teacher.network),
        cache=feature_cache(work / "cache"),
    )
    return Part(texts, truth, encoded, outputs)


def joined(parts: list[Part], vocabulary: int) -> Part:
    """Return several parts as one, with the mean states over their texts alone."""
    width = parts[0].outputs.token_states.shape[1]
    sums, counts = np.zeros((vocabulary, width)), np.zeros(vocabulary, np.int64)
    for part in parts:
        sums[part.outputs.token_ids] += part.outputs.token_states * part.outputs.token_counts[:, None]
        counts[part.outputs.token_ids] += part.outputs.token_counts
    ids = np.flatnonzero(counts)
    states = (sums[ids] / counts[ids, None]).astype(np.float32)
    logits = np.concatenate([part.outputs.logits for part in parts])
    encoded = Encoded(
        np.concatenate([part.encoded.input_ids for part in parts]),
        row_offsets(np.concatenate([part.encoded.lengths for part in parts])),
    )
    outputs = TeacherOutputs(logits, ids, counts[ids], states)
    texts = [text for part in parts for text in part.texts]
    return Part(texts, np.concatenate([part.truth for part in parts]), encoded, outputs)


def lesson_of(teacher: Classifier, parts: list[Part], fold: int, labels: str) -> tuple[Lesson, Part]:
    """Return what a student learns where one of the folds, from 1, is the validation set, and its texts."""
    network: Any = teacher.network
    vocabulary = len(network.get_input_embeddings().weight)
    learned = joined([part for number, part in enumerate(parts) if number != fold], vocabulary)
    own = np.arange(len(learned.texts)) < len(parts[0].texts)
    labeled = {"none": np.zeros_like(own), "own": own, "all": np.ones_like(own)}[labels]
    given = GivenTexts(learned.texts, learned.truth, labeled, "texts")
    train, held, _ = divide_texts(given, {bytes(row) for row in text_hashes(parts[0].texts)}, fold)
    lesson = Lesson(
        *(learned.outputs, learned.encoded, train, held, teacher.problem, teacher.label_names, teacher.tokens),
        teacher.tokenizer.pad_token_id,
        "f1_macro",
        token_pieces(teacher.tokenizer, vocabulary),
        labels=learned.truth,
        labeled=labeled,
    )
    return lesson, learned


@contextmanager
def constants(setting: Setting) -> Iterator[None]:
    """Set what is no field of StudentSettings."""
    fitted = StudentSettings.is_fitted
    with (
        mock.patch.object(linear_student, "STATE_SHARE", setting.states),
        mock.patch.object(linear_student, "CHARACTER_SHARE", setting.characters),
        mock.patch.object(
            distillation.StudentSettings,
            "is_fitted",
            lambda self, classes: not setting.descent and fitted(self, classes),
        ),
    ):
        yield


def student_logits(teacher: Classifier, parts: list[Part], fold: int, setting: Setting) -> np.ndarray:
    """Return the logits of a student for the texts of a fold."""
    lesson, _ = lesson_of(teacher, parts, fold, setting.labels)
    network: Any = teacher.network
    with constants(setting), silenced():
        settings = StudentSettings(
            head=setting.head, pair_buckets=setting.pair_buckets, label_share=setting.label_share, seed=fold
        ).check(network.base_model.config.hidden_size, len(teacher.label_names))
        student, *_ = train_student(teacher.network, lesson, settings, None)
    pad_id = teacher.tokenizer.pad_token_id
    return logits_over(student, parts[fold].encoded, tokens=teacher.tokens, pad_id=pad_id)


def tfidf_logits(teacher: Classifier, parts: list[Part], fold: int, labels: str) -> np.ndarray:
    """Return the logits of TF-IDF, which learns a text's label, or the teacher's of a text without one."""
    lesson, learned = lesson_of(teacher, parts, fold, labels)
    decided = teacher.decision.decide(teacher.problem.probabilities(learned.outputs.logits))
    assert lesson.labeled is not None
    decided[lesson.labeled] = learned.truth[lesson.labeled]
    train, held = (
        BaselineRows([learned.texts[row] for row in rows], decided[rows]) for rows in (lesson.train, lesson.validation)
    )
    return fit_baseline("tfidf", train, len(teacher.label_names), validation=held).logits(parts[fold].texts)


def row(name: str, who: str, teacher: Classifier, parts: list[Part], found: list[np.ndarray], seconds: float) -> Any:
    """Return the mean scores over the seeds."""
    problem, figures = teacher.problem, []
    for part, logits in zip(parts[1:], found, strict=False):
        probabilities = problem.probabilities(logits)
        targets = problem.probabilities(part.outputs.logits)
        labels, others = teacher.decision.decide(probabilities), teacher.decision.decide(targets)
        loss = float(linear_student.soft_target_losses(problem, logits, targets).mean())
        right = float(problem.equal_rows(labels, part.truth).mean())
        f1 = f1_score(part.truth, labels, average="macro", zero_division=0)
        figures.append((right, f1, float(problem.equal_rows(labels, others).mean()), loss))
    means, spread = np.mean(figures, axis=0), np.std(figures, axis=0)
    names = ("accuracy", "macro-F1", "labels of the teacher", "cross entropy with the teacher")
    values = {one: round(float(value), 4) for one, value in zip(names, means, strict=True)}
    return (
        {"set": name, "setting": who}
        | values
        | {
            "spread of accuracy": round(float(spread[0]), 4),
            "processor seconds": round(seconds / SEEDS, 1),
        }
    )


def run(folder: Path, name: str, work: Path, only: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for the teacher, for TF-IDF, and for each setting, or for some of them."""
    with silenced():
        teacher, parts = prepare(folder, name, work)
    folds = range(1, SEEDS + 1)
    if "teacher" in only:
        yield row(name, "teacher", teacher, parts, [parts[fold].outputs.logits for fold in folds], 0.0)
    for who, labels in (("TF-IDF, own labels", "own"), ("TF-IDF, no labels", "none")):
        if who not in only:
            continue
        started = time.process_time()
        found = [tfidf_logits(teacher, parts, fold, labels) for fold in folds]
        yield row(name, who, teacher, parts, found, time.process_time() - started)
    for who, setting in SETTINGS.items():
        if who not in only or (who in SLOW and name not in SOME):
            continue
        started = time.process_time()
        found = [student_logits(teacher, parts, fold, setting) for fold in folds]
        yield row(name, who, teacher, parts, found, time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["teacher", "TF-IDF, own labels", "TF-IDF, no labels", *SETTINGS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    order = list(TASKS)
    for name in arguments.names or order:
        for one in run(arguments.data, name, arguments.work, arguments.only):
            print(one, flush=True)
            others = [old for old in stored_rows("student_settings") if "setting" in old]
            same = one["set"], one["setting"]
            rows = [*(old for old in others if (old["set"], old["setting"]) != same), one]
            store_result("student_settings", sorted(rows, key=lambda one: order.index(one["set"])))


if __name__ == "__main__":
    main()
