"""Students and cascades beside their teachers and beside TF-IDF: scores, equal labels, and texts a processor second.

    python benchmarks/students.py FOLDER_OF_DATA [name ...] [--work FOLDER]

The teacher is a frozen `demo` with a linear head. The student and TF-IDF learn its scores of the same texts, among them
the teacher's training texts with their labels. `all labels` are a student and TF-IDF that have the labels of all these
texts. Cascades are chosen at an agreement of 0.99 on further texts, and everything is scored on test texts that nothing
has seen. Speeds are in processor seconds of one thread, both sides alternating in one process.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import store_result, stored_rows
from sklearn.metrics import f1_score

from fullbake import Classifier, Recipe, adapt
from fullbake.classifier.cascade import make_cascade
from fullbake.classifier.distill import Distillation, distill_texts
from fullbake.comparison.students import fit_tfidf_student
from fullbake.core.console import silenced
from fullbake.data.dataset import read_dataset
from fullbake.evaluation.agreement import agreement_facts, choose_threshold, decision_margins

AGREEMENT = 0.99
ROUNDS = 3


@dataclass(frozen=True)
class Task:
    """A set: its files and columns, and rows for the teacher, the student (all of its), the threshold, and the test."""

    train: str
    test: str | None
    text: str
    label: str
    max_length: int
    rows: tuple[int, int, int, int]


TASKS = {
    "ag_news": Task("ag_news_train_10k.csv", "ag_news_test.csv", "description", "label", 128, (2000, 9900, 1200, 1200)),
    "toxic": Task("jigsaw_8k.csv", None, "comment_text", "toxic", 64, (1500, 5000, 1500, 1500)),
    "trec": Task("trec_train.csv", None, "text", "coarse", 64, (1500, 3400, 1000, 1000)),
    "sms_spam": Task("sms_spam.csv", None, "text", "label", 64, (1000, 3000, 1100, 1050)),
}

Rows = list[tuple[str, str]]


def read_rows(path: Path, task: Task) -> Rows:
    """Return (text, label) of the different texts of a file, in random order."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row[task.text]: row[task.label] for row in csv.DictReader(file) if row[task.text].strip()}
    items = list(rows.items())
    return [items[place] for place in np.random.default_rng(0).permutation(len(items))]


def draw(folder: Path, task: Task) -> Iterator[Rows]:
    """Yield the rows of the teacher, of the student (the teacher's among them), of the threshold, and of the test."""
    teacher, student, threshold, test = task.rows
    rows = read_rows(folder / task.train, task)
    yield rows[:teacher]
    yield rows[:student]
    others = rows[student:] if task.test is None else read_rows(folder / task.test, task)
    yield others[:threshold]
    yield others[threshold : threshold + test]


def write(path: Path, rows: Rows, task: Task) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(task.text, task.label), *rows])
    return path


def write_texts(path: Path, rows: Rows, task: Task) -> Path:
    """Write texts without their labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(task.text,), *((text,) for text, _ in rows)])
    return path


def labels_of(classifier: Classifier, logits: np.ndarray) -> np.ndarray:
    labels: np.ndarray = classifier.decision.decide(classifier.problem.probabilities(logits))
    return labels


def texts_a_second(sides: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return texts a processor second of each side, the median of the rounds. A side returns how many texts it did."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = time.process_time()
            done = side()
            speeds[name].append(done / (time.process_time() - started))
    return {name: float(np.median(values)) for name, values in speeds.items()}


def run(folder: Path, name: str, work: Path) -> list[dict[str, Any]]:
    """Return a row for teacher, students, TF-IDF and the two cascades of one set."""
    task = TASKS[name]
    parts = [write(work / f"{name}-{number}.csv", rows, task) for number, rows in enumerate(draw(folder, task))]
    texts, truth_names = zip(*list(draw(folder, task))[3], strict=True)
    fields = {"text": task.text, "label": task.label, "max_length": task.max_length}
    teacher = adapt(Recipe.load("frozen-linear", base="demo", **fields), parts[0], cache_dir=work / "cache")
    others = write_texts(work / f"{name}-texts.csv", list(draw(folder, task))[1][task.rows[0] :], task)
    started = time.process_time()
    found = distill_texts(teacher, [parts[0], others], cache_dir=work / "cache")
    seconds = time.process_time() - started
    labeled = distill_texts(teacher, parts[1], cache_dir=work / "cache")
    cascade = make_cascade(found.student, teacher, read_dataset(parts[2], text=task.text), agreement=AGREEMENT)
    logits = {"teacher": teacher.logits(texts), "student": found.student.logits(texts)}
    tfidf = fit_tfidf_student(found)
    logits["TF-IDF"] = tfidf.logits(texts)
    logits["student, all labels"] = labeled.student.logits(texts)
    logits["TF-IDF, all labels"] = fit_tfidf_student(labeled).logits(texts)
    answers = cascade.answers(texts)
    logits["cascade"] = answers.logits
    answered = {"cascade": answers.answered_by == "student"}
    own = [row for row, _ in list(draw(folder, task))[2]]
    by_tfidf = tfidf_answers(teacher, tfidf.logits(own), teacher.logits(own), logits["TF-IDF"])
    logits["cascade of TF-IDF"] = np.where(by_tfidf[:, None], logits["TF-IDF"], logits["teacher"])
    answered["cascade of TF-IDF"] = by_tfidf
    truth = np.array([teacher.label_names.index(label) for label in truth_names])
    speeds = texts_a_second(timed(teacher, found, cascade, list(texts)))
    rows = [row(name, who, values, logits["teacher"], truth, teacher) for who, values in logits.items()]
    for one in rows:
        who = str(one["who"])
        one["answered by the student"] = float(answered[who].mean()) if who in answered else None
        one["texts a processor second"] = round(speeds[who]) if who in speeds else None
        one["times the teacher"] = round(speeds[who] / speeds["teacher"], 1) if who in speeds else None
    size = found.student.record.facts["student"]["bytes"] / 1e6
    print(f"{name}: distillation {seconds:.0f} processor seconds, student {size:.1f} MB", flush=True)
    return rows


def tfidf_answers(teacher: Classifier, own: np.ndarray, others: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return which test texts TF-IDF answers in a cascade, (texts,).

    Args:
        teacher: Whose decision makes labels.
        own: TF-IDF's logits of the texts that choose the threshold.
        others: The teacher's logits of them.
        logits: TF-IDF's logits of the test texts.
    """
    margins, test = (decision_margins(teacher.decision, teacher.problem.probabilities(x)) for x in (own, logits))
    threshold = choose_threshold(margins, labels_of(teacher, own) == labels_of(teacher, others), AGREEMENT)
    return test >= (np.inf if threshold.margin is None else threshold.margin)


def timed(
    teacher: Classifier, found: Distillation, cascade: Classifier, texts: list[str]
) -> dict[str, Callable[[], int]]:
    """Return what is timed: each side scores texts and returns how many. The fast student scores them five times."""

    def scoring(classifier: Classifier, some: list[str], times: int) -> Callable[[], int]:
        def score() -> int:
            with silenced():
                for _ in range(times):
                    classifier.logits(some)
            return times * len(some)

        return score

    part = texts[:400]
    return {
        "teacher": scoring(teacher, part, 1),
        "student": scoring(found.student, part, 5),
        "cascade": scoring(cascade, part, 1),
    }


def row(
    name: str, who: str, logits: np.ndarray, teacher_logits: np.ndarray, truth: np.ndarray, teacher: Classifier
) -> dict[str, Any]:
    """Return the scores of one side on the test texts."""
    labels = labels_of(teacher, logits)
    right = agreement_facts(labels == truth)
    equal = agreement_facts(labels == labels_of(teacher, teacher_logits))
    return {
        "set": name,
        "who": who,
        "test texts": len(truth),
        "accuracy": f"{right['value']:.3f} ({right['low']:.3f} to {right['high']:.3f})",
        "macro-F1": round(float(f1_score(truth, labels, average="macro")), 3),
        "labels of the teacher": "-"
        if who == "teacher"
        else f"{equal['value']:.3f} ({equal['low']:.3f} to {equal['high']:.3f})",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", default=list(TASKS))
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        work = arguments.work or Path(made)
        work.mkdir(parents=True, exist_ok=True)
        for name in arguments.names or list(TASKS):
            kept = [one for one in stored_rows("students") if one["set"] != name]
            rows = [*kept, *run(arguments.data, name, work)]
            order = list(TASKS)
            store_result("students", sorted(rows, key=lambda one: order.index(one["set"])), agreement=AGREEMENT)


if __name__ == "__main__":
    main()
