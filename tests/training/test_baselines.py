"""Baselines equal their scikit-learn counterparts, and validation chooses what TF-IDF counts."""

import numpy as np
import pytest
from helpers.rows import make_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from fullbake.training import baselines
from fullbake.training.baselines import (
    BASELINE_STRENGTHS,
    FEATURE_SETS,
    FIRST_STRENGTH,
    LEAST_CHARACTERS,
    Baseline,
    BaselineChoice,
    BaselineRows,
    TextFeatures,
    best_strength,
    fit_baseline,
    unspaced_share,
)

ROWS = make_rows(90)
NAMES = sorted({label for _, label in ROWS})
TEXTS = [text for text, _ in ROWS]
LABELS = np.array([NAMES.index(label) for _, label in ROWS])
TRAIN, VALIDATION = BaselineRows(TEXTS[:60], LABELS[:60]), BaselineRows(TEXTS[60:], LABELS[60:])

WORDS = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": r"(?u)\b\w+\b"}
CHARACTERS = {"analyzer": "char_wb", "ngram_range": (2, 5), "sublinear_tf": True}
CHINESE = ["今天的火车又晚点了四十分钟", "酒店房间很干净，早餐也好", "泳池太小，服务员态度很差", "这本书写得非常好看"]


def fit(labels: np.ndarray, choice: BaselineChoice | None = None, texts: list[str] = TEXTS) -> Baseline:
    """TF-IDF on these labels of all texts, chosen by the same texts."""
    rows = BaselineRows(texts, labels)
    return fit_baseline("tfidf", rows, 3, validation=rows, choice=choice)


def test_majority_equals_scikit_learns_dummy_classifier() -> None:
    labels = np.array([2, 2, 2, 0, 0, 1])
    fitted = fit_baseline("majority", BaselineRows(["a"] * 6, labels), 3, validation=BaselineRows([], labels[:0]))
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), labels)
    logits = fitted.logits(["x", "y"])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, dummy.predict_proba(np.zeros((2, 1))), atol=1e-5)
    assert (fitted.parameters, fitted.choice) == (0, None)


@pytest.mark.parametrize("features", FEATURE_SETS)
def test_tfidf_equals_scikit_learns_pipeline(features: str) -> None:
    choice = BaselineChoice(features, 10.0)
    fitted = fit_baseline("tfidf", TRAIN, 3, validation=VALIDATION, choice=choice)
    parts = {"words": TfidfVectorizer(**WORDS), "characters": TfidfVectorizer(**CHARACTERS)}
    union = make_union(*(parts[part] for part in FEATURE_SETS[features]))
    model = make_pipeline(union, LogisticRegression(C=10.0, max_iter=1000)).fit(TRAIN.texts, TRAIN.labels)
    np.testing.assert_allclose(
        fitted.logits(VALIDATION.texts), model.decision_function(VALIDATION.texts), rtol=1e-3, atol=1e-4
    )
    assert fitted.choice == choice


def test_features_and_strength_have_the_lowest_log_loss_on_validation() -> None:
    chosen = fit_baseline("tfidf", TRAIN, 3, validation=VALIDATION)
    assert chosen.choice is not None

    def loss(features: str, strength: float) -> float:
        own = fit_baseline("tfidf", TRAIN, 3, validation=VALIDATION, choice=BaselineChoice(features, strength))
        logits = own.logits(VALIDATION.texts).astype(np.float64)
        normalizer = np.log(np.exp(logits).sum(axis=1))
        return float((normalizer - logits[np.arange(len(logits)), VALIDATION.labels]).mean())

    at_first = {features: loss(features, FIRST_STRENGTH) for features in FEATURE_SETS}
    assert chosen.choice.features == min(at_first, key=at_first.__getitem__)
    losses = {strength: loss(chosen.choice.features, strength) for strength in BASELINE_STRENGTHS}
    assert chosen.choice.strength == best_strength(losses.__getitem__)
    assert losses[chosen.choice.strength] <= min(at_first.values())


def test_training_with_what_was_chosen_gives_the_same_bits() -> None:
    chosen = fit_baseline("tfidf", TRAIN, 3, validation=VALIDATION)
    again = fit_baseline("tfidf", TRAIN, 3, validation=BaselineRows([""], LABELS[:1]), choice=chosen.choice)
    np.testing.assert_array_equal(again.logits(VALIDATION.texts), chosen.logits(VALIDATION.texts))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5, 4, 3, 4, 5], 10.0),
        ([1, 2, 3, 4, 5], 0.1),
        ([5, 4, 3, 2, 1], 1000.0),
        ([1, 4, 3, 3, 3], 10.0),  # a way down behind a hill is not looked for, and equals lose
        ([5, 2, 3, 1, 0], 1.0),
    ],
)
def test_best_strength_is_found_downhill_from_the_first(losses: list[float], expected: float) -> None:
    assert best_strength(dict(zip(BASELINE_STRENGTHS, losses, strict=True)).__getitem__) == expected


def test_misspelled_words_are_known_by_their_characters() -> None:
    words = ["delicious", "wonderful", "excellent", "horrible", "terrible", "dreadful"]
    broken = [word[:3] + letter + word[3:] for word in words for letter in "xqz"]
    labels = np.repeat([0, 0, 0, 1, 1, 1], 3)
    validation = BaselineRows([word + "." for word in words], labels[::3])
    fitted = fit_baseline("tfidf", BaselineRows(broken, labels), 2, validation=validation)
    assert fitted.choice is not None
    assert fitted.choice.features == "characters"
    assert (fitted.logits(validation.texts).argmax(axis=1) == validation.labels).all()


def test_chinese_is_cut_into_characters() -> None:
    labels = np.array([0, 1, 1, 0])
    fitted = fit(labels, texts=CHINESE)
    assert fitted.choice is not None
    assert fitted.choice.features == "characters"
    counted = TextFeatures("characters", CHINESE, spaced=False)
    assert counted.transform(["房间"]).nnz == 3, "both characters, and the two together"
    assert fitted.parameters == 3 * counted.width


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        (["plain words", "größer, été, привет"], 0),
        (["한국어는 띄어 쓴다"], 0),
        (CHINESE, 1),
        (["ひらがなとカタカナ"], 1),
        (["ภาษาไทยไม่มีช่องว่าง"], 1),
        (["abc 火车", "1234 !!"], 0.4),
        (["", "12:30 !"], 0),
    ],
)
def test_share_of_letters_that_are_written_without_spaces(texts: list[str], share: float) -> None:
    assert unspaced_share(texts) == pytest.approx(share)


def test_mixed_texts_have_words_too() -> None:
    mixed = [f"{text} the hotel and the train" for text in CHINESE]
    assert 0.2 < unspaced_share(mixed) < 0.8
    rows = BaselineRows(mixed, np.array([0, 1, 1, 0]))
    for features in FEATURE_SETS:
        choice = BaselineChoice(features, 1.0)
        assert fit_baseline("tfidf", rows, 2, validation=rows, choice=choice).choice == choice


def test_long_texts_are_cut_only_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "a " * LEAST_CHARACTERS + "zebra"
    few = TextFeatures("characters", [long] * 3, spaced=True)
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", 3 * LEAST_CHARACTERS)
    many, words = (TextFeatures(name, [long] * 3, spaced=True) for name in ("characters", "words"))
    assert "zebra" in few.vocabulary
    assert "zebra" not in many.vocabulary
    assert "zebra" in words.vocabulary


def test_forecast_counts_the_characters_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", 2_000)
    assert baselines.characters_read(np.array([100, 300])) == 200
    assert baselines.characters_read(np.full(100, 300)) == baselines.LEAST_CHARACTERS
    assert baselines.characters_read(np.full(100, 30)) == 30


def test_class_without_training_rows_gets_the_lowest_logit() -> None:
    labels = np.where(LABELS == 2, 0, LABELS)
    logits = fit(labels).logits(TEXTS)
    assert logits.shape == (90, 3)
    assert (logits[:, 2] < logits[:, :2].min(axis=1)).all()
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("name", ["majority", "tfidf"])
def test_baselines_learn_several_labels_a_row(name: str) -> None:
    label_matrix = np.stack([LABELS == 0, LABELS != 1, np.ones(90)], axis=1).astype(np.uint8)
    rows = BaselineRows(TEXTS, label_matrix)
    logits = fit_baseline(name, rows, 3, validation=rows).logits(TEXTS)
    assert logits.shape == (90, 3)
    assert (logits[:, 2] > 0).all()


def test_many_rows_and_classes_are_fitted_by_saga_to_nearly_the_same() -> None:
    """More than 20,000 rows times classes."""
    texts, labels = TEXTS * 80, np.tile(LABELS, 80)
    fitted = fit(labels, BaselineChoice("words", 1.0), texts)
    vectorizer = TfidfVectorizer(**WORDS, min_df=2)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(vectorizer.fit_transform(texts), labels)
    expected = model.decision_function(vectorizer.transform(TEXTS))
    assert np.abs(fitted.logits(TEXTS) - expected).max() < 0.1 * np.abs(expected).max()
    np.testing.assert_array_equal(fit(labels, BaselineChoice("words", 1.0), texts).logits(TEXTS), fitted.logits(TEXTS))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=4, max_size=8))
def test_any_texts_can_be_counted(texts: list[str]) -> None:
    labels = np.arange(len(texts)) % 2
    fitted = fit(labels, texts=texts)
    assert np.isfinite(fitted.logits([*texts, ""])).all()
