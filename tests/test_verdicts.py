"""Who won, whether it is real, and what to take: on recipes whose accuracy is set."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.comparison.verdict import Contestant, judge
from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.significance import LEVEL, holm

ROWS = 400
LABELS = np.arange(ROWS) % 2


def contestant(name: str, wrong: float, seconds: float = 1.0, *, seeds: int = 3, baseline: bool = False) -> Contestant:
    """A recipe that is wrong on that share of rows, on the first ones, and each seed on two rows of its own."""
    predictions = np.stack([LABELS] * seeds)
    predictions[:, : round(wrong * ROWS)] ^= 1
    for seed, own in enumerate(predictions):
        own[-2 * seed - 2 : ROWS - 2 * seed] ^= 1
    scores = resample(predictions, LABELS, "accuracy", draws=300)
    return Contestant(name, name.title(), scores, predictions[0] == LABELS, seconds, baseline)


def test_a_winner_that_is_real() -> None:
    verdict = judge([contestant("slow", 0.05, 100), contestant("quick", 0.3, 1)], "accuracy")
    (pair,) = verdict.pairs
    assert pair.detectable
    assert pair.seen.difference == pytest.approx(0.25)
    assert pair.rows_needed is None
    assert pair.reason is None
    assert "Slow is better than Quick: accuracy 0.945 against 0.695" in pair.words
    assert "p < 0.001" in pair.words
    assert (verdict.best, verdict.recommended) == ("slow", "slow")
    assert verdict.words[0] == "Slow scored highest: accuracy 0.945, detectably better than the other."
    assert verdict.words[1] == "Recommended: Slow (1 min 40 s of training)."


def test_the_cheapest_of_those_that_are_not_detectably_worse_is_recommended() -> None:
    field = [contestant("slow", 0.1, 100), contestant("quick", 0.105, 1), contestant("bad", 0.4, 0.1)]
    verdict = judge(field, "accuracy")
    assert (verdict.best, verdict.recommended) == ("slow", "quick")
    pair = verdict.pairs[0]
    assert not pair.detectable
    assert pair.rows_needed is not None
    assert pair.rows_needed > ROWS
    assert pair.words.startswith("No detectable difference between Slow and Quick: +0.005 in accuracy")
    assert "test rows would show a difference of this size 4 times in 5; here are 400." in pair.words
    assert verdict.words[0].endswith("with no detectable difference from Quick. 1 is detectably worse.")
    assert (
        "the cheapest of 2 not detectably worse than the best (1.0 s of training; Slow took 1 min 40 s)"
        in verdict.words[1]
    )
    assert verdict.words[2].startswith(
        "Not detectable is not equal: within the 95% intervals Quick may be worse by up to"
    )


def test_a_baseline_is_not_recommended_but_named() -> None:
    verdict = judge([contestant("model", 0.1, 100), contestant("words", 0.1, 1, baseline=True)], "accuracy")
    assert verdict.recommended == "model"
    assert "Words is not detectably worse than the best: these rows do not show that an encoder helps." in verdict.words


def test_nothing_is_recommended_where_a_baseline_beats_all() -> None:
    verdict = judge([contestant("model", 0.4), contestant("words", 0.1, baseline=True)], "accuracy")
    assert (verdict.best, verdict.recommended) == ("words", None)
    assert "No classifier is recommended: all are detectably worse than Words, a baseline." in verdict.words
    assert "these data may not need an encoder" in " ".join(verdict.words)


def test_equal_scores_need_no_rows() -> None:
    (pair,) = judge([contestant("a", 0.1), contestant("b", 0.1)], "accuracy").pairs
    assert (pair.rows_needed, pair.reason, pair.mcnemar_p) == (None, "they scored the same", 1)


def test_one_seed_is_said_to_be_one() -> None:
    verdict = judge([contestant("a", 0.1, seeds=1), contestant("b", 0.3, seeds=1)], "accuracy")
    assert verdict.words[-1] == "One seed was trained: what another would change is not in the intervals."


def test_one_and_none_have_nobody_to_beat() -> None:
    alone = judge([contestant("a", 0.1)], "accuracy")
    assert (alone.best, alone.recommended, alone.pairs) == ("a", "a", [])
    assert "Nothing else finished" in alone.words[0]
    nobody = judge([], "accuracy")
    assert (nobody.best, nobody.recommended, len(nobody.words)) == (None, None, 1)


def test_json_has_every_field_of_the_leaderboard() -> None:
    verdict = judge([contestant("a", 0.1), contestant("b", 0.11), contestant("c", 0.3)], "accuracy")
    rows = [pair.to_json() for pair in verdict.pairs]
    keys = "a b difference low high p p_holm mcnemar_p detectable rows_needed reason words"
    assert [row.keys() for row in rows] == [dict.fromkeys(keys.split()).keys()] * 3
    assert json.loads(json.dumps([*rows, verdict.to_json()], allow_nan=False))[-1]["best"] == "a"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.02, 0.5), st.floats(0.1, 1e4), st.booleans()), min_size=1, max_size=5))
def test_the_verdict_follows_from_the_pairs(field: list[tuple[float, float, bool]]) -> None:
    entered = [contestant(str(n), wrong, cost, baseline=base) for n, (wrong, cost, base) in enumerate(field)]
    verdict = judge(entered, "accuracy")
    assert len(verdict.pairs) == len(entered) * (len(entered) - 1) // 2
    assert [pair.p_holm for pair in verdict.pairs] == holm([pair.seen.p for pair in verdict.pairs])
    assert verdict.best == max(entered, key=lambda one: one.scores.mean).name
    worse = {
        pair.b.name if pair.a.name == verdict.best else pair.a.name
        for pair in verdict.pairs
        if verdict.best in (pair.a.name, pair.b.name) and pair.p_holm < LEVEL
    }
    left = [one for one in entered if one.name not in worse and not one.baseline]
    assert verdict.recommended == (min(left, key=lambda one: one.seconds).name if left else None)
    assert all(words.endswith(".") for words in [*verdict.words, *(pair.words for pair in verdict.pairs)])
