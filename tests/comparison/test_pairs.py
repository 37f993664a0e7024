"""Pairs of recipes whose accuracy is set: what is corrected together, what is borrowed, and the words."""

from dataclasses import replace

import pytest
from helpers.scored_recipes import recipe

from fullbake.comparison.pairs import compare_pairs, describe_rows_needed, round_up
from fullbake.evaluation.significance import contrast, holm


def test_equal_scores_have_no_number_of_rows() -> None:
    (pair,) = compare_pairs([recipe("a", 0.1), recipe("b", 0.1)], "accuracy")
    assert (pair.rows_needed, pair.reason, pair.mcnemar_p) == (None, "they scored the same", 1)


def test_pairs_without_known_seeds_are_corrected_by_themselves() -> None:
    entered = [recipe("a", 0.1), recipe("b", 0.13), recipe("c", 0.3, seeds=1, kind="frozen")]
    pairs = compare_pairs(entered, "accuracy")
    alone = compare_pairs(entered[:2], "accuracy")
    assert pairs[0].p_corrected == alone[0].p_corrected
    assert [pair.seeds_known for pair in pairs] == [True, False, False]
    assert [pair.p_corrected for pair in pairs[1:]] == holm([pair.observed.p for pair in pairs[1:]])


def test_lenders_are_recipes_of_the_kind_with_several_seeds() -> None:
    one, three, head = recipe("one", 0.1, seeds=1), recipe("three", 0.2), recipe("head", 0.2, kind="frozen")
    steady = replace(three, name="steady", scores=replace(three.scores, depends_on_seed=False))
    entered = [one, recipe("other", 0.1, seeds=1), three, head, steady]
    assert [other.name for other in one.lenders(entered)] == ["three"]
    assert three.lenders(entered) == []
    assert steady.lenders(entered) == []


def test_pair_is_contrasted_with_what_it_borrows() -> None:
    one, other, lender = recipe("one", 0.1, seeds=1), recipe("other", 0.2, seeds=1), recipe("lender", 0.3)
    pairs = compare_pairs([one, other, lender], "accuracy")
    lent = [lender.scores]
    assert pairs[0].observed == contrast(one.scores, other.scores, a_lenders=lent, b_lenders=lent)
    assert all(pair.seeds_known for pair in pairs)


def test_interval_over_test_rows_alone_says_so() -> None:
    (pair,) = compare_pairs([recipe("a", 0.1, seeds=1), recipe("b", 0.105, seeds=1)], "accuracy")
    assert pair.words.startswith("No detectable difference between A and B: +0.005 in accuracy (95% interval over test")
    assert "one seed was trained, and nothing tells what another would change" in pair.words


def test_largest_deficit_is_seen_from_either_side() -> None:
    (pair,) = compare_pairs([recipe("a", 0.1), recipe("b", 0.12)], "accuracy")
    assert pair.largest_deficit(pair.a) == pair.observed.high
    assert pair.largest_deficit(pair.b) == -pair.observed.low  # type: ignore[operator]
    assert (pair.other(pair.a), pair.other(pair.b)) == (pair.b, pair.a)


@pytest.mark.parametrize(("rows", "rounded"), [(7, 7), (99, 99), (101, 110), (12_345, 13_000)])
def test_rows_are_rounded_up_to_two_digits(rows: int, rounded: int) -> None:
    assert round_up(rows) == rounded


def test_reason_takes_the_place_of_a_number_of_rows() -> None:
    (pair,) = compare_pairs([recipe("a", 0.1), recipe("b", 0.1)], "accuracy")
    assert describe_rows_needed(pair.observed, None, "they scored the same") == (
        "No number of test rows is given: they scored the same."
    )
    assert describe_rows_needed(pair.observed, 1234, None).startswith("About 1,300 test rows would show")
