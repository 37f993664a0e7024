"""fullbake.comparison.trial: What a training leaves behind when it learned nothing, and when it did."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import dataset, recipe

from fullbake.classifier import adapt
from fullbake.comparison import trial
from fullbake.comparison.runner import Artifact, ArtifactStore
from fullbake.comparison.trial import (
    ANOTHER_SEED,
    TrialResult,
    chance_loss,
    find_collapse,
    restore_network,
    score_baseline,
    score_trial,
    train_baseline,
    train_trial,
)
from fullbake.config.sections import DecisionConfig
from fullbake.core.errors import DivergenceFault, SpaceFault
from fullbake.data.splits import Parts, divide
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, recipe_tokenizer, resolve_recipe

LABELS = np.arange(40) % 4
GOOD = np.where(np.arange(40) % 5 == 0, 0, LABELS)


def epochs(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": n, "train_loss": loss, "validation_loss": loss} for n, loss in enumerate(losses, 1)]


def test_chance_is_ln_k_where_classes_are_even() -> None:
    assert chance_loss(LABELS) == pytest.approx(np.log(4))
    assert chance_loss(np.zeros(5, dtype=int)) == 0
    assert chance_loss(np.array([[1, 0], [0, 0]])) == pytest.approx(np.log(2) / 2)


def test_a_training_that_learned_is_no_collapse() -> None:
    assert find_collapse(epochs(1.2, 0.6, 0.4), GOOD, LABELS, [1.0, 0.5, 0.3]) is None


def test_one_answer_for_all_rows() -> None:
    found = find_collapse(epochs(1.3, 1.2), np.full(40, 2), LABELS)
    assert found is not None
    assert found.sign == "one_class"
    assert found.reason == "all 40 validation rows got the same answer, which is right for 25% of them"


def test_one_answer_is_right_where_there_is_one_class() -> None:
    assert find_collapse([], np.zeros(9, dtype=int), np.zeros(9, dtype=int)) is None


def test_one_answer_where_a_row_may_have_many_labels() -> None:
    held = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])
    found = find_collapse(epochs(0.4), np.zeros((4, 2), dtype=int), held)
    assert found is not None
    assert (found.sign, "right for 50%" in found.reason) == ("one_class", True)
    assert find_collapse(epochs(0.4), held, held) is None


@pytest.mark.parametrize("losses", [[1.386, 1.39, 1.388], [1.45], [1.6, 1.5]])
def test_a_loss_that_never_left_chance(losses: list[float]) -> None:
    found = find_collapse(epochs(*losses), GOOD, LABELS)
    assert found is not None
    assert found.sign == "stuck_loss"
    assert "the 4 classes' shares costs 1.386" in found.reason


@pytest.mark.parametrize("losses", [[1.386, 1.3], [4.0, 5.0]], ids=["left chance late", "another failure"])
def test_other_losses_are_not_stuck(losses: list[float]) -> None:
    assert find_collapse(epochs(*losses), GOOD, LABELS) is None


def test_chance_on_uneven_classes_is_less_than_ln_k() -> None:
    uneven = np.array([0] * 36 + [1, 2, 3, 1])
    spread = np.where(np.arange(40) == 0, 1, uneven)
    assert chance_loss(uneven) == pytest.approx(-(0.9 * np.log(0.9) + 0.05 * np.log(0.05) + 0.05 * np.log(0.025)))
    assert find_collapse(epochs(0.4), spread, uneven) is None
    found = find_collapse(epochs(0.45), spread, uneven)
    assert found is not None
    assert found.sign == "stuck_loss"


def test_vanished_gradients_are_named_before_what_they_cause() -> None:
    found = find_collapse(epochs(1.386, 1.386), np.zeros(40, dtype=int), LABELS, [1.0, 1e-9, 1e-9, 1e-9])
    assert found is not None
    assert found.sign == "vanished_gradients"
    assert "1.0e-09 long in the last epoch, at a training loss of 1.386" in found.reason


def test_gradients_are_short_where_all_is_learned() -> None:
    assert find_collapse(epochs(0.5, 0.001), GOOD, LABELS, [1.0, 1e-9]) is None


Bases = Callable[..., Path]


def job_of(base: Path, folder: Path, name: str = "frozen-linear", **fields: Any) -> Job:
    """A job with all three parts."""
    chosen = resolve_recipe(recipe(base, name, test=0.25, folds=0, **fields))
    parts = divide(dataset(folder), chosen.data)
    key = network.encoder_fingerprint(load_encoder(chosen.base))
    return Job(chosen, parts, recipe_tokenizer(chosen), key, feature_cache(folder / "cache"))


def blind(job: Job) -> Job:
    return replace(job, parts=replace(job.parts, test=None))


@pytest.mark.parametrize("name", ["frozen-linear", "frozen-mlp", "finetune"])
def test_a_cell_is_what_adapt_makes_of_the_same_recipe(bases: Bases, tmp_path: Path, name: str) -> None:
    """Parity: validation scores, test scores and decisions of `adapt`, cell by cell."""
    job = job_of(bases("bert"), tmp_path, name)
    rate = None if name == "frozen-linear" else job.recipe.training.learning_rate[0]
    outcome, weights = train_trial(blind(job), rate)
    outcome = replace(outcome, seed=job.recipe.training.seed) if not outcome.restarts else outcome
    seeded = replace(job, recipe=job.recipe.with_fields(seed=outcome.seed))
    made = adapt.adapt(seeded.recipe, dataset(tmp_path), cache_dir=tmp_path / "cache")
    facts = made.record.facts["metrics"]
    assert outcome.value == pytest.approx(facts["validation"]["overall"]["f1_macro"]["value"])
    test = job.parts.test
    assert test is not None
    score = score_trial(seeded, test, weights)
    decision = Decision.from_json(outcome.decision, made.problem_type, made.label_names)
    decided = decision.decide(probabilities(score.logits, made.problem_type))
    right = float((decided == test.labels).mean())
    assert right == pytest.approx(facts["test"]["overall"]["accuracy"]["value"])
    assert score.rows_per_second > 0
    assert outcome.parameters > 0
    assert outcome.size > outcome.parameters
    assert outcome.memory is None or outcome.memory > 1_000_000


def test_what_trains_refuses_a_test_part(bases: Bases, tmp_path: Path) -> None:
    job = job_of(bases("bert"), tmp_path)
    with pytest.raises(ValueError, match="no test part"):
        train_trial(job, None)
    with pytest.raises(ValueError, match="no test part"):
        train_baseline("tfidf", job.parts, "f1_macro", DecisionConfig())


def test_test_labels_and_texts_do_not_matter_to_a_cell(bases: Bases, tmp_path: Path) -> None:
    """The test part swapped for validation rows changes no bit of what is chosen."""
    job = job_of(bases("bert"), tmp_path)
    other = replace(job, parts=replace(job.parts, test=job.parts.validation))
    first, second = (train_trial(blind(one), None)[0] for one in (job, other))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_facts_come_back_as_they_were(bases: Bases, tmp_path: Path) -> None:
    outcome, weights = train_trial(blind(job_of(bases("bert"), tmp_path, "frozen-mlp")), 1e-2)
    cells = ArtifactStore(tmp_path / "cells")
    cells.keep("a/0.01/0", "trained", "x", Artifact(outcome.facts(), {"logits": outcome.logits}))
    found = cells.read("a/0.01/0", "trained", "x")
    assert found is not None
    again = TrialResult(logits=found.arrays["logits"], **found.facts)
    assert again.facts() == outcome.facts()
    assert weights


def test_divergence_is_a_result_after_one_more_try(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def diverge(way: Any, rates: Any, metric: Any) -> None:
        tried.append(rates)
        raise DivergenceFault("the training loss is no longer a finite number", where="epoch 1, step 2")

    monkeypatch.setattr(trial, "train_best", diverge)
    outcome, weights = train_trial(blind(job_of(bases("bert"), tmp_path, "frozen-mlp")), 1e-2)
    assert outcome.value is None
    assert outcome.reason == "the training loss is no longer a finite number (epoch 1, step 2)"
    assert len(tried) == 2
    assert outcome.seed == ANOTHER_SEED
    assert len(outcome.restarts) == 1
    assert weights == {}


def test_a_full_disk_is_no_result(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise SpaceFault("the disk is full")

    monkeypatch.setattr(trial, "train_best", full)
    with pytest.raises(SpaceFault):
        train_trial(blind(job_of(bases("bert"), tmp_path, "frozen-mlp")), 1e-2)


def test_a_collapse_is_named_and_started_again_with_another_seed(bases: Bases, tmp_path: Path) -> None:
    """A rate of next to nothing leaves the loss at chance, with any seed."""
    outcome, _ = train_trial(blind(job_of(bases("bert"), tmp_path, "finetune")), 1e-9)
    assert outcome.seed == ANOTHER_SEED
    (told,) = outcome.restarts
    assert "collapsed" in told
    assert f"seed {ANOTHER_SEED}" in told
    assert outcome.reason is not None
    assert outcome.reason.startswith("collapsed")
    assert outcome.value is not None


def test_restored_weights_give_the_validation_logits_again(bases: Bases, tmp_path: Path) -> None:
    job = job_of(bases("bert"), tmp_path, "finetune")
    outcome, weights = train_trial(blind(job), 5e-3)
    model = restore_network(job, weights)
    assert not model.training
    validation = job.parts.validation
    assert validation is not None
    again = score_trial(job, validation, weights)
    np.testing.assert_allclose(again.logits, outcome.logits, atol=1e-5)


def test_baselines_are_scored_as_validation_chose(bases: Bases, tmp_path: Path) -> None:
    parts: Parts = replace(job_of(bases("bert"), tmp_path).parts)
    blinded, test = replace(parts, test=None), parts.test
    assert test is not None
    for name in ("majority", "tfidf"):
        outcome = train_baseline(name, blinded, "f1_macro", DecisionConfig())
        score = score_baseline(name, blinded, test, outcome)
        assert score.logits.shape == (len(test), 3)
        validation = parts.validation
        assert validation is not None
        again = score_baseline(name, blinded, validation, outcome)
        np.testing.assert_allclose(again.logits, outcome.logits, rtol=1e-5, atol=1e-6)
    assert train_baseline("majority", blinded, "f1_macro", DecisionConfig()).value == pytest.approx(1 / 6, abs=0.02)
