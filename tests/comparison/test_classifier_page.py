"""The page of one classifier says what its score means, shows its mistakes, and stands beside the bundle."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import browser
from helpers.leaderboards import HOSTILE
from helpers.rows import make_rows, recipe, train, write_csv

from fullbake import Classifier, adapt
from fullbake.classifier.evaluate import evaluate_logits
from fullbake.comparison.classifier_page import (
    ScoredClassifier,
    render_classifier,
    write_evaluation_page,
    write_training_page,
)
from fullbake.core.pages import is_page
from fullbake.data.dataset import read_dataset

Bases = Callable[..., Path]
COMMAND = "fullbake train rows.csv --out m"


@pytest.fixture(scope="module")
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp", test=0.3)


def words_of(page: str) -> str:
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(text.split())


def written(classifier: Classifier, folder: Path) -> str:
    page = write_training_page(classifier, folder / "m", COMMAND)
    assert page == folder / "m.html"
    assert is_page(page)
    return page.read_text("utf-8")


def scored(classifier: Classifier, **fields: Any) -> ScoredClassifier:
    facts = classifier.record.facts | {"label_names": list(classifier.label_names)}
    whole = ScoredClassifier(
        name="m",
        facts=facts,
        history=classifier.record.history,
        scores=facts["metrics"]["test"],
        rows=classifier.record.rows,
        part="test",
        source="rows.csv",
        command=COMMAND,
    )
    return replace(whole, **fields)


def test_page_has_the_score_in_words_mistakes_and_advice(classifier: Classifier, tmp_path: Path) -> None:
    page = written(classifier, tmp_path)
    text, facts = words_of(page), classifier.record.facts
    assert "How good is “ m ”?" in text
    assert f"trained on {facts['data']['rows']['train']} rows" in text
    assert f"Scored on {facts['data']['rows']['test']} test rows of rows-0.csv" in text
    assert re.search(r"It gives (about|all|none) .*? the right label\.", text)
    mistakes = classifier.record.rows["mistakes"]
    assert mistakes
    assert all(entry["text"] in page for entry in mistakes)
    assert "For comparison: always answering" in text
    assert "fullbake predict m &quot;a text&quot;" in page or "fullbake predict <bdi>m</bdi>" in page
    assert "fullbake compare rows-0.csv --text text --label label --base bert" in text
    assert COMMAND in text
    assert "share it only with those who may read them" in text


def test_baselines_stand_beside_the_scores(classifier: Classifier) -> None:
    assert "Beside baselines" not in words_of(render_classifier(scored(classifier)))
    weak, strong = {"accuracy": 0.125, "f1_macro": 0.028}, {"accuracy": 1.0, "f1_macro": 1.0}
    found = {
        name: dict.fromkeys(("validation", "test"), score) for name, score in (("majority", weak), ("tfidf", strong))
    }
    facts = classifier.record.facts | {"label_names": list(classifier.label_names)}
    facts |= {"baselines": {"train_rows": 30, "rows": 1200, **found}}
    text = words_of(render_classifier(scored(classifier, facts=facts)))
    assert "For comparison: always giving the most frequent answer would be right for about" in text
    assert "counting words (tfidf) would be right for all." in text
    assert "on the same test rows, trained on 30 of the 1,200 training rows" in text
    assert "Majority class 0.125 0.028 TF-IDF and logistic regression 1.000 1.000" in text
    assert "The classifier is not above the baseline TF-IDF and logistic regression" in text
    elsewhere = scored(classifier, facts=facts, part="", rows={})
    assert "aseline" not in words_of(render_classifier(elsewhere)), "they were not scored on the rows of another file"


def test_suggested_comparison_reads_the_rows_as_training_did(classifier: Classifier) -> None:
    facts = classifier.record.facts | {"label_names": list(classifier.label_names)}
    assert "--exclusive" not in words_of(render_classifier(scored(classifier)))
    columns = facts["columns"] | {"exclusive": True, "group": "user"}
    data = facts["recipe"]["data"] | {"drop_rare": 3, "near_duplicates": "apart"}
    changed = facts | {"columns": columns, "recipe": facts["recipe"] | {"data": data}}
    text = words_of(render_classifier(scored(classifier, facts=changed)))
    assert "--label label --exclusive --group user --drop-rare 3 --near-duplicates apart --base bert" in text


def test_sections_of_the_page(classifier: Classifier, tmp_path: Path) -> None:
    page = written(classifier, tmp_path)
    expected = ["verdict", "next", "mistakes", "classes", "scores", "histories", "confusion", "calibration", "data"]
    assert re.findall(r'<section id="(\w+)"', page) == [*expected, "reproduce"]
    assert re.findall(r'<li><a href="#(\w+)">', page) == [*expected, "reproduce"]
    assert "<script" not in page


def test_without_test_rows_validation_is_scored_and_the_page_says_so(bases: Bases, tmp_path: Path) -> None:
    classifier = train(bases("bert"), tmp_path)
    text = words_of(written(classifier, tmp_path))
    assert "There are no test rows. These are the validation rows (they also chose the epoch)" in text
    assert "Keep test rows for a fair score: train again with --test 0.2 ." in text
    assert f"Scored on {classifier.record.facts['data']['rows']['validation']} validation rows" in text


def test_folds_are_named_where_they_take_the_place_of_validation(bases: Bases, tmp_path: Path) -> None:
    classifier = train(bases("bert"), tmp_path, folds=3)
    text = words_of(written(classifier, tmp_path))
    assert "each row by a classifier that did not train on it; they also chose the epoch" in text
    assert "folds of the training rows, as validation 3" in text


def test_rows_of_many_labels_have_a_page_too(bases: Bases, tmp_path: Path) -> None:
    rows = [(text, f"{label};new" if number % 2 else label) for number, (text, label) in enumerate(make_rows())]
    path = write_csv(tmp_path / "rows.csv", rows)
    chosen = recipe(bases("bert"), label_separator=";", test=0.3)
    classifier = adapt(chosen, path, cache_dir=tmp_path / "cache")
    text = words_of(written(classifier, tmp_path))
    assert "exactly the right labels" in text
    assert "How well each label is found" in text
    assert "--label-separator ';'" in text.replace("&#39;", "'")
    assert "Which classes are taken for which" not in text


def test_evaluation_has_a_page_of_its_own(classifier: Classifier, tmp_path: Path) -> None:
    rows = [*make_rows(12, seed=5), make_rows()[int(classifier.record.seen["train_rows"][0]) - 1]]
    names = classifier.label_names
    dataset = read_dataset(write_csv(tmp_path / "new.csv", rows), text="text", label="label", label_names=names)
    logits = classifier.logits(dataset.texts)
    scores = evaluate_logits(classifier, dataset, logits)
    target = write_evaluation_page(classifier, "m", dataset, logits, scores, tmp_path / "new.html", "fullbake evaluate")
    text = words_of(target.read_text("utf-8"))
    assert "Scored on 13 labeled rows of new.csv" in text
    assert "1 of these rows have a text that it was trained on" in text
    assert "How training went" not in text
    assert "fullbake compare" not in text


def test_facts_that_are_not_at_hand_leave_sections_out(classifier: Classifier) -> None:
    text = words_of(render_classifier(scored(classifier, rows={}, history=[])))
    assert "Mistakes" not in text
    assert "How training went" not in text
    assert "It gives" in text
    assert "texts of rows: share" not in text


def test_two_classes_have_curves_of_thresholds(classifier: Classifier) -> None:
    curve = {"label": "food", "thresholds": [0.0, 1.0], "reason": None}
    curve |= {"recall": [1.0, 0.0], "precision": [0.3, None], "specificity": [0.0, 1.0]}
    rows = classifier.record.rows | {"threshold_curve": curve}
    assert "Where to put the threshold" in words_of(render_classifier(scored(classifier, rows=rows)))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_harmless(classifier: Classifier, text: str) -> None:
    """Labels, texts, names of files and warnings are hostile."""

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: poison(entry) if key not in {"problem_type", "way", "kind"} else entry
                for key, entry in value.items()
            }
        if isinstance(value, list):
            return [poison(entry) for entry in value]
        return f"{value}{text}" if isinstance(value, str) else value

    whole = scored(classifier, stamps=["with care"])
    fields = {name: poison(getattr(whole, name)) for name in ("name", "rows", "source", "command", "stamps", "scores")}
    facts = poison({key: value for key, value in whole.facts.items() if key != "recipe"}) | {
        "recipe": whole.facts["recipe"]
    }
    page = render_classifier(replace(whole, facts=facts, **fields))
    assert not re.search(r"<(script|img|iframe|svg onload|a href=\"javascript|meta http-equiv=refresh)", page)
    assert len(re.findall("<style>", page)) == 1
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00]", page)


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium on this machine")
def test_nothing_is_cut_on_a_phone(classifier: Classifier, tmp_path: Path) -> None:
    written(classifier, tmp_path)
    (found,) = browser.look(tmp_path, [("m.html", 360)])["frames"]
    assert (found["overflow"], found["cut"]) == (0, [])
