"""Everything that fullbake raises on purpose.

    Interrupted               a signal asked to stop (a KeyboardInterrupt, so that no `except Exception` catches it)
    DeadlinePassed            the time was up before work gave a result (no Error: whoever set the deadline catches it)
    Error                     the user can correct it (exit code 2)
    ├── RecipeError           a field of a recipe, or two that do not fit together
    ├── DataError             a file, a line, a column, a label
    ├── BaseModelError        a base that cannot be found, read or used
    ├── BundleError           a saved classifier that is damaged, foreign or of another version
    ├── OutputError           a target that already holds something, or may not be written
    ├── MissingExtraError     a library of an extra that is not installed (an ImportError too)
    └── Fault                 not the user's doing (exit code 1)
        ├── SpaceFault        the disk is full, or would be
        └── DivergenceFault   the loss is no longer a finite number

A message says where, what was expected, what was found, and what to do about it. Nothing is repaired silently, and no
function returns `None` in place of an error.
"""

import difflib
from collections.abc import Iterable, Mapping

from fullbake.core.escaping import escape_hidden
from fullbake.core.synonyms import right_name


class Error(Exception):
    """The root of the tree: a mistake that the reader can correct.

    Args:
        what: one clause that says what is wrong, without a full stop.
        where: the file, line or field.
        expected: what should have been there.
        got: what was there.
        remedy: whole sentences that say what to do now, naming the flag to use.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.got, self.remedy = what, where, expected, got, remedy
        super().__init__(self._compose())

    def _compose(self) -> str:
        """Return the message. Names and texts from outside stay within their line, whatever characters they hold."""
        head = escape_hidden(f"{self.where}: {self.what}." if self.where else f"{self.what}.")
        facts = [f"expected {self.expected}"] if self.expected else []
        facts += [f"got {self.got}"] if self.got else []
        second = escape_hidden("; ".join(facts))
        second = f"{second[0].upper()}{second[1:]}." if second else ""
        tail = " ".join(part for part in (second, self.remedy) if part)
        return f"{head}\n{tail}" if tail else head


class Interrupted(KeyboardInterrupt):
    """A signal asked training to stop; it finished its step and saved.

    Args:
        signal: the signal's number.
        step: optimizer steps taken so far.
        saved: the folder of the checkpoints, None if none are kept.
    """

    def __init__(self, signal: int, step: int, saved: str | None) -> None:
        self.signal, self.step, self.saved = signal, step, saved
        super().__init__(f"stopped after step {step:,}")


class DeadlinePassed(Exception):  # noqa: N818  (it is no error of the work)
    """The time was up before a piece of work had any result. See `stopping.deadline`."""


class RecipeError(Error):
    """A field of a recipe is wrong, or two fields do not fit together."""


class DataError(Error):
    """A file, a line, a column or a label is not what training or scoring needs."""


class BaseModelError(Error):
    """A base cannot be found, read, or used for this purpose."""


class BundleError(Error):
    """A saved classifier is damaged, foreign, or of another version."""


class OutputError(Error):
    """The target already holds something, or cannot be written."""


class MissingExtraError(Error, ImportError):
    """A library is not installed that an extra of fullbake brings.

    Args:
        what: As for `Error`; `remedy` too.
        remedy: As for `Error`.
        module: The name of the library's module.
    """

    def __init__(self, what: str, *, remedy: str, module: str) -> None:
        super().__init__(what, remedy=remedy)
        self.name = module


class Fault(Error):  # noqa: N818  (it is an Error; a fault is one that the user did not cause)
    """Something failed that the user did not cause."""

    exit_code = 1


class SpaceFault(Fault):
    """The disk is full, or would be."""


class DivergenceFault(Fault):
    """The loss is no longer a finite number."""


def one_line(error: Exception) -> str:
    """Return the message of an error without its line ends, for a warning or a list of faults."""
    return str(error).replace("\n", " ")


MOST_CHOICES_LISTED = 12
"""More choices than this are not listed; only the most similar few are."""


def did_you_mean(name: str, choices: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """Return sentences that name the choice that is meant, or the most similar ones, and all of them if they are few.

    Args:
        name: what the user wrote.
        choices: what is allowed.
        synonyms: other words for the choices, see `synonyms`; a word's meaning goes before its spelling.

    Returns:
        Such as `Did you mean 'x'? There is: 'x', 'y'.`, or `Here it is called 'x'.`
    """
    choices = list(choices)
    near = similar_names(name, choices)
    meant = None if synonyms is None else right_name(name, choices, synonyms)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    if meant is not None:
        guess, near = f"Here it is called {meant!r}. ", []
    if len(choices) > MOST_CHOICES_LISTED:
        others = f"Also similar: {', '.join(map(repr, near[1:]))}." if near[1:] else ""
        return f"{guess}{others}".strip() or f"There are {len(choices)} choices, and none is similar."
    return f"{guess}There is: {', '.join(map(repr, choices))}."


def similar_names(name: str, choices: Iterable[str]) -> list[str]:
    """Return the choices that are spelled like a name, the most similar first; at most a few."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    same_letters = [choice for choice in choices if choice.strip().casefold() == name.strip().casefold()]
    return list(dict.fromkeys([*same_letters, *near]))
