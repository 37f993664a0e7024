"""Messages of errors, their exit codes, and suggestions for misspelled names."""

from fullbake.core import errors
from fullbake.core.errors import DataError, Error, Fault, did_you_mean


def test_message_says_where_expected_got_and_remedy() -> None:
    error = DataError(
        "column 'y' is empty", where="a.csv, line 3", expected="a label", got="nothing", remedy="Fill it in."
    )
    assert str(error) == "a.csv, line 3: column 'y' is empty.\nExpected a label; got nothing. Fill it in."


def test_parts_may_be_left_out() -> None:
    assert str(Error("it failed")) == "it failed."
    assert str(Error("it failed", remedy="Try again.")) == "it failed.\nTry again."
    assert str(Error("it failed", got="3")) == "it failed.\nGot 3."


def test_exit_codes_distinguish_mistakes_from_faults() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Error)]
    assert {kind.__name__ for kind in classes if kind.exit_code == 1} == {"Fault", "SpaceFault", "DivergenceFault"}
    assert all(issubclass(kind, Fault) == (kind.exit_code == 1) for kind in classes)


def test_tree_in_the_docstring_is_the_tree() -> None:
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Error)}
    assert names == {word for word in (errors.__doc__ or "").split() if word in names}


def test_did_you_mean_names_the_most_similar_and_all() -> None:
    assert did_you_mean("txet", ["text", "label"]) == "Did you mean 'text'? There is: 'text', 'label'."
    assert did_you_mean("zzz", ["text"]) == "There is: 'text'."


def test_of_many_choices_only_similar_ones_are_named() -> None:
    fields = [f"field_{number}" for number in range(30)]
    assert did_you_mean("lerning_rate", [*fields, "learning_rate"]) == "Did you mean 'learning_rate'?"
    assert "Also similar" in did_you_mean("field_3x", fields)
    assert did_you_mean("zzz", fields) == "There are 30 choices, and none is similar."


def test_other_capitals_are_the_first_guess() -> None:
    assert did_you_mean("FOOD ", ["game", "food", "good"]).startswith("Did you mean 'food'?")
