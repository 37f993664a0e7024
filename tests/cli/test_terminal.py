"""Commands exit with the right code, print one paragraph for an error, and never wrap lines."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from cyclopts import App
from rich.table import Table

from fullbake.cli import terminal
from fullbake.core.errors import DataError, Fault, Interrupted, OutputError

Run = Callable[..., tuple[int, str, str]]
LONG = "words " * 100


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


def test_first_process_of_a_machine_prints_what_stopped_all(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_command(failing(Interrupted(15, 7, "out"))) == (143, "", "")
    assert "the disk is full" in run_command(failing(Fault("the disk is full")))[2], "the others may not know it"


def test_debug_prints_the_traceback(run_command: Run) -> None:
    code, _, err = run_command(failing(DataError("a row is empty")), "--debug")
    assert code == 2
    assert err.index("Traceback") < err.index("error: a row is empty")


def test_unknown_flag_is_a_mistake_of_the_user(run_command: Run) -> None:
    code, _, err = run_command(lambda: None, "--nonsense")
    assert code == 2
    assert "--nonsense" in err
    assert "`fullbake work --help` lists what it takes." in err


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


@pytest.fixture
def shell() -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Run `fullbake WORDS` with what follows in the shell; its exit code is that of fullbake."""

    def call(words: str, rest: str) -> subprocess.CompletedProcess[str]:
        code = f"from fullbake.cli.main import main; main({words.split()!r})"
        line = f'{sys.executable} -c "{code}" {rest}; exit ${{PIPESTATUS[0]}}'
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)

    return call


@pytest.mark.parametrize("words", ["recipes finetune", "train --help", "--version"])
def test_reader_that_closes_the_pipe_ends_the_command_quietly(shell: Any, words: str) -> None:
    done = shell(words, "| true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("where", "reason"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")])
def test_what_cannot_be_printed_is_a_fault_in_one_paragraph(shell: Any, where: str, reason: str) -> None:
    for words in ("recipes finetune", "train --help"):
        done = shell(words, where)
        assert done.returncode == 1
        assert done.stderr.startswith("error: stdout: what was printed is lost")
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_mistake_keeps_its_code_where_nothing_can_be_printed(shell: Any) -> None:
    assert shell("recipes nonsense", ">&- 2>&-").returncode == 2
    assert shell("recipes nonsense", "> /dev/full 2> /dev/full").returncode == 2
    assert shell("recipes finetune", "2> /dev/full").returncode == 0


def test_a_closed_stdout_is_no_file_that_the_work_opens(tmp_path: Path) -> None:
    """The system gives the lowest free number to a file: what a library prints would be in that file."""
    code = "import os; from fullbake.cli import terminal; terminal._occupy_closed_descriptors(); "
    code += f"file = open({str(tmp_path / 'model')!r}, 'w'); os._exit(0 if file.fileno() > 2 else 1)"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" >&- 2>&-'], check=False)
    assert done.returncode == 0


def printing(*streams: io.TextIOBase) -> Callable[[], None]:
    """A command that prints on one stdout after another."""

    def command() -> None:
        for stream in streams:
            sys.stdout = cast("TextIO", stream)
            terminal.print_line("a result")
        sys.stdout = sys.__stdout__

    return command


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_work_goes_to_its_end_when_the_reader_is_gone(run_command: Run) -> None:
    done: list[str] = []

    def command() -> None:
        printing(Closed())()
        done.append("saved")

    assert run_command(command)[0] == 0
    assert done == ["saved"]


EVIL = "\x1b]0;title\rgood\nerror: \u202egnp\u200b"
SHOWN = r"\x1b]0;title\rgood\nerror: \u202egnp\u200b"


@pytest.mark.parametrize(
    "command",
    [
        lambda: terminal.print_line("label ", (EVIL, "bold")),
        lambda: logging.getLogger("fullbake").warning("labels: %s", EVIL),
        lambda: warnings.warn(f"folder {EVIL}".replace("\n", "\\n"), stacklevel=1),
        failing(DataError("a row is empty", where=EVIL, got=EVIL)),
        failing(ValueError(EVIL.replace("\n", "\\n"))),
    ],
    ids=["line", "log", "warning", "error", "fault"],
)
def test_no_text_from_outside_acts_on_the_terminal(run_command: Run, command: Callable[[], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, out, err = run_command(command, "--debug")
    assert SHOWN in out + err
    assert not set("\x1b\r\u202e\u200b") & set(out + err)


def test_json_keeps_what_the_terminal_must_not_see(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"label": EVIL, "emoji": "\U0001f600"}
    _, out, _ = run_command(lambda: terminal.print_json(value))
    assert json.loads(out) == value
    assert "\U0001f600" in out
    assert not set("\x1b\r\u202e\u200b") & set(out)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    terminal.print_json(value)
    assert json.loads(raw.getvalue()) == value


class Screen(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_rows_on_a_terminal_are_escaped_and_in_a_pipe_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    row = f"{EVIL},yes\n".encode()
    for kind, expected in ((Screen, SHOWN.replace(r"\n", "\n") + ",yes\n"), (io.TextIOWrapper, row.decode())):
        raw = io.BytesIO()
        stream = kind(raw, "utf-8", newline="")
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.stdout_bytes(binary=False).write(row)
        stream.flush()
        assert raw.getvalue().decode() == expected


def test_rows_need_a_stdout_that_can_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Screen(io.BytesIO(), "utf-8"))
    with pytest.raises(OutputError, match="--out"):
        terminal.stdout_bytes(binary=True)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="it is closed"):
        terminal.stdout_bytes(binary=False)
