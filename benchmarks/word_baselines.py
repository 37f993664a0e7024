"""The TF-IDF baseline: words and characters chosen by log loss, against words alone chosen by macro F1 (as before).

    python benchmarks/word_baselines.py FOLDER_OF_DATA

Training rows are drawn at random with three seeds; a tenth of them is validation. Scores are on the test file, or on a
fifth of the rows where there is none. The seconds are those of one processor for fitting and choosing.
"""

import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

from fullbake.config.problems import problem_of
from fullbake.training.baselines import BaselineRows, fit_baseline

DATA: dict[str, tuple[str, str, str, str | None]] = {
    "trec": ("trec_train.csv", "text", "coarse", "trec_test.csv"),
    "sst2": ("sst2_train.csv", "text", "label", "sst2_dev.csv"),
    "sms_spam": ("sms_spam.csv", "text", "label", None),
    "chnsenticorp": ("chnsenticorp_train.csv", "text", "label", "chnsenticorp_dev.csv"),
}
"""Name -> training file, columns of the texts and labels, test file."""

SIZES, SEEDS = (600, 4000), (0, 1, 2)


def read(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row[text], row[label]) for row in csv.DictReader(file)]


def as_rows(rows: Sequence[tuple[str, str]], names: list[str]) -> BaselineRows:
    return BaselineRows([text for text, _ in rows], np.array([names.index(label) for _, label in rows]))


def words_alone(train: BaselineRows, validation: BaselineRows) -> Any:
    """Return the former baseline: a function of texts to probabilities."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    inputs, held_out = vectorizer.fit_transform(train.texts), vectorizer.transform(validation.texts)
    models = [LogisticRegression(C=strength, max_iter=1000).fit(inputs, train.labels) for strength in (0.1, 1, 10, 100)]
    best = max(models, key=lambda model: f1_score(validation.labels, model.predict(held_out), average="macro"))
    return lambda texts: best.predict_proba(vectorizer.transform(texts))


def chosen(train: BaselineRows, validation: BaselineRows, classes: int) -> tuple[Any, str]:
    """Return the baseline as a function of texts to probabilities, and what was chosen."""
    fitted = fit_baseline("tfidf", train, classes, validation=validation)

    def probabilities(texts: Sequence[str]) -> np.ndarray:
        return problem_of(train.labels).probabilities(fitted.logits(texts))

    assert fitted.choice is not None
    return probabilities, f"{fitted.choice.features}, C = {fitted.choice.strength:g}"


def measure(folder: Path, name: str, size: int) -> list[dict[str, Any]]:
    file, text, label, test_file = DATA[name]
    rows = read(folder / file, text, label)
    names, found = sorted({label for _, label in rows}), {"words, by macro F1": [], "chosen by log loss": []}
    choices = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()
        cut = 0 if test_file else len(rows) // 5
        held_out = read(folder / test_file, text, label) if test_file else [rows[place] for place in order[:cut]]
        drawn = [rows[place] for place in order[cut : cut + size]]
        validation, train = as_rows(drawn[: size // 10], names), as_rows(drawn[size // 10 :], names)
        test = as_rows(held_out, names)
        for kind, own in found.items():
            started = time.process_time()
            model = words_alone(train, validation) if kind.startswith("words") else None
            if model is None:
                model, choice = chosen(train, validation, len(names))
                choices.append(choice)
            seconds, shares = time.process_time() - started, model(test.texts)
            f1 = f1_score(test.labels, shares.argmax(axis=1), average="macro")
            own.append((f1, log_loss(test.labels, shares, labels=range(len(names))), seconds))
    results = []
    for kind, own in found.items():
        f1, loss, seconds = np.mean(own, axis=0)
        result = {
            "data": name,
            "rows": size,
            "baseline": kind,
            "macro F1": round(float(f1), 3),
            "log loss": round(float(loss), 3),
            "seconds": round(float(seconds), 1),
            "chosen": "" if kind.startswith("words") else "; ".join(dict.fromkeys(choices)),
        }
        print(result, flush=True)
        results.append(result)
    return results


def main(folder: Path) -> None:
    rows = [row for name in DATA for size in SIZES for row in measure(folder, name, size)]
    store_result("word_baselines", rows, seeds=list(SEEDS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
