"""Field types accept the text of a flag as well as the Python value."""

import pytest

from fullbake.config import fields
from fullbake.config.recipe import Recipe
from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.core.errors import RecipeError


@pytest.mark.parametrize(
    ("value", "parsed"), [("5e-5, 4e-5", ["5e-5", "4e-5"]), (5e-5, [5e-5]), ([1, 2], [1, 2]), ((1, 2), (1, 2))]
)
def test_numbers_are_a_list(value: object, parsed: object) -> None:
    assert fields.parse_numbers(value) == parsed


@pytest.mark.parametrize(("value", "parsed"), [("a, b", ["a", "b"]), (["one, with a comma"], ["one, with a comma"])])
def test_names_of_a_flag_end_at_commas_and_names_in_a_list_do_not(value: object, parsed: object) -> None:
    assert fields.parse_names(value) == parsed


def test_lengths_have_shares() -> None:
    assert fields.parse_lengths("128:0.9, 512:0.1") == {"128": "0.9", "512": "0.1"}
    assert fields.parse_lengths({128: 1.0}) == {128: 1.0}


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("toxic=5,insult=2", {"toxic": "5", "insult": "2"}),
        ("a>b=2", {"a>b": "2"}),
        ("x=y=3", {"x=y": "3"}),
        ("balanced", "balanced"),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_amount_follows_the_last_equals_sign(value: object, parsed: object) -> None:
    assert fields.parse_amounts(value) == parsed


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("0.2", 0.2),
        ("20%", 0.2),
        (" 12.5 % ", 0.125),
        ("rows.csv", "rows.csv"),
        ("100%.csv", "100%.csv"),
        (0.3, 0.3),
        (None, None),
    ],
)
def test_number_is_a_share_and_other_text_a_file(value: object, parsed: object) -> None:
    assert fields.parse_share_or_source(value) == parsed


@pytest.mark.parametrize("value", ["20", 20, "1.5"])
def test_for_a_number_of_1_or_more_the_share_that_may_be_meant_is_named(value: object) -> None:
    number = float(str(value))
    with pytest.raises(ValueError, match=rf"write {number / 100:g} or {number:g}%.*A number of rows cannot"):
        fields.parse_share_or_source(value)


@pytest.mark.parametrize("value", ["0", "1", "100%", "0%", "-3", "1000", 5000, "nan", "inf"])
def test_shares_that_leave_nothing_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        fields.parse_share_or_source(value)


@pytest.mark.parametrize("flag", ["validation", "test"])
def test_a_wrong_share_names_its_field(flag: str) -> None:
    with pytest.raises(RecipeError, match=rf"data.{flag}: expected a share.*write 0.2 or 20%"):
        Recipe.load(base="demo", **{flag: "20"})
    loaded = Recipe.load(base="demo", **{flag: "25%", "at_recall": "90%", "positive": "x"})
    assert getattr(loaded.data, flag) == 0.25
    assert loaded.decision.at_recall == 0.9


def test_string_under_a_field_is_its_help() -> None:
    described = [field.description for section in (TokensConfig, HeadConfig) for field in section.model_fields.values()]
    assert all(described)
    assert TokensConfig.model_fields["max_length"].description.startswith("Longest")  # type: ignore[union-attr]
