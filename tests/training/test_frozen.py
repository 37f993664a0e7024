"""fullbake.training.frozen: ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.rows import column, dataset, make_rows, recipe, train, weights
from helpers.weights import assert_same
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.core.cache import Cache
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.heads import l2_penalty
from fullbake.models.inference import encode, logits_over
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.frozen import (
    LOGISTIC_STRENGTHS,
    FeatureKey,
    HeadSettings,
    LabeledFeatures,
    LogisticRows,
    fit_logistic,
    frozen_features,
    head_logits,
    train_head,
)
from fullbake.training.losses import make_training_loss

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(90, 5)).astype(np.float32)
LABELS = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3))).argmax(axis=1)
MARKS = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3)) > 0.7).astype(np.uint8)


def fit(labels: np.ndarray, weights: np.ndarray | None = None, last: int | None = None) -> tuple[Any, np.ndarray]:
    """(history, logits of the rows that were fitted)."""
    layer = nn.Linear(5, 3)

    def logits(module: nn.Module) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = module(torch.from_numpy(FEATURES)).numpy()
        return scores

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        return validation_scores(logits(module), labels, "neg_log_loss")

    history = fit_logistic(layer, LogisticRows(FEATURES, labels, weights), validate, "neg_log_loss", last)
    return history, logits(layer)


def plain(labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> np.ndarray:
    """scikit-learn's own probabilities."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000))
    scores: np.ndarray = pipeline.fit(FEATURES, labels, logisticregression__sample_weight=weights).predict_proba(
        FEATURES
    )
    return scores


def test_many_labels_are_a_regression_each() -> None:
    history, logits = fit(MARKS, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = np.stack([plain(MARKS[:, place], best["C"])[:, 1] for place in range(3)], axis=1)
    np.testing.assert_allclose(problem_named(MULTI_LABEL).probabilities(logits), expected, atol=1e-3)
    assert [entry["C"] for entry in history] == list(LOGISTIC_STRENGTHS[:9])


def test_class_weights_are_sample_weights() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(LABELS, weights, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = plain(LABELS, best["C"], weights[LABELS])
    np.testing.assert_allclose(problem_named(SINGLE_LABEL).probabilities(logits), expected, atol=1e-3)


def test_weights_of_many_labels_are_those_of_the_rows_that_have_them() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(MARKS, weights, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = plain(MARKS[:, 0], best["C"], np.where(MARKS[:, 0], 5.0, 1.0))[:, 1]
    np.testing.assert_allclose(problem_named(MULTI_LABEL).probabilities(logits)[:, 0], expected, atol=1e-3)


def test_a_class_that_the_rows_lack_gets_next_to_no_chance() -> None:
    labels = np.where(LABELS == 1, 0, LABELS)
    chances = problem_named(SINGLE_LABEL).probabilities(fit(labels, last=5)[1])
    assert chances[:, 1].max() < 1e-3
    assert (chances.argmax(axis=1) != 1).all()


def test_a_label_that_none_has_keeps_a_small_constant_chance() -> None:
    marks = MARKS.copy()
    marks[:, 2] = 0
    chances = problem_named(MULTI_LABEL).probabilities(fit(marks, last=5)[1])
    np.testing.assert_allclose(chances[:, 2], 0.5 / 91, rtol=1e-3)


@pytest.mark.parametrize("last", [1, 4])
def test_it_stops_where_it_is_told(last: int) -> None:
    history, _ = fit(LABELS, last=last)
    assert len(history) == last


Bases = Callable[..., Path]
TOKENS = TokensConfig(max_length=48, token_budget=256)
HEADS = ["linear", "mlp", "standard"]


class Work:
    """A network over a small base, and the features of the tests' texts. passes: (rows, base training) of each."""

    def __init__(self, base: Path, folder: Path, head: str = "linear", **fields: Any) -> None:
        if head != "standard":  # the first tokens of a random base hardly tell texts apart
            fields["pooling"] = "mean"
        self.recipe = recipe(base, f"frozen-{head}", **fields)
        self.head = self.recipe.head
        self.tokenizer = load_tokenizer(base)
        self.data = dataset(folder)
        self.cache = Cache(folder / "cache", 10**9)
        self.network = network.build_network(base, self.head, self.data.label_names, seed=0)
        self.passes: list[tuple[int, bool]] = []
        self.network.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        rows = len(given[0] if given else named["input_ids"])
        self.passes.append((rows, any(part.training for part in module.modules())))

    def features(self, encode_texts: Callable[[], Any] | None = None, key: str = "k") -> np.ndarray:
        found = frozen_features(
            self.network,
            encode_texts or self.encoded,
            key=key,
            cache=self.cache,
            tokens=TOKENS,
            pad_id=self.tokenizer.pad_token_id,
        )
        return found.vectors

    def encoded(self) -> Any:
        return encode(self.data.texts, self.tokenizer, TOKENS)

    def parts(self) -> tuple[LabeledFeatures, LabeledFeatures]:
        features, labels = self.features(), self.data.labels
        assert labels is not None
        return LabeledFeatures(features[:45], labels[:45]), LabeledFeatures(features[45:], labels[45:])

    def fit(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        train_part, held = self.parts()
        training = self.recipe.training
        objective = make_training_loss(training, train_part.labels, self.data.label_names)

        def validate(module: torch.nn.Module, _: int) -> dict[str, Any]:
            return validation_scores(head_logits(module, held), held.labels, training.metric)

        history = train_head(self.network, train_part, validate, HeadSettings(self.head, training, objective))
        return history, head_logits(network.extract_head(self.network), held)


def test_each_text_passes_the_base_once_in_eval_mode(bases: Bases, tmp_path: Path) -> None:
    work = Work(bases("bert"), tmp_path)
    work.network.train()
    work.features()
    assert sum(rows for rows, _ in work.passes) == 60
    assert not any(training for _, training in work.passes)


def test_training_the_head_never_runs_the_base(bases: Bases, tmp_path: Path) -> None:
    work = Work(bases("bert"), tmp_path, "mlp")
    work.features()
    passes = len(work.passes)
    work.fit()
    assert len(work.passes) == passes


def test_cached_features_are_the_bits_of_fresh_ones(bases: Bases, tmp_path: Path) -> None:
    work = Work(bases("bert"), tmp_path)
    fresh, passes = work.features(), len(work.passes)
    cached = work.features(lambda: pytest.fail("a cache hit must not tokenize"))
    assert np.array_equal(fresh, cached)
    assert cached.dtype == np.float32
    assert len(work.passes) == passes
    assert np.array_equal(fresh, work.features(key="another"))
    assert len(work.passes) > passes


KEY = FeatureKey("base", "tokenizer", "cls", TOKENS, 1, (("torch", "2"),))


@pytest.mark.parametrize(
    "other",
    [
        FeatureKey("other", "tokenizer", "cls", TOKENS, 1, (("torch", "2"),)),
        FeatureKey("base", "other", "cls", TOKENS, 1, (("torch", "2"),)),
        FeatureKey("base", "tokenizer", "mean", TOKENS, 1, (("torch", "2"),)),
        FeatureKey("base", "tokenizer", "cls", TOKENS.model_copy(update={"max_length": 47}), 1, (("torch", "2"),)),
        FeatureKey("base", "tokenizer", "cls", TOKENS, 2, (("torch", "2"),)),
        FeatureKey("base", "tokenizer", "cls", TOKENS, 1, (("torch", "3"),)),
    ],
)
def test_the_key_tells_apart_what_features_depend_on(other: FeatureKey) -> None:
    assert KEY.of("texts") == KEY.of("texts")
    assert KEY.of("texts") != other.of("texts")
    assert KEY.of("texts") != KEY.of("other texts")


@pytest.mark.parametrize("head", HEADS)
def test_only_the_head_trains(bases: Bases, tmp_path: Path, head: str) -> None:
    work = Work(bases("bert"), tmp_path, head, learning_rate=None if head == "linear" else 1e-2)
    before = {name: tensor.clone() for name, tensor in work.network.state_dict().items()}
    work.fit()
    moved = {name for name, tensor in work.network.state_dict().items() if not torch.equal(tensor, before[name])}
    heads = {"standard": ("bert.pooler.", "classifier."), "linear": ("head.",), "mlp": ("head.",)}[head]
    assert moved == {name for name in before if name.startswith(heads)}
    assert not any(module.training for module in work.network.modules())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert"])
def test_joined_classifier_scores_as_the_head_on_features(bases: Bases, tmp_path: Path, family: str, head: str) -> None:
    work = Work(bases(family), tmp_path, head)
    _, on_features = work.fit()
    encoded = work.encoded().take(np.arange(45, 60))
    joined = logits_over(work.network, encoded, tokens=TOKENS, pad_id=work.tokenizer.pad_token_id)
    # a random base's features hardly vary: folding their tiny scale into one fp32 layer magnifies rounding tenfold
    atol = 1e-4 if head == "linear" else 1e-5
    one, other = (problem_named(SINGLE_LABEL).probabilities(values) for values in (joined, on_features))
    np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_is_scikit_learns_logistic_regression(bases: Bases, tmp_path: Path, classes: int) -> None:
    """Parity with the plain pipeline at the strength that validation chose, the scaler folded in."""
    work = Work(bases("bert"), tmp_path)
    work.data = dataset(tmp_path, classes=classes)
    work.network = network.build_network(
        bases("bert"), HeadConfig(kind="linear", pooling="mean"), work.data.label_names, seed=0
    )
    part, validation = work.parts()
    history, logits = work.fit()
    best = next(entry for entry in history if entry["best"])
    inputs, others = (values.features.astype(np.float64) for values in (part, validation))
    scaler = StandardScaler().fit(inputs)
    plain = LogisticRegression(C=best["C"], tol=1e-8, max_iter=10_000).fit(scaler.transform(inputs), part.labels)
    expected = plain.predict_proba(scaler.transform(others))
    np.testing.assert_allclose(problem_named(SINGLE_LABEL).probabilities(logits), expected, atol=1e-4)
    assert [entry["C"] for entry in history] == list(LOGISTIC_STRENGTHS)
    assert best["f1_macro"] == max(entry["f1_macro"] for entry in history)


@pytest.mark.parametrize("head", ["linear", "mlp", "standard"])
def test_same_seed_gives_the_same_bits(bases: Bases, tmp_path: Path, head: str) -> None:
    """Promise 3, with fresh and with cached features."""
    first, again = (train(bases("bert"), tmp_path, f"frozen-{head}") for _ in range(2))
    assert_same(weights(first), weights(again))


def test_mlp_head_learns_and_its_penalty_counts(bases: Bases, tmp_path: Path) -> None:
    free, held = (Work(bases("bert"), tmp_path, "mlp", l2=l2, epochs=5) for l2 in (0.0, 1.0))
    histories = [work.fit()[0] for work in (free, held)]
    assert histories[0][-1]["train_loss"] < histories[0][0]["train_loss"]
    assert l2_penalty(network.extract_head(held.network)) < 0.5 * l2_penalty(network.extract_head(free.network))


def test_features_of_a_text_do_not_depend_on_its_neighbors(bases: Bases, tmp_path: Path) -> None:
    work = Work(bases("bert"), tmp_path)
    together = work.features()
    alone = encode(column([make_rows()[5][0]]), work.tokenizer, TOKENS)
    np.testing.assert_allclose(work.features(lambda: alone, key="alone")[0], together[5], atol=1e-5)
