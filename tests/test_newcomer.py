"""What someone types who has read nothing: each answer is stored, and was read by a person."""

import difflib

import pytest
from helpers import newcomer


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """The lines with their answers, as they are now."""
    return newcomer.all_answers().split("\n\n")


def test_the_lines_are_many_and_different() -> None:
    lines = [*newcomer.SHELL, *newcomer.PYTHON]
    assert len(lines) >= 30
    assert len(set(lines)) == len(lines)


def test_every_answer_is_the_stored_one(answers: list[str]) -> None:
    stored = newcomer.ANSWERS.read_text("utf-8").split("\n\n")
    change = "\n".join(difflib.unified_diff("\n\n".join(stored).split("\n"), "\n\n".join(answers).split("\n"), n=1))
    assert answers == stored, f"read them, then run python tests/helpers/newcomer.py:\n{change}"


def test_no_answer_is_a_traceback_or_a_fault_of_ours(answers: list[str]) -> None:
    for answer in answers:
        assert "Traceback" not in answer
        assert "fault of fullbake" not in answer
        if answer.startswith("$") and "-V" not in answer:
            assert answer.rstrip().endswith("[exit code 2]"), answer


def test_a_command_line_that_is_offered_lacks_nothing(answers: list[str]) -> None:
    """Whoever copies it gets the work, or an error of the work, but no second list of what is missing."""
    offered = [line for answer in answers for line in answer.split("\n") if line.strip().startswith("Try: fullbake ")]
    assert len(offered) >= 5
    with newcomer.folder_of_newcomer():
        for line in offered:
            if "train " not in line:
                continue
            # A base that is not there stops each run before it trains.
            typed = line.split("Try: ")[1].replace("--base demo", "--base ./nowhere")
            answer = newcomer.answer_of_shell(typed.replace("--base bert-base-uncased", "--base ./nowhere"))
            assert "missing" not in answer, answer
            assert "no flag" not in answer, answer
            assert "there is no such base" in answer, answer
