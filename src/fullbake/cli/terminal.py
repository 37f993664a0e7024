"""The terminal: results go to stdout, everything else to stderr, an error as one paragraph and an exit code.

Exit codes: 0 done, 1 a fault, 2 the user's mistake, 130 Ctrl-C.
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
from fullbake.core.console import console as err
from fullbake.core.errors import Error, Interrupted

out = Console()
PIPED_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, where no screen's edge should cut it."""


def print_table(result: RenderableType) -> None:
    """A table, as wide as the screen, or wide where there is none."""
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(result)


def print_line(line: str | Text) -> None:
    """A line of the result: plain text, never broken."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def run(app: App, arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name (None: the process's own) and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = (_taken(arguments, flag) for flag in ("--debug", "--quiet"))
    _show_log(quiet)
    sys.exit(_run(app, arguments, debug))


def _taken(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _run(app: App, arguments: list[str], debug: bool) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"{error}\nfullbake COMMAND --help lists what a command takes.", 2)
    except Error as error:
        return _fail(str(error), error.exit_code, debug)
    except Interrupted as stop:
        return _fail(_stopped(stop), 128 + stop.signal)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C. Nothing half-written was left behind.", 130)
    except BrokenPipeError:  # who read stdout has gone; Python would complain again when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        reason = f"{type(error).__name__}: {error}\nThis is a fault of fullbake's. --debug shows where."
        return _fail(reason, 1, debug)
    return 0


def _stopped(stop: Interrupted) -> str:
    return f"{stop}, as asked. It is saved in {stop.saved}; the same command goes on from there."


def _fail(message: str, code: int, debug: bool = False) -> int:
    """Print an error as one paragraph, its lines set in under the first; with `debug`, the traceback before it."""
    if debug:
        traceback.print_exc()
    who = f"process {runtime.rank()}: " if runtime.world_size() > 1 else ""
    err.print(Text.assemble(("error: ", "bold red"), who + message.replace("\n", "\n       ")), soft_wrap=True)
    return code


class _Lines(logging.Handler):
    """Log records as unbroken lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        sign = ("warning: ", "yellow") if record.levelno >= logging.WARNING else ""
        err.print(Text.assemble(sign, record.getMessage()), soft_wrap=True)


def _show_log(quiet: bool) -> None:
    """Lines of the run on stderr. Of several processes that train together the first one speaks; errors come from
    each."""
    alone = runtime.rank() == 0
    quiet, out.quiet = quiet or not alone, not alone
    logger = logging.getLogger("fullbake")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
