"""A job fills in the recipe from its base and says what its weights depend on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.rows import make_job, recipe

from fullbake.core.errors import RecipeError
from fullbake.training.checkpoints import CheckpointInterval, UnfinishedRun
from fullbake.training.job import check_problem, feature_cache, part_features, resolve_recipe

Bases = Callable[..., Path]


def test_fields_that_depend_on_the_base_are_filled_in(bases: Bases) -> None:
    given = recipe(bases("bert", positions=64), "frozen-mlp", max_length=None, width=None, truncation="windows")
    resolved = resolve_recipe(given)
    assert (resolved.tokens.max_length, resolved.tokens.stride) == (64, 16)
    assert (resolved.head.pooling, resolved.head.width) == ("cls", 32)
    assert resolve_recipe(resolved) == resolved


def test_a_max_length_that_the_base_cannot_take_is_refused(bases: Bases) -> None:
    with pytest.raises(
        RecipeError, match=r"more than the base can take.\nExpected at most 64; got 65.*--max-length 64"
    ):
        resolve_recipe(recipe(bases("bert", positions=64), max_length=65))


def test_a_metric_that_does_not_fit_the_labels_is_refused(bases: Bases, tmp_path: Path) -> None:
    job = make_job(bases("bert"), tmp_path)
    check_problem(job.recipe, job.parts)
    with pytest.raises(RecipeError, match="hamming"):
        check_problem(job.recipe.with_fields(metric="hamming_loss"), job.parts)


def test_facts_differ_with_recipe_and_rows_only(bases: Bases, tmp_path: Path) -> None:
    job = make_job(bases("bert"), tmp_path)
    assert job.facts() == make_job(bases("bert"), tmp_path).facts()
    other = make_job(bases("bert"), tmp_path, epochs=3)
    assert {name for name, value in job.facts().items() if value != other.facts()[name]} == {"recipe"}
    other = make_job(bases("bert"), tmp_path, split_seed=7)
    assert {name for name, value in job.facts().items() if value != other.facts()[name]} == {"data", "recipe"}


def test_checkpoints_are_named_by_prefix_and_training(bases: Bases, tmp_path: Path) -> None:
    job = make_job(bases("bert"), tmp_path)
    assert job.checkpoints("rate-1") is None
    run = UnfinishedRun(tmp_path / "m.unfinished", "id", CheckpointInterval(steps=1), writes=True)
    checkpoints = replace(job, run=run, prefix="windows-").checkpoints("rate-1")
    assert checkpoints is not None
    assert checkpoints.folder == tmp_path / "m.unfinished" / "windows-rate-1"


def test_parts_of_one_source_share_their_features(bases: Bases, tmp_path: Path) -> None:
    job = make_job(bases("bert"), tmp_path)
    assert job.parts.validation is not None
    train, validation = part_features(job, [job.parts.train, job.parts.validation])
    assert train is validation
    assert len(job.cache.entries()) == 1


def test_the_feature_cache_is_a_folder_of_the_cache_folder(tmp_path: Path) -> None:
    assert feature_cache(tmp_path).root == tmp_path / "features"
