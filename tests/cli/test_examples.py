"""Every command has an example, and cyclopts understands each as it stands."""

import shlex

import pytest

from fullbake.cli.examples import EXAMPLES
from fullbake.cli.main import app
from fullbake.cli.mistakes import commands_of


def test_every_command_has_an_example() -> None:
    assert set(commands_of(app)) - set(EXAMPLES) == set()


@pytest.mark.parametrize("line", [line for name in commands_of(app) for line in EXAMPLES[name]])
def test_an_example_is_understood_and_fits_on_a_narrow_terminal(line: str) -> None:
    words = shlex.split(line.replace("\\\n", ""))
    assert words[0] == "fullbake"
    app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert all(len(part) <= 78 for part in line.split("\n"))
