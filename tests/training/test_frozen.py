"""The base runs once for each text, and a head on its features is the head of the joined classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.rows import column, dataset, make_rows, recipe, train, weights
from helpers.weights import assert_same
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fullbake.config.problems import SINGLE_LABEL, problem_named
from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.core import runtime
from fullbake.core.cache import Cache
from fullbake.models import network
from fullbake.models.heads import build_head, l2_penalty
from fullbake.models.inference import logits_over
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.frozen import (
    FeatureKey,
    HeadSettings,
    LabeledFeatures,
    fit_head,
    frozen_features,
    head_logits,
    train_head,
)
from fullbake.training.logistic import WIDER_STRENGTHS
from fullbake.training.losses import make_training_loss
from fullbake.training.selection import SelectionMetrics

Bases = Callable[..., Path]
TOKENS = TokensConfig(max_length=48, token_budget=256)
HEADS = ["linear", "mlp", "standard"]


class Experiment:
    """A network over a small base, and the features of the tests' texts.

    passes: (rows, whether any module was in training mode) of each forward pass of the base.
    """

    def __init__(self, base: Path, folder: Path, head: str = "linear", **fields: Any) -> None:
        if head != "standard":  # the first token of a random base hardly varies between texts
            fields["pooling"] = "mean"
        self.recipe = recipe(base, f"frozen-{head}", **fields)
        self.head = self.recipe.head
        self.tokenizer = load_tokenizer(base)
        self.data = dataset(folder)
        self.cache = Cache(folder / "cache", 10**9)
        self.network = network.build_network(base, self.head, self.data.label_names, seed=0)
        self.passes: list[tuple[int, bool]] = []
        self.network.base_model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
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
        train_part, validation = self.parts()
        training = self.recipe.training
        objective = make_training_loss(training, train_part.labels, self.data.label_names)

        def validate(module: torch.nn.Module, _: int) -> dict[str, Any]:
            metrics = SelectionMetrics(training.metric, training.search_metric)
            return metrics.scores(head_logits(module, validation), validation.labels)

        history = train_head(self.network, train_part, validate, HeadSettings(self.head, training, objective))
        return history, head_logits(network.extract_head(self.network), validation)


def test_the_base_runs_once_for_each_text_in_eval_mode(bases: Bases, tmp_path: Path) -> None:
    experiment = Experiment(bases("bert"), tmp_path)
    experiment.network.train()
    experiment.features()
    assert sum(rows for rows, _ in experiment.passes) == 60
    assert not any(training for _, training in experiment.passes)


def test_training_the_head_never_runs_the_base(bases: Bases, tmp_path: Path) -> None:
    experiment = Experiment(bases("bert"), tmp_path, "mlp")
    experiment.features()
    passes = len(experiment.passes)
    experiment.fit()
    assert len(experiment.passes) == passes


def test_cached_features_equal_fresh_ones_bit_for_bit(bases: Bases, tmp_path: Path) -> None:
    experiment = Experiment(bases("bert"), tmp_path)
    fresh, passes = experiment.features(), len(experiment.passes)
    cached = experiment.features(lambda: pytest.fail("a cache hit must not tokenize"))
    assert np.array_equal(fresh, cached)
    assert cached.dtype == np.float32
    assert len(experiment.passes) == passes
    assert np.array_equal(fresh, experiment.features(key="another"))
    assert len(experiment.passes) > passes


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
def test_the_key_differs_with_all_that_features_depend_on(other: FeatureKey) -> None:
    assert KEY.of("texts") == KEY.of("texts")
    assert KEY.of("texts") != other.of("texts")
    assert KEY.of("texts") != KEY.of("other texts")


@pytest.mark.parametrize("head", HEADS)
def test_only_the_head_trains(bases: Bases, tmp_path: Path, head: str) -> None:
    experiment = Experiment(bases("bert"), tmp_path, head, learning_rate=None if head == "linear" else 1e-2)
    before = {name: tensor.clone() for name, tensor in experiment.network.state_dict().items()}
    experiment.fit()
    moved = {name for name, tensor in experiment.network.state_dict().items() if not torch.equal(tensor, before[name])}
    heads = {"standard": ("bert.pooler.", "classifier."), "linear": ("head.",), "mlp": ("head.",)}[head]
    assert moved == {name for name in before if name.startswith(heads)}
    assert not any(module.training for module in experiment.network.modules())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert"])
def test_joined_classifier_scores_as_the_head_on_features(bases: Bases, tmp_path: Path, family: str, head: str) -> None:
    experiment = Experiment(bases(family), tmp_path, head)
    _, on_features = experiment.fit()
    encoded = experiment.encoded().take(np.arange(45, 60))
    joined = logits_over(experiment.network, encoded, tokens=TOKENS, pad_id=experiment.tokenizer.pad_token_id)
    # a random base's features hardly vary: folding their tiny scale into one fp32 layer magnifies rounding tenfold
    atol = 1e-4 if head == "linear" else 1e-5
    one, other = (problem_named(SINGLE_LABEL).probabilities(values) for values in (joined, on_features))
    np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_head_is_scikit_learns_logistic_regression(bases: Bases, tmp_path: Path, classes: int) -> None:
    """The same probabilities as a scaler and a regression of the strength that validation chose."""
    experiment = Experiment(bases("bert"), tmp_path)
    experiment.data = dataset(tmp_path, classes=classes)
    experiment.network = network.build_network(
        bases("bert"), HeadConfig(kind="linear", pooling="mean"), experiment.data.label_names, seed=0
    )
    part, validation = experiment.parts()
    history, logits = experiment.fit()
    best = next(entry for entry in history if entry["best"])
    inputs, others = (values.features.astype(np.float64) for values in (part, validation))
    scaler = StandardScaler().fit(inputs)
    plain = LogisticRegression(C=best["C"], tol=1e-8, max_iter=10_000).fit(scaler.transform(inputs), part.labels)
    expected = plain.predict_proba(scaler.transform(others))
    np.testing.assert_allclose(problem_named(SINGLE_LABEL).probabilities(logits), expected, atol=1e-4)
    assert {entry["C"] for entry in history} <= set(WIDER_STRENGTHS)
    assert best["neg_log_loss"] == max(entry["neg_log_loss"] for entry in history)


@pytest.mark.parametrize("head", ["linear", "mlp", "standard"])
def test_same_seed_gives_the_same_bits(bases: Bases, tmp_path: Path, head: str) -> None:
    """With fresh features and with cached ones."""
    first, again = (train(bases("bert"), tmp_path, f"frozen-{head}") for _ in range(2))
    assert_same(weights(first), weights(again))


def test_mlp_head_learns_and_its_penalty_counts(bases: Bases, tmp_path: Path) -> None:
    free, penalized = (Experiment(bases("bert"), tmp_path, "mlp", l2=l2, epochs=5) for l2 in (0.0, 1.0))
    histories = [experiment.fit()[0] for experiment in (free, penalized)]
    assert histories[0][-1]["train_loss"] < histories[0][0]["train_loss"]
    assert l2_penalty(network.extract_head(penalized.network)) < 0.5 * l2_penalty(network.extract_head(free.network))


def test_features_of_a_text_do_not_depend_on_other_texts(bases: Bases, tmp_path: Path) -> None:
    experiment = Experiment(bases("bert"), tmp_path)
    together = experiment.features()
    alone = encode(column([make_rows()[5][0]]), experiment.tokenizer, TOKENS)
    np.testing.assert_allclose(experiment.features(lambda: alone, key="alone")[0], together[5], atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_bits_of_a_head_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    """Several threads would add up a product of this size in another order."""
    random = np.random.default_rng(0)
    values = random.standard_normal((600, 256)).astype(np.float32)
    part = LabeledFeatures(values, (values[:, :3] + random.standard_normal((600, 3))).argmax(axis=1))
    training = recipe("demo", f"frozen-{kind}", batch_size=128, epochs=2, learning_rate=1e-3).training
    settings = HeadSettings(
        HeadConfig(kind=kind, width=256),  # type: ignore[arg-type]
        training,
        make_training_loss(training, part.labels, ("a", "b", "c")),
    )

    def trained(threads: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        head = build_head(kind, 256, 3, dropout=0.1, layers=2, width=256).to(runtime.device())
        runtime.set_threads(threads)
        metrics = SelectionMetrics("f1_macro")
        fit_head(head, part, lambda module, _: metrics.scores(head_logits(module, part), part.labels), settings)
        return [*head.state_dict().values(), torch.from_numpy(head_logits(head, part))]

    before = runtime.threads()
    try:
        assert all(torch.equal(one, two) for one, two in zip(trained(1), trained(2), strict=True))
    finally:
        runtime.set_threads(before)


def test_folds_choose_among_all_strengths(bases: Bases, tmp_path: Path) -> None:
    """Every fold tries the same ones, and the last one that is fitted on all rows is the chosen one."""
    classifier = train(bases("bert"), tmp_path, "frozen-linear", folds=3)
    history = classifier.record.history
    assert [entry["C"] for entry in history] == list(WIDER_STRENGTHS[: len(history)])
    assert [entry["best"] for entry in history] == [False] * (len(history) - 1) + [True]
    scores = [entry["neg_log_loss"] for entry in history]
    assert scores.index(max(scores)) == len(history) - 1
