"""Meanings go before spellings, and every meaning is a name that exists."""

import pytest

import fullbake
from fullbake.cli.main import app
from fullbake.cli.mistakes import commands_of, flags_of
from fullbake.config.recipe import FIELDS, recipe_names
from fullbake.core import synonyms
from fullbake.core.errors import did_you_mean

COMING = {"explain", "push", "track", "top_k", "max_rows", "embed", "score", "to_transformers"}
"""Names that other work on the same release brings."""


def test_every_meaning_of_a_setting_is_a_field_or_a_flag() -> None:
    flags = {flag.strip("-").replace("-", "_") for command in commands_of(app) for flag in flags_of(app, command)}
    assert set(synonyms.FIELD_SYNONYMS.values()) - flags - set(FIELDS) - {"data"} <= COMING


def test_every_meaning_of_a_command_recipe_function_and_method_exists() -> None:
    assert set(synonyms.COMMAND_SYNONYMS.values()) - set(commands_of(app)) <= COMING
    assert set(synonyms.RECIPE_SYNONYMS.values()) <= {*recipe_names(), "majority", "tfidf"}
    assert set(synonyms.FUNCTION_SYNONYMS.values()) <= set(fullbake.__all__)
    assert set(synonyms.METHOD_SYNONYMS.values()) - set(dir(fullbake.Classifier)) <= COMING


def test_no_field_is_a_word_for_another_one() -> None:
    """A recipe's own field never means something else."""
    assert not set(synonyms.FIELD_SYNONYMS) & set(FIELDS)
    assert not set(synonyms.COMMAND_SYNONYMS) & set(commands_of(app))
    assert not set(synonyms.RECIPE_SYNONYMS) & set(recipe_names())


@pytest.mark.parametrize("word", ["lr", "LR", "--lr", "peak-lr"])
def test_case_dashes_and_underscores_make_no_difference(word: str) -> None:
    assert synonyms.right_name(word, FIELDS, synonyms.FIELD_SYNONYMS) == "learning_rate"


def test_a_meaning_that_is_not_among_the_choices_does_not_count() -> None:
    assert synonyms.right_name("lr", ["epochs"], synonyms.FIELD_SYNONYMS) is None
    assert did_you_mean("epoch", ["epochs"], synonyms.FIELD_SYNONYMS) == "Did you mean 'epochs'? There is: 'epochs'."


def test_meaning_goes_before_spelling() -> None:
    assert "'label'" in did_you_mean("target", ["label", "targets"], synonyms.FIELD_SYNONYMS)
    assert did_you_mean("target", ["label", "targets"]).startswith("Did you mean 'targets'?")


def test_a_word_without_a_setting_gets_a_sentence() -> None:
    assert "Leave it out" in (synonyms.no_setting("--do-train") or "")
    assert synonyms.no_setting("lr") is None
