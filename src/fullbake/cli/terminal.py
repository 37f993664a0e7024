"""Write to the terminal: results to stdout, messages and errors to stderr, and the exit code.

Exit codes: 0 done, 1 a fault, 2 a mistake that the user can mend, 128 plus the signal's number after a signal (130
after Ctrl-C).
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console, RenderableType
from rich.text import Text

from fullbake.core import runtime
from fullbake.core.console import activity
from fullbake.core.console import console as err
from fullbake.core.errors import Error, Interrupted

out = Console()
PIPED_WIDTH = 160
"""Width in characters of a table that goes to a file or a pipe."""


def print_table(result: RenderableType) -> None:
    """Print a table on stdout, as wide as the screen (PIPED_WIDTH characters where stdout is no terminal)."""
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(result)


def print_line(line: str | Text) -> None:
    """Print one line on stdout as plain text, never wrapped."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def run(app: App, arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, and exit with its code.

    Args:
        app: The application with all commands.
        arguments: Words of the command line; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = (_take_flag(arguments, flag) for flag in ("--debug", "--quiet"))
    _show_log(quiet)
    sys.exit(_run(app, arguments, debug))


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
    except CycloptsError as error:
        return _fail(f"{error}\nfullbake COMMAND --help lists what a command takes.", 2)
    except Error as error:
        return _fail(str(error), error.exit_code, debug)
    except Interrupted as stop:
        return _fail(_stopped(stop), 128 + stop.signal)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C. No incomplete file was left behind.", 130)
    except (
        BrokenPipeError
    ):  # stdout was closed by its reader; without this Python fails once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        reason = f"{type(error).__name__}: {error}\nThis is a fault of fullbake's. --debug shows where."
        return _fail(reason, 1, debug)
    return 0


def _stopped(stop: Interrupted) -> str:
    return f"{stop}, on request. A checkpoint is in {stop.saved}; the same command resumes from it."


def _fail(message: str, code: int, debug: bool = False) -> int:
    """Print an error as one paragraph on stderr, after its traceback if `debug`. Return the exit code."""
    if debug:
        traceback.print_exc()
    who = f"process {runtime.rank()}: " if runtime.world_size() > 1 else ""
    err.print(Text.assemble(("error: ", "bold red"), who + message.replace("\n", "\n       ")), soft_wrap=True)
    return code


class _Lines(logging.Handler):
    """Print log records on stderr, one line each, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        sign = ("warning: ", "yellow") if record.levelno >= logging.WARNING else ""
        err.print(Text.assemble(sign, record.getMessage()), soft_wrap=True)


def _show_log(quiet: bool) -> None:
    """Print the lines of the logger `fullbake` on stderr. Of several training processes only the first prints them."""
    alone = runtime.rank() == 0
    quiet, out.quiet = quiet or not alone, not alone
    logger = logging.getLogger("fullbake")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
