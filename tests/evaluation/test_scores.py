import pytest
from scipy.stats import norm

from fullbake.config.problems import MULTI_LABEL_SELECTION, SELECTION, TITLES, metric_phrase
from fullbake.evaluation.scores import UndefinedScoreError, compute_score, proportion_score


def test_every_name_that_may_choose_has_a_title() -> None:
    assert set(SELECTION) | set(MULTI_LABEL_SELECTION) <= set(TITLES)


@pytest.mark.parametrize(
    ("name", "words"),
    [("f1_macro", "macro F1"), ("accuracy", "accuracy"), ("neg_log_loss", "minus log loss"), ("own", "own")],
)
def test_a_title_within_a_sentence(name: str, words: str) -> None:
    assert metric_phrase(name) == words


def test_an_undefined_figure_is_null_with_its_reason() -> None:
    def undefined(_: int) -> float:
        raise UndefinedScoreError("one class only")

    assert compute_score(undefined, 0) == {"value": None, "low": None, "high": None, "reason": "one class only"}
    assert compute_score(float, 3) == {"value": 3.0, "low": None, "high": None, "reason": None}


@pytest.mark.parametrize(("hits", "of"), [(0, 7), (5, 7), (7, 7), (812, 1000)])
def test_a_share_has_wilsons_interval(hits: int, of: int) -> None:
    """Against the formula of Wilson 1927, written out."""
    found, z, rate = proportion_score(hits, of, "nothing"), norm.ppf(0.975), hits / of
    middle = (rate + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * (rate * (1 - rate) / of + z**2 / (4 * of**2)) ** 0.5
    assert found["value"] == pytest.approx(rate)
    assert found["low"] == pytest.approx(middle - half, abs=1e-12)
    assert found["high"] == pytest.approx(middle + half, abs=1e-12)
