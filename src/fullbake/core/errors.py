"""Everything that fullbake raises on purpose.

    Interrupted               a signal asked to stop (a KeyboardInterrupt, so that nobody catches it by accident)
    Error                     the user can mend it (exit code 2)
    ├── RecipeError           a field of a recipe, or two that do not fit together
    ├── DataError             a file, a line, a column, a label
    ├── BaseModelError        a base that cannot be found, read or used
    ├── BundleError           a saved classifier that is damaged, foreign or of another version
    ├── OutputError           a target that already holds something
    └── Fault                 not the user's doing (exit code 1)
        ├── SpaceFault        the disk is full, or would be
        └── DivergenceFault   the loss is no longer a number

A message says where, what was expected, what stood there, and what to do about it; nothing is ever
repaired in silence or answered with `None`.
"""

import difflib
from collections.abc import Iterable


class Error(Exception):
    """The root of the tree: a mistake that its reader can mend.

    what: one clause, no full stop. where: file, line, field. expected, got: what should have stood there and
    what did. remedy: whole sentences, what to do now.
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
        head = f"{self.where}: {self.what}." if self.where else f"{self.what}."
        facts = [f"expected {self.expected}"] if self.expected else []
        facts += [f"got {self.got}"] if self.got else []
        second = "; ".join(facts)
        second = f"{second[0].upper()}{second[1:]}." if second else ""
        tail = " ".join(part for part in (second, self.remedy) if part)
        return f"{head}\n{tail}" if tail else head


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, finished its step and saved.

    signal: the signal's number. step: optimizer steps taken. saved: the folder of the checkpoints, None where none
    were kept.
    """

    def __init__(self, signal: int, step: int, saved: str | None) -> None:
        self.signal, self.step, self.saved = signal, step, saved
        super().__init__(f"stopped after step {step:,}")


class RecipeError(Error):
    """A field of a recipe is wrong, or two fields do not fit together."""


class DataError(Error):
    """A file, a line, a column or a label is not what training or scoring needs."""


class BaseModelError(Error):
    """A base cannot be found, read, or used for what was asked."""


class BundleError(Error):
    """A saved classifier is damaged, foreign, or of another version."""


class OutputError(Error):
    """The target already holds something, or cannot be written."""


class Fault(Error):  # noqa: N818  (an Error it is; a fault is what the user did not cause)
    """Something failed that the user did not cause."""

    exit_code = 1


class SpaceFault(Fault):
    """The disk is full, or would be."""


class DivergenceFault(Fault):
    """The loss is no longer a finite number."""


MANY = 12
"""More choices than this are not listed; the nearest few are."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """One sentence or two that name the nearest choice and list all: "Did you mean 'x'? There is: 'x', 'y'."."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    if len(choices) > MANY:
        others = f"Also near: {', '.join(map(repr, near[1:]))}." if near[1:] else ""
        return f"{guess}{others}".strip() or f"There are {len(choices)}, none of them near."
    return f"{guess}There is: {', '.join(map(repr, choices))}."
