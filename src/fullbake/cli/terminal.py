"""Write to the terminal: results to stdout, messages and errors to stderr, and the exit code.

Exit codes: 0 done, 1 a fault, 2 a mistake that the user can mend, 128 plus the signal's number after a signal (130
after Ctrl-C). A reader of stdout that closes it, such as `head`, has what it wanted: the work is done to its end, and
the code is that of the work. A stdout that is full loses what was printed, which is a fault.
"""

import io
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from cyclopts import App, CycloptsError
from rich.console import RenderableType
from rich.highlighter import JSONHighlighter

from fullbake.core import launcher, runtime
from fullbake.core.console import activity
from fullbake.core.console import console as err
from fullbake.core.errors import Error, Fault, Interrupted, OutputError
from fullbake.core.escaping import escape_hidden, escape_json, escape_unencodable
from fullbake.core.extras import explain_missing
from fullbake.core.screen import Line, PlainConsole, StandardStream, Words
from fullbake.core.storage import explain_os_error

_stdout = StandardStream("stdout")
out = PlainConsole(file=cast("io.TextIOWrapper", _stdout))
help_console = PlainConsole(file=cast("io.TextIOWrapper", _stdout))
"""Where cyclopts prints help and versions."""

PIPED_WIDTH = 160
"""Width in characters of a table that goes to a file or a pipe."""


def print_table(result: RenderableType) -> None:
    """Print a table on stdout, as wide as the screen (PIPED_WIDTH characters where stdout is no terminal)."""
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(result)


def print_line(*parts: Words) -> None:
    """Print one line on stdout as plain text, never wrapped. parts: texts, each alone or with a style."""
    out.print(Line(*parts), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout. What the terminal must not act on, or cannot show, is escaped as JSON does."""
    # JSON is UTF-8: in another encoding its reader would take the letters for other ones.
    text = json.dumps(value, ensure_ascii=not out.encoding.startswith("utf-8"), indent=2)
    out.print(JSONHighlighter()(escape_json(text)), soft_wrap=True)


class _StdoutBytes(io.RawIOBase):
    """The bytes of stdout, for rows that are written as they are. On a terminal hidden characters become escapes."""

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        """Write bytes.

        Raises:
            BrokenPipeError: the reader closed it.
            Fault: it is full.
        """
        size = len(content)
        if _stdout.error is not None:
            pass
        elif _stdout.isatty():
            text = escape_hidden(bytes(content).decode("utf-8", "backslashreplace"), keep_lines=True)
            _stdout.write(escape_unencodable(text, _stdout.encoding))
        else:
            stream: Any = _stdout.stream
            try:
                stream.buffer.write(content)
            except OSError as error:
                _stdout.error = error
        if isinstance(_stdout.error, BrokenPipeError):
            raise _stdout.error
        if _stdout.error is not None:
            raise _unwritable_stdout(_stdout.error)
        return size


def stdout_bytes(*, binary: bool) -> BinaryIO:
    """Return stdout as a stream of bytes.

    Args:
        binary: What will be written is no text, such as a Parquet file.

    Raises:
        OutputError: stdout is closed, or it is a terminal and the content is no text.
    """
    if _stdout.stream is None:
        raise OutputError("it is closed", where="stdout", remedy="Name a file by --out.")
    if binary and _stdout.isatty():
        raise OutputError(
            "a Parquet file cannot be shown on a terminal",
            where="stdout",
            remedy="Name a file by --out.",
        )
    return cast("BinaryIO", _StdoutBytes())


def run(app: App, arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, and exit with its code.

    Args:
        app: The application with all commands.
        arguments: Words of the command line; None takes those of the process.
    """
    arguments = as_understood(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = (_take_flag(arguments, flag) for flag in ("--debug", "--quiet"))
    _occupy_closed_descriptors()
    _stdout.forget_error()
    _show_log(quiet)
    with _warnings_as_lines():
        code = _run(app, arguments, debug)
    sys.exit(_finish_stdout(code))


def as_understood(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line, with `help` and `version` as the flags that they mean."""
    words = list(arguments)
    if words[:1] == ["version"] and len(words) == 1:
        return ["--version"]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    if len(words) == 2 and words[1] == "help" and not os.path.exists("help"):
        return [words[0], "--help"]
    return words


def _occupy_closed_descriptors() -> None:
    """Open the null device in place of a stream that the process was started without.

    Otherwise the next file that is opened gets its number, and what a library prints would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _take_flag(arguments: list[str], flag: str) -> bool:
    """Remove the flag from the arguments. Return whether it was there."""
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _run(app: App, arguments: list[str], debug: bool) -> int:
    """Run a command, print its error if there is one, and return the exit code."""
    try:
        with activity(f"fullbake {arguments[0]}" if arguments and arguments[0].isalpha() else "fullbake"):
            app(arguments, exit_on_error=False, print_error=False)
    except SystemExit as end:  # cyclopts ends so after a command that is done
        return end.code if isinstance(end.code, int) else 0
    except CycloptsError as error:
        from fullbake.cli.mistakes import explain_mistake  # hardly any command line needs it

        return _fail(explain_mistake(app, error, arguments), 2)
    except Error as error:
        return _fail(str(error), error.exit_code, debug)
    except Interrupted as stop:
        return _fail(_stopped(stop), 128 + stop.signal)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C. No incomplete file was left behind.", 130)
    except BrokenPipeError as error:
        if error is _stdout.error:  # whoever reads the rows has enough of them
            return 0
        return _fail(_fault(error), 1, debug)
    except ModuleNotFoundError as error:
        missing = explain_missing(error)
        if missing is None:
            return _fail(_fault(error), 1, debug)
        return _fail(str(missing), missing.exit_code, debug)
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            return _fail(_fault(error), 1, debug)
        return _fail(str(explained), explained.exit_code, debug)
    except Exception as error:
        return _fail(_fault(error), 1, debug)
    return 0


def _fault(error: Exception) -> str:
    return f"{type(error).__name__}: {error}\nThis is a fault of fullbake's. --debug shows where."


def _finish_stdout(code: int) -> int:
    """Hand over what was printed, and return the exit code: that of the command, or 1 if stdout could not be written.

    Without this Python would flush once more at its end, print its own complaint, and exit with 120.
    """
    _stdout.flush()
    error = _stdout.error
    if error is None:
        return code
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), _stdout.fileno())
    if code or isinstance(error, BrokenPipeError):
        return code
    return _fail(str(_unwritable_stdout(error)), 1)


def _unwritable_stdout(error: OSError | ValueError) -> Fault:
    return Fault(
        "what was printed is lost, because it cannot be written to",
        where="stdout",
        got=getattr(error, "strerror", None) or str(error),
        remedy="Files that the command wrote are complete.",
    )


def _stopped(stop: Interrupted) -> str:
    return f"{stop}, on request. A checkpoint is in {stop.saved}; the same command resumes from it."


def _fail(message: str, code: int, debug: bool = False) -> int:
    """Print an error as one paragraph on stderr, after its traceback if `debug`. Return the exit code.

    Of several processes that train together on a machine, the first one prints what all of them know.
    """
    if code > 128 and runtime.local_rank():  # all were stopped
        return code
    if code == Error.exit_code:
        launcher.leave_to_first()
    if debug:
        for line in traceback.format_exc().splitlines():
            err.print(Line(line), soft_wrap=True)
    who = f"process {runtime.rank()}: " if runtime.world_size() > 1 else ""
    first, *others = message.split("\n")
    err.print(Line(("error: ", "bold red"), who + first), soft_wrap=True)
    for line in others:
        err.print(Line(f"       {line}"), soft_wrap=True)
    launcher.note_error(message)
    if code == Error.exit_code:
        launcher.end_restarts()
    return code


class _Lines(logging.Handler):
    """Print log records on stderr, one line each, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        sign = ("warning: ", "yellow") if record.levelno >= logging.WARNING else ""
        err.print(Line(sign, record.getMessage()), soft_wrap=True)


def _show_log(quiet: bool) -> None:
    """Print the lines of the logger `fullbake` on stderr. Of several training processes only the first prints them."""
    alone = runtime.rank() == 0
    quiet, out.quiet = quiet or not alone, not alone
    logger = logging.getLogger("fullbake")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.ERROR if not alone else logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Within the block, print a Python warning as one of our lines: its text may hold paths and labels."""

    def show(message: Warning | str, *_: Any) -> None:
        logging.getLogger("fullbake").warning("%s", str(message).replace("\n", " "))

    with warnings.catch_warnings():
        warnings.showwarning = cast("Any", show)
        yield
