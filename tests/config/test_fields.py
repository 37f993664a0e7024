"""Field types accept the text of a flag as well as the Python value."""

import pytest

from fullbake.config import fields


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


@pytest.mark.parametrize(("value", "parsed"), [("0.2", 0.2), ("rows.csv", "rows.csv"), (0.3, 0.3), (None, None)])
def test_number_is_a_share_and_other_text_a_file(value: object, parsed: object) -> None:
    assert fields.parse_share_or_source(value) == parsed
