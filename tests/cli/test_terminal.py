"""Commands exit with the right code, print one paragraph for an error, and never wrap lines."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from cyclopts import App
from rich.table import Table

from fullbake.cli import terminal
from fullbake.core.errors import DataError, Fault, Interrupted

Run = Callable[..., tuple[int, str, str]]
LONG = "words " * 100


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """`terminal.run` changes fullbake's logger; restore it for other tests of this process."""
    logger = logging.getLogger("fullbake")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a function as the command `work`; returns (exit code, stdout, stderr)."""

    def call(command: Callable[[], object], *flags: str) -> tuple[int, str, str]:
        app = App(name="program", result_action="return_value", suppress_keyboard_interrupt=False)
        app.command(command, name="work")
        with pytest.raises(SystemExit) as exit_:
            terminal.run(app, ["work", *flags])
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return call


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_command_that_is_done_exits_with_0(run_command: Run) -> None:
    assert run_command(lambda: terminal.print_line("done")) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("a row is empty", where="line 3"), 2, "error: line 3: a row is empty"),
        (Fault("the disk is full"), 1, "error: the disk is full"),
        (Interrupted(15, 7, "out"), 143, "A checkpoint is in out; the same command resumes from it."),
        (KeyboardInterrupt(), 130, "error: stopped by Ctrl-C."),
        (ZeroDivisionError("by zero"), 1, "error: ZeroDivisionError: by zero\n       This is a fault of fullbake's."),
    ],
)
def test_error_is_printed_and_sets_the_exit_code(
    run_command: Run, error: BaseException, code: int, message: str
) -> None:
    exit_code, out, err = run_command(failing(error))
    assert (exit_code, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_debug_prints_the_traceback(run_command: Run) -> None:
    code, _, err = run_command(failing(DataError("a row is empty")), "--debug")
    assert code == 2
    assert err.index("Traceback") < err.index("error: a row is empty")


def test_unknown_flag_is_a_mistake_of_the_user(run_command: Run) -> None:
    code, _, err = run_command(lambda: None, "--nonsense")
    assert code == 2
    assert "--nonsense" in err
    assert "fullbake COMMAND --help lists what a command takes." in err


def test_messages_go_to_stderr_and_quiet_leaves_only_warnings(run_command: Run) -> None:
    def command() -> None:
        logging.getLogger("fullbake").info(LONG)
        logging.getLogger("fullbake").warning("beware")

    assert run_command(command) == (0, "", f"{LONG}\nwarning: beware\n")
    assert run_command(command, "--quiet") == (0, "", "warning: beware\n")


def test_lines_are_plain_text_and_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_line(f"[bold]{LONG}")
    assert capsys.readouterr().out == f"[bold]{LONG}\n"


def test_table_in_a_pipe_has_a_fixed_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("text", expand=True)
    table.add_row("a")
    terminal.print_table(table)
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {terminal.PIPED_WIDTH}


def test_reader_that_closes_the_pipe_ends_the_command_quietly() -> None:
    code = "from fullbake.cli.main import main; main(['recipes', 'finetune'])"
    command = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
