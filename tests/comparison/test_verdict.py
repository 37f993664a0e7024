"""The verdict on recipes whose accuracy is set, and its figures against scikit-learn."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.rows import dataset
from helpers.scored_recipes import LABELS, ROWS, recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, roc_auc_score

from fullbake.comparison.pairs import ScoredRecipe
from fullbake.comparison.verdict import (
    SIMILAR_COST,
    NotRun,
    RecipePredictions,
    Scope,
    SharedTestRows,
    decide,
    decide_from_predictions,
    describe_test_scores,
    list_disagreements,
)
from fullbake.config.problems import problem_of
from fullbake.config.sections import DataConfig
from fullbake.data.splits import Part, divide
from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.significance import LEVEL, holm


def test_large_difference_is_detectable_and_the_better_recipe_recommended() -> None:
    verdict = decide([recipe("slow", 0.05, 100), recipe("quick", 0.3, 1)], "accuracy")
    (pair,) = verdict.pairs
    assert pair.detectable
    assert pair.observed.difference == pytest.approx(0.25)
    assert pair.rows_needed is None
    assert pair.reason is None
    assert "Slow is better than Quick: accuracy 0.945 against 0.695" in pair.words
    assert "p < 0.001" in pair.words
    assert (verdict.best, verdict.recommended) == ("slow", "slow")
    assert verdict.words[0] == "Slow scored highest: accuracy 0.945, detectably better than the other."
    assert verdict.words[1] == "Recommended: Slow (1 min 40 s of training)."


def test_cheapest_of_those_not_detectably_worse_is_recommended() -> None:
    entered = [recipe("slow", 0.1, 100), recipe("quick", 0.105, 1), recipe("bad", 0.4, 0.1)]
    verdict = decide(entered, "accuracy")
    assert (verdict.best, verdict.recommended) == ("slow", "quick")
    pair = verdict.pairs[0]
    assert not pair.detectable
    assert pair.rows_needed is not None
    assert pair.rows_needed > ROWS
    assert pair.words.startswith("No detectable difference between Slow and Quick: +0.005 in accuracy")
    assert "test rows would show a difference of this size 4 times in 5; here are 400." in pair.words
    assert verdict.words[0].endswith("no detectable difference from Quick. It is detectably better than Bad.")
    assert (
        "the cheapest of 2 not detectably worse than the best (1.0 s of training; Slow took 1 min 40 s)"
        in verdict.words[1]
    )
    assert verdict.words[2].startswith(
        "Not detectable is not equal: within the 95% intervals Quick may be worse by up to"
    )


def test_of_about_equal_costs_the_higher_score_is_recommended() -> None:
    lower, higher = recipe("lower", 0.105, 24.7), recipe("higher", 0.1, 24.9)
    verdict = decide([lower, higher], "accuracy")
    assert not verdict.pairs[0].detectable
    assert verdict.recommended == "higher"
    assert "Higher, which scored highest of the 2 cheapest of 2 not detectably worse than the best" in verdict.words[1]


def test_without_a_classifier_the_words_do_not_call_any_worse() -> None:
    verdict = decide([recipe("words", 0.1, baseline=True), recipe("most", 0.4, baseline=True)], "accuracy")
    assert verdict.recommended is None
    assert "No classifier is recommended: none ran, only baselines." in verdict.words


def test_baseline_is_named_but_not_recommended() -> None:
    verdict = decide([recipe("model", 0.1, 100), recipe("words", 0.1, 1, baseline=True)], "accuracy")
    assert verdict.recommended == "model"
    assert verdict.words[0] == (
        "Words does as well, as far as these rows show. Model scored highest: accuracy 0.895, with no detectable "
        "difference from Words."
    )


def test_nothing_is_recommended_if_a_baseline_beats_all_recipes() -> None:
    verdict = decide([recipe("model", 0.4), recipe("words", 0.1, baseline=True)], "accuracy")
    assert (verdict.best, verdict.recommended) == ("words", None)
    assert verdict.words[0] == "Words scored highest: accuracy 0.895, detectably better than the other."
    assert "No classifier is recommended: all are worse than Words, a baseline." in verdict.words


def test_one_seed_each_is_never_called_detectable() -> None:
    verdict = decide([recipe("a", 0.1, 9.0, seeds=1), recipe("b", 0.3, 1.0, seeds=1)], "accuracy")
    assert verdict.words[0] == ("A scored highest: accuracy 0.895 (one seed each), in one training ahead of the other.")
    assert "One seed of A and B was trained: what another would change is not in the intervals." in verdict.words
    (pair,) = verdict.pairs
    assert (pair.detectable, pair.ahead_in_one_training, pair.to_json()["p_holm"]) == (False, True, None)
    assert pair.words.startswith("A is ahead of B in one training: accuracy 0.895 against 0.695")
    assert "detectabl" not in " ".join([*verdict.words, pair.words])
    assert verdict.recommended == "a", "the cheap one is far behind, even if in one training"


def test_seed_variance_is_borrowed_from_the_kind_and_said() -> None:
    entered = [
        recipe("a", 0.1, seeds=1),
        recipe("b", 0.3, seeds=3),
        recipe("head", 0.3, seeds=1, kind="frozen"),
    ]
    verdict = decide(entered, "accuracy")
    by_names = {(pair.a.name, pair.b.name): pair for pair in verdict.pairs}
    assert by_names["a", "b"].detectable
    assert by_names["a", "head"].ahead_in_one_training
    assert verdict.words[0] == (
        "A scored highest: accuracy 0.895 (one seed), detectably better than B and in one training ahead of Head."
    )
    assert "One seed of A was trained: what another would change is taken from B (3 seeds)." in verdict.words
    assert "One seed of Head was trained: what another would change is not in the intervals." in verdict.words


def test_recipe_that_does_not_depend_on_the_seed_needs_no_second_one() -> None:
    steady = recipe("steady", 0.1, seeds=1)
    steady = replace(steady, scores=replace(steady.scores, depends_on_seed=False))
    verdict = decide([steady, recipe("b", 0.3)], "accuracy")
    assert verdict.pairs[0].detectable
    assert verdict.words[0] == "Steady scored highest: accuracy 0.895, detectably better than the other."


def test_first_line_names_what_did_not_run_and_the_budget_it_would_take() -> None:
    short = "the budget of 5 min is too short"
    not_run = {"Further": NotRun(short, 700.0), "Other": NotRun(short, 65.0), "Broken": NotRun("it failed (no memory)")}
    entered = [recipe("a", 0.1), recipe("b", 0.3), recipe("c", 0.4)]
    verdict = decide(entered, "accuracy", Scope(not_run))
    assert verdict.words[0] == (
        "Further and Other did not run: the budget of 5 min is too short; a budget of about 12 min would be enough. "
        "Broken did not run: it failed (no memory)."
    )
    assert verdict.words[1].endswith("detectably better than every other recipe that ran.")
    assert decide(entered, "accuracy").words[0].endswith("detectably better than every other recipe.")
    assert decide([], "accuracy", Scope(not_run)).words[0] == verdict.words[0]


def test_what_was_made_smaller_is_said_once_with_the_recipes() -> None:
    rows = "Only 300 of the 3,000 training rows were used."
    scope = Scope(reduced={"A": [rows, "Further pretraining had 1 pass."], "B": [rows]})
    words = decide([recipe("a", 0.1), recipe("b", 0.3)], "accuracy", scope).words
    assert words[2:4] == [
        "Made smaller to fit the budget, for A and B: only 300 of the 3,000 training rows were used.",
        "Made smaller to fit the budget, for A: further pretraining had 1 pass.",
    ]


@pytest.mark.parametrize(
    ("names", "beginning"),
    [
        (["tfidf"], "Words alone do as well, as far as these rows show. "),
        (["tfidf", "majority"], "Always giving the most frequent answer does as well, as far as these rows show. "),
    ],
)
def test_baseline_that_holds_its_own_changes_the_headline(names: list[str], beginning: str) -> None:
    baselines = [recipe(name, 0.1, baseline=True, seeds=1) for name in names]
    for wrong in (0.1, 0.095, 0.105):  # whether the classifier or the baseline is nominally ahead
        verdict = decide([recipe("model", wrong), *baselines], "accuracy")
        assert verdict.words[0].startswith(beginning), verdict.words[0]
        assert verdict.recommended == "model"


def test_baseline_that_another_classifier_beats_does_not_hold_its_own() -> None:
    """The best one has two seeds that differ, so nothing is shown of it; the second does not depend on the seed."""
    rng = np.random.default_rng(0)
    seeds = np.stack([np.where(rng.random(ROWS) < wrong, 1 - LABELS, LABELS) for wrong in (0.0, 0.3)])
    uncertain = ScoredRecipe("best", "Best", resample(seeds, LABELS, "accuracy", draws=300), seeds[0] == LABELS, 1.0)
    steady, words = recipe("steady", 0.2, seeds=1), recipe("tfidf", 0.45, baseline=True, seeds=1)
    fixed = replace(steady, scores=replace(steady.scores, depends_on_seed=False))
    baseline = replace(words, scores=replace(words.scores, depends_on_seed=False))
    (first, *_) = decide([uncertain, fixed, baseline], "accuracy").words
    assert "no detectable difference from Steady and Tfidf." in first
    assert first.startswith("Best scored highest"), first
    assert first.endswith("Steady is detectably better than Tfidf.")


def test_where_all_is_right_no_interval_is_pretended() -> None:
    perfect = resample(np.stack([LABELS] * 3), LABELS, "f1_macro", draws=50)
    entered = [ScoredRecipe(name, name, perfect, LABELS == LABELS, 1.0) for name in "ab"]
    verdict = decide(entered, "macro F1")
    (pair,) = verdict.pairs
    assert (pair.detectable, pair.to_json()["low"], pair.to_json()["high"]) == (False, None, None)
    assert "no interval, as nothing varies from row to row" in pair.words
    assert not any("may be worse" in words for words in verdict.words)


def test_verdict_on_one_recipe_and_on_none() -> None:
    alone = decide([recipe("a", 0.1)], "accuracy")
    assert (alone.best, alone.recommended, alone.pairs) == ("a", "a", [])
    assert "Nothing else finished" in alone.words[0]
    nobody = decide([], "accuracy")
    assert (nobody.best, nobody.recommended, len(nobody.words)) == (None, None, 1)


def test_json_has_every_key_of_the_leaderboard() -> None:
    verdict = decide([recipe("a", 0.1), recipe("b", 0.11), recipe("c", 0.3)], "accuracy")
    rows = [pair.to_json() for pair in verdict.pairs]
    keys = (
        "a b difference low high p p_holm mcnemar_p detectable ahead_in_one_training seeds_known rows_needed reason "
        "words"
    )
    assert [row.keys() for row in rows] == [dict.fromkeys(keys.split()).keys()] * 3
    assert json.loads(json.dumps([*rows, verdict.to_json()], allow_nan=False))[-1]["best"] == "a"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.02, 0.5), st.floats(0.1, 1e4), st.booleans()), min_size=1, max_size=5))
def test_verdict_follows_from_the_pairs(drawn: list[tuple[float, float, bool]]) -> None:
    entered = [recipe(str(n), wrong, cost, baseline=base) for n, (wrong, cost, base) in enumerate(drawn)]
    verdict = decide(entered, "accuracy")
    assert len(verdict.pairs) == len(entered) * (len(entered) - 1) // 2
    assert [pair.p_corrected for pair in verdict.pairs] == holm([pair.observed.p for pair in verdict.pairs])
    assert verdict.best == max(entered, key=lambda entry: entry.scores.mean).name
    worse = {
        pair.b.name if pair.a.name == verdict.best else pair.a.name
        for pair in verdict.pairs
        if verdict.best in (pair.a.name, pair.b.name) and pair.p_corrected < LEVEL
    }
    eligible = [entry for entry in entered if entry.name not in worse and not entry.baseline]
    if eligible:
        limit = SIMILAR_COST * min(entry.seconds for entry in eligible) + 1
        cheap = [entry for entry in eligible if entry.seconds <= limit]
        assert verdict.recommended == max(cheap, key=lambda entry: entry.scores.mean).name
    else:
        assert verdict.recommended is None
    assert all(words.endswith(".") for words in [*verdict.words, *(pair.words for pair in verdict.pairs)])


SEEDS = 3


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Test rows of three classes."""
    config = DataConfig(text="text", label="label", test=0.5, folds=0)
    test = divide(dataset(tmp_path_factory.mktemp("rows"), 120), config).test
    assert test is not None
    return test


@pytest.fixture
def shared_rows(part: Part) -> SharedTestRows:
    return SharedTestRows([part], "f1_macro", None)


def predictions(part: Part, name: str, sharpness: float, *, seconds: float = 1.0, **given: Any) -> RecipePredictions:
    """Noise of each seed as logits, with `sharpness` added to the right class."""
    random = np.random.default_rng(len(name))
    logits = random.normal(size=(SEEDS, len(part), 3)).astype(np.float32)
    logits[:, np.arange(len(part)), part.labels] += sharpness
    return RecipePredictions(
        name, name.title(), given.pop("baseline", False), logits, logits.argmax(-1), seconds, **given
    )


def test_scores_equal_scikit_learns_for_each_seed(part: Part, shared_rows: SharedTestRows) -> None:
    one = predictions(part, "one", 1.5)
    test = describe_test_scores(one, shared_rows)["test"]
    probabilities = np.stack([problem_of(part.labels).probabilities(own) for own in one.logits])
    expected = {
        "f1_macro": [f1_score(part.labels, own, average="macro") for own in one.decided],
        "accuracy": [accuracy_score(part.labels, own) for own in one.decided],
        "log_loss": [log_loss(part.labels, own) for own in probabilities],
        "roc_auc": [roc_auc_score(part.labels, own, multi_class="ovr") for own in probabilities],
    }
    for name, values in expected.items():
        assert test[name]["seeds"] == pytest.approx(values, rel=1e-5), name
        assert test[name]["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert test["f1_macro"]["low"] < test["f1_macro"]["mean"] < test["f1_macro"]["high"] <= 1
    assert test["roc_auc"]["low"] is None
    assert "the metric that decides" in test["roc_auc"]["reason"]


def test_confusion_matrix_is_of_the_seed_nearest_the_median(part: Part, shared_rows: SharedTestRows) -> None:
    one = predictions(part, "one", 1.0)
    values = [f1_score(part.labels, own, average="macro") for own in one.decided]
    middle = int(np.argsort(values)[1])
    assert one.nearest_to_median(shared_rows) == middle
    found = describe_test_scores(one, shared_rows)
    assert found["confusion"] == confusion_matrix(part.labels, one.decided[middle]).tolist()
    assert sum(map(sum, found["confusion"])) == len(part)


def test_threshold_curve_is_of_the_positive_class(part: Part, shared_rows: SharedTestRows) -> None:
    one = predictions(part, "one", 1.0)
    assert describe_test_scores(one, shared_rows)["threshold_curve"] is None
    curve = describe_test_scores(one, SharedTestRows([part], "f1_macro", 1))["threshold_curve"]
    assert curve["label"] == part.source.label_names[1]


def test_result_that_does_not_depend_on_the_seed_counts_for_every_seed(part: Part, shared_rows: SharedTestRows) -> None:
    good, bad = predictions(part, "good", 4.0), predictions(part, "worse", 0.2)
    steady = RecipePredictions("steady", "Steady", False, bad.logits[:1], bad.decided[:1], 0.1, depends_on_seed=False)
    verdict = decide_from_predictions([good, bad, steady], shared_rows)
    assert (verdict.best, verdict.recommended) == ("good", "good")
    assert [pair.detectable for pair in verdict.pairs] == [True, True, False]
    assert all(pair.seeds_known for pair in verdict.pairs)
    assert "macro F1" in verdict.words[0]


def test_of_similar_recipes_the_cheaper_is_recommended(part: Part, shared_rows: SharedTestRows) -> None:
    one, other = predictions(part, "one", 2.0, seconds=9.0), predictions(part, "two", 2.0, seconds=2.0)
    verdict = decide_from_predictions([one, other], shared_rows)
    assert not verdict.pairs[0].detectable
    assert verdict.recommended == "two"


def test_disagreements_come_with_text_label_and_predictions(part: Part, shared_rows: SharedTestRows) -> None:
    one, two = predictions(part, "one", 2.0), predictions(part, "three", 1.0)
    base = predictions(part, "majority", 0.0, baseline=True)
    found = list_disagreements([one, two, base], shared_rows)
    names, places = part.source.label_names, {int(row): place for place, row in enumerate(part.rows)}
    texts = part.joined_texts.to_pylist()
    assert found
    for entry in found:
        place = places[entry["row"]]
        assert entry["text"] == texts[place]
        assert entry["label"] == names[part.labels[place]]
        assert set(entry["predictions"]) == {"one", "three"}, "baselines are not counted"
        assert entry["predictions"]["one"] == names[one.decided[one.nearest_to_median(shared_rows)][place]]
        assert entry["predictions"]["one"] != entry["predictions"]["three"]


def test_shares_that_are_the_same_for_every_text_have_no_calibration(part: Part, shared_rows: SharedTestRows) -> None:
    logits = np.zeros((1, len(part), 3), np.float32)
    majority = RecipePredictions("majority", "Majority", True, logits, logits.argmax(-1), 0.1, depends_on_seed=False)
    assert describe_test_scores(majority, shared_rows)["calibration"] is None
    assert describe_test_scores(predictions(part, "one", 1.0), shared_rows)["calibration"]["ece"] > 0


def test_all_right_has_the_exact_interval_of_accuracy_and_none_of_macro_f1(
    part: Part, shared_rows: SharedTestRows
) -> None:
    test = describe_test_scores(predictions(part, "one", 50.0), shared_rows)["test"]
    n = len(part)
    assert (test["accuracy"]["low"], test["accuracy"]["high"]) == (pytest.approx(0.025 ** (1 / n)), 1)
    assert (test["f1_macro"]["mean"], test["f1_macro"]["low"], test["f1_macro"]["high"]) == (1, None, None)
    assert test["f1_macro"]["reason"].startswith("no interval")


def test_one_seed_has_a_wider_interval_where_another_recipe_tells_of_seeds(
    part: Part, shared_rows: SharedTestRows
) -> None:
    several = predictions(part, "one", 1.0)
    single = RecipePredictions("single", "Single", False, several.logits[:1], several.decided[:1], 1.0)
    alone = describe_test_scores(single, shared_rows)["test"]["f1_macro"]
    lent = describe_test_scores(single, shared_rows, [single, several])["test"]["f1_macro"]
    assert lent["high"] - lent["low"] > alone["high"] - alone["low"]


def test_undefined_score_is_null_with_its_reason(part: Part) -> None:
    only = part.without(np.flatnonzero(part.labels != 0))
    figure = describe_test_scores(predictions(only, "one", 1.0), SharedTestRows([only], "accuracy", None))["test"][
        "roc_auc"
    ]
    assert figure["mean"] is None
    assert figure["reason"]
