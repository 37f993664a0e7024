"""Findings: one for each kind of thing, the commonest first."""

from fullbake.data.findings import (
    Finding,
    describe_finding,
    gather_alike_labels,
    gather_leaks,
    gather_named_labels,
    gather_revealing_words,
    list_names,
    order_findings,
)
from fullbake.data.leak_probes import INVISIBLE, POSITION, Leak
from fullbake.data.predictive_codes import Prediction, Sign
from fullbake.data.text_checks import LabelClue


def make_clues(count: int) -> list[LabelClue]:
    return [LabelClue(f"w{n}", f"label {n}", 20 + n, 20 + n, 0.4, (n, n + 1)) for n in range(count)]


def test_warnings_come_first_then_the_commonest() -> None:
    findings = [Finding("a", "note", "", 50), Finding("b", "warning", "", 1), Finding("c", "warning", "", 9)]
    assert [one.kind for one in order_findings(findings)] == ["c", "b", "a"]


def test_words_of_150_labels_are_one_finding() -> None:
    rows = list(range(100, 400))
    (found,) = gather_revealing_words(make_clues(150), rows, " among 300 sampled rows")
    assert found.severity == "note"
    assert found.message.startswith("words give away 150 labels among 300 sampled rows: 'w149' gives away")
    assert "and 147 more" in found.message
    assert len(found.items) == 150
    assert found.rows == (249, 248, 247, 246, 245)
    (alone,) = gather_revealing_words(make_clues(1), rows, "")
    assert "the word 'w0' gives away the label 'label 0': 20 of the 20 rows" in alone.message
    assert (alone.items, alone.rows) == ((), (100, 101))
    assert list(gather_revealing_words([], rows, "")) == []


def test_names_of_many_labels_are_one_finding() -> None:
    (found,) = gather_named_labels(make_clues(9), list(range(50)), "")
    assert "the names of 9 labels are in many of their texts: 'label 8' (in 40%)" in found.message
    (alone,) = gather_named_labels(make_clues(1), list(range(50)), "")
    assert alone.message.startswith("the name of the label 'label 0' is in 40% of its texts, but in few others")


def test_labels_that_look_alike_are_one_finding() -> None:
    (found,) = gather_alike_labels([["a", "A"], ["b", "B", " b"]])
    assert found.count == 5
    assert "'b', 'B', ' b'; 'a', 'A'; they are treated as different labels" in found.message
    assert list(gather_alike_labels([])) == []


def test_leaks_are_one_finding_a_kind_with_the_result_the_baseline_and_rows() -> None:
    sure = Prediction(None, 0.99, 0.52, (0, 2))
    of_one = Prediction(1, 0.999, 0.97, (1,))
    leaks = [
        Leak(INVISIBLE, "zero-width characters", "in 9 texts", sure, 9),
        Leak(INVISIBLE, "soft hyphens", "in 3 texts", of_one, 3),
        Leak(POSITION, "the position in the file", "", sure, 50),
    ]
    invisible, position = gather_leaks(leaks, [11, 12, 13], ["a", "b"], "")
    assert (invisible.severity, invisible.count, invisible.rows, len(invisible.items)) == ("warning", 9, (11, 13), 2)
    assert "zero-width characters (in 9 texts) predicts the label of 99% of the held-out rows" in invisible.message
    assert "(the most frequent label alone: 52%)" in invisible.message
    assert "for 99.9% of the held-out rows whether they have 'b' (one answer for all rows: 97.0%)" in invisible.message
    assert position.severity == "note"
    assert "harmless where rows are split at random" in position.message
    assert describe_finding(position).endswith("(row 11, 13, ...)")


def test_sign_of_a_label_says_how_many_of_its_rows_it_recognizes() -> None:
    sign = Sign(1, 0.99, 0.87, 0.5, (0, 2))
    (found,) = gather_leaks(
        [Leak(INVISIBLE, "variation selectors", "in 9 texts", sign, 9)], [11, 12, 13], ["a", "b"], ""
    )
    assert "variation selectors (in 9 texts) recognizes 50% of the held-out rows with the label 'b'" in found.message
    assert "99% of the rows so recognized have it (87% of all rows do)" in found.message
    assert found.rows == (11, 13)


def test_long_lists_of_names_are_cut() -> None:
    assert list_names(["a", "b"]) == "'a', 'b'"
    assert list_names(list("abcdefg")).endswith("'e', ...")
