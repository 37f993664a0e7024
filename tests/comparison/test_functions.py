"""The functions of a comparison are the real ones unless a test replaces them."""

from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.trial import score_trial, train_trial


def test_the_real_functions_are_the_default() -> None:
    functions = ComparisonFunctions()
    assert (functions.train, functions.score) == (train_trial, score_trial)
    assert functions.clock() <= functions.clock()
