"""Collapsed trainings are detected; trials give what `adapt` gives and never see test rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import dataset, recipe

from fullbake.classifier import adapt
from fullbake.comparison.artifacts import Artifact, ArtifactStore
from fullbake.comparison.trial import (
    RESTART_SEED_OFFSET,
    TrialResult,
    find_collapse,
    restore_network,
    score_baseline,
    score_trial,
    train_baseline,
    train_trial,
)
from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.errors import DeadlinePassed, DivergenceFault, SpaceFault
from fullbake.data.splits import Parts, divide
from fullbake.evaluation.decisions import Decision
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, recipe_tokenizer, resolve_recipe
from fullbake.training.selection import SelectedRun, Strategy, train_best

LABELS = np.arange(40) % 4
GOOD = np.where(np.arange(40) % 5 == 0, 0, LABELS)


def epochs(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": n, "train_loss": loss, "validation_loss": loss} for n, loss in enumerate(losses, 1)]


def test_training_that_learned_is_no_collapse() -> None:
    assert find_collapse(epochs(1.2, 0.6, 0.4), GOOD, LABELS, [1.0, 0.5, 0.3]) is None


def test_one_prediction_for_all_rows_is_a_collapse() -> None:
    found = find_collapse(epochs(1.3, 1.2), np.full(40, 2), LABELS)
    assert found is not None
    assert found.sign == "one_class"
    assert found.reason == "all 40 validation rows got the same answer, which is right for 25% of them"


def test_one_prediction_is_no_collapse_if_there_is_one_class() -> None:
    assert find_collapse([], np.zeros(9, dtype=int), np.zeros(9, dtype=int)) is None


def test_one_prediction_for_all_rows_is_a_collapse_with_many_labels() -> None:
    held = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])
    found = find_collapse(epochs(0.4), np.zeros((4, 2), dtype=int), held)
    assert found is not None
    assert (found.sign, "right for 50%" in found.reason) == ("one_class", True)
    assert find_collapse(epochs(0.4), held, held) is None


@pytest.mark.parametrize("losses", [[1.386, 1.39, 1.388], [1.45], [1.6, 1.5]])
def test_loss_that_stays_at_chance_is_a_collapse(losses: list[float]) -> None:
    found = find_collapse(epochs(*losses), GOOD, LABELS)
    assert found is not None
    assert found.sign == "stuck_loss"
    assert "the 4 classes' shares costs 1.386" in found.reason


@pytest.mark.parametrize("losses", [[1.386, 1.3], [4.0, 5.0]], ids=["below chance in the end", "another failure"])
def test_other_losses_are_no_collapse(losses: list[float]) -> None:
    assert find_collapse(epochs(*losses), GOOD, LABELS) is None


def test_chance_loss_of_uneven_classes_is_less_than_ln_k() -> None:
    uneven = np.array([0] * 36 + [1, 2, 3, 1])
    spread = np.where(np.arange(40) == 0, 1, uneven)
    expected = -(0.9 * np.log(0.9) + 0.05 * np.log(0.05) + 0.05 * np.log(0.025))
    assert problem_of(uneven).chance_loss(uneven) == pytest.approx(expected)
    assert find_collapse(epochs(0.4), spread, uneven) is None
    found = find_collapse(epochs(0.45), spread, uneven)
    assert found is not None
    assert found.sign == "stuck_loss"


def test_vanished_gradients_are_reported_before_their_effects() -> None:
    found = find_collapse(epochs(1.386, 1.386), np.zeros(40, dtype=int), LABELS, [1.0, 1e-9, 1e-9, 1e-9])
    assert found is not None
    assert found.sign == "vanished_gradients"
    assert "1.0e-09 long in the last epoch, at a training loss of 1.386" in found.reason


def test_small_gradients_are_no_collapse_once_the_rows_are_learned() -> None:
    assert find_collapse(epochs(0.5, 0.001), GOOD, LABELS, [1.0, 1e-9]) is None


Bases = Callable[..., Path]


def job_of(base: Path, folder: Path, name: str = "frozen-linear", **fields: Any) -> Job:
    """A job with all three parts."""
    chosen = resolve_recipe(recipe(base, name, test=0.25, folds=0, **fields))
    parts = divide(dataset(folder), chosen.data)
    key = network.encoder_fingerprint(load_encoder(chosen.base))
    return Job(chosen, parts, recipe_tokenizer(chosen), key, feature_cache(folder / "cache"))


def without_test(job: Job) -> Job:
    return replace(job, parts=replace(job.parts, test=None))


@pytest.mark.parametrize("name", ["frozen-linear", "frozen-mlp", "finetune"])
def test_trial_gives_the_same_scores_as_adapt(bases: Bases, tmp_path: Path, name: str) -> None:
    """Validation score, test score and decision."""
    job = job_of(bases("bert"), tmp_path, name)
    rate = None if name == "frozen-linear" else job.recipe.training.learning_rate[0]
    result, weights = train_trial(without_test(job), rate)
    result = replace(result, seed=job.recipe.training.seed) if not result.restarts else result
    seeded = replace(job, recipe=job.recipe.with_fields(seed=result.seed))
    made = adapt.adapt(seeded.recipe, dataset(tmp_path), cache_dir=tmp_path / "cache")
    facts = made.record.facts["metrics"]
    assert result.value == pytest.approx(facts["validation"]["overall"]["f1_macro"]["value"])
    test = job.parts.test
    assert test is not None
    found = score_trial(seeded, test, weights)
    decision = Decision.from_json(result.decision, made.problem, made.label_names)
    decided = decision.decide(made.problem.probabilities(found.logits))
    right = float((decided == test.labels).mean())
    assert right == pytest.approx(facts["test"]["overall"]["accuracy"]["value"])
    assert found.rows_per_second > 0
    assert result.parameters > 0
    assert result.size > result.parameters
    assert result.memory is None or result.memory > 1_000_000


def test_training_refuses_a_test_part(bases: Bases, tmp_path: Path) -> None:
    job = job_of(bases("bert"), tmp_path)
    with pytest.raises(ValueError, match="no test part"):
        train_trial(job, None)
    with pytest.raises(ValueError, match="no test part"):
        train_baseline("tfidf", job.parts, "f1_macro", DecisionConfig())


def test_test_rows_do_not_change_a_trial(bases: Bases, tmp_path: Path) -> None:
    """With other test rows, the validation logits are the same bits."""
    job = job_of(bases("bert"), tmp_path)
    other = replace(job, parts=replace(job.parts, test=job.parts.validation))
    first, second = (train_trial(without_test(one), None)[0] for one in (job, other))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_stored_result_is_read_unchanged(bases: Bases, tmp_path: Path) -> None:
    result, weights = train_trial(without_test(job_of(bases("bert"), tmp_path, "frozen-mlp")), 1e-2)
    store = ArtifactStore(tmp_path / "cells")
    store.write("a/0.01/0", "trained", "x", Artifact(result.facts(), {"logits": result.logits}))
    found = store.read("a/0.01/0", "trained", "x")
    assert found is not None
    again = TrialResult(logits=found.arrays["logits"], **found.facts)
    assert again.facts() == result.facts()
    assert weights


def test_divergence_is_a_result_after_one_more_try(bases: Bases, tmp_path: Path) -> None:
    tried = []

    def diverge(_: Strategy, rates: Sequence[float], __: str) -> SelectedRun:
        tried.append(rates)
        raise DivergenceFault("the training loss is no longer a finite number", where="epoch 1, step 2")

    job = without_test(job_of(bases("bert"), tmp_path, "frozen-mlp"))
    result, weights = train_trial(job, 1e-2, train_best=diverge)
    assert result.value is None
    assert result.reason == "the training loss is no longer a finite number (epoch 1, step 2)"
    assert len(tried) == 2
    assert result.seed == RESTART_SEED_OFFSET
    assert len(result.restarts) == 1
    assert weights == {}


def test_a_head_that_was_validated_is_kept_at_the_deadline(bases: Bases, tmp_path: Path) -> None:
    heads = []

    def train_until_late(strategy: Strategy, rates: Any, metrics: Any) -> SelectedRun:
        heads.append(rates)
        if len(heads) > 1:
            raise DeadlinePassed("the time was up at step 3 of 9, before the first validation")
        return train_best(strategy, rates, metrics)

    job = without_test(job_of(bases("bert"), tmp_path, "frozen"))
    result, weights = train_trial(job, None, train_best=train_until_late)
    assert result.value is not None
    assert weights
    assert (result.head, result.share) == ("linear", 0.5)
    assert result.stopped == "the time was up before the head mlp was validated"

    def always_late(*_: Any) -> SelectedRun:
        raise DeadlinePassed("the time was up")

    with pytest.raises(DeadlinePassed):
        train_trial(job, None, train_best=always_late)


def test_full_disk_stops_the_comparison(bases: Bases, tmp_path: Path) -> None:
    def fail(_: Strategy, __: Sequence[float], ___: str) -> SelectedRun:
        raise SpaceFault("the disk is full")

    with pytest.raises(SpaceFault):
        train_trial(without_test(job_of(bases("bert"), tmp_path, "frozen-mlp")), 1e-2, train_best=fail)


def test_collapsed_trial_is_started_again_with_another_seed(bases: Bases, tmp_path: Path) -> None:
    """At a learning rate of 1e-9 the loss stays at chance with any seed."""
    result, _ = train_trial(without_test(job_of(bases("bert"), tmp_path, "finetune")), 1e-9)
    assert result.seed == RESTART_SEED_OFFSET
    (restart,) = result.restarts
    assert "collapsed" in restart
    assert f"seed {RESTART_SEED_OFFSET}" in restart
    assert result.reason is not None
    assert result.reason.startswith("collapsed")
    assert result.value is not None


def test_restored_weights_give_the_same_validation_logits(bases: Bases, tmp_path: Path) -> None:
    job = job_of(bases("bert"), tmp_path, "finetune")
    result, weights = train_trial(without_test(job), 5e-3)
    model = restore_network(job, weights)
    assert not model.training
    validation = job.parts.validation
    assert validation is not None
    again = score_trial(job, validation, weights)
    np.testing.assert_allclose(again.logits, result.logits, atol=1e-5)


def test_baselines_are_scored_with_the_strength_that_validation_chose(bases: Bases, tmp_path: Path) -> None:
    parts: Parts = replace(job_of(bases("bert"), tmp_path).parts)
    selection_parts, test = replace(parts, test=None), parts.test
    assert test is not None
    for name in ("majority", "tfidf"):
        result = train_baseline(name, selection_parts, "f1_macro", DecisionConfig())
        found = score_baseline(name, selection_parts, test, result)
        assert found.logits.shape == (len(test), 3)
        validation = parts.validation
        assert validation is not None
        again = score_baseline(name, selection_parts, validation, result)
        np.testing.assert_allclose(again.logits, result.logits, rtol=1e-5, atol=1e-6)
    assert train_baseline("majority", selection_parts, "f1_macro", DecisionConfig()).value == pytest.approx(
        1 / 6, abs=0.02
    )
