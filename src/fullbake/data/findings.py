"""What the user should know about a data set: one finding for each kind of thing, with rows as examples.

A check that finds the same for many labels gives one finding that names the commonest few and counts the rest, because
ninety lines for 150 classes hide everything else. Programs find all of them in `Finding.items`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fullbake.data.leak_probes import COLUMN, INVISIBLE, LENGTH, LETTERS, POSITION, WHITE_SPACE, Leak
from fullbake.data.predictive_codes import Sign
from fullbake.data.text_checks import LabelClue

MAX_EXAMPLES: Final = 5
"""Rows or labels that a finding names."""

MAX_GATHERED: Final = 3
"""Words, names or properties that a finding spells out."""

Severity = Literal["warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about the data that the user should know."""

    kind: str
    """What is found, for programs."""

    severity: Severity
    """`warning` where the user should do something, else `note`."""

    message: str
    """What is found, for people."""

    count: int
    """The number of rows, labels or words concerned."""

    rows: tuple[int, ...] = ()
    """Numbers of some of the rows, from 1 without the header."""

    items: tuple[str, ...] = ()
    """All things of this kind, where a finding gathers several; the message spells out the first ones."""


def describe_finding(finding: Finding) -> str:
    """Return a finding as one line, with the row numbers."""
    rows = f" (row {', '.join(map(str, finding.rows))}{', ...' if finding.count > len(finding.rows) else ''})"
    return f"{finding.message}{rows if finding.rows else ''}"


def order_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings with the warnings first, and of each severity the commonest first."""
    return tuple(sorted(findings, key=lambda one: (one.severity != "warning", -one.count)))


def list_names(names: Sequence[str]) -> str:
    """Return some names with quotes, and an ellipsis where more follow."""
    return ", ".join(map(repr, names[:MAX_EXAMPLES])) + (", ..." if len(names) > MAX_EXAMPLES else "")


def gather_alike_labels(groups: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Report labels that differ only in how they are written. groups: the spellings of each."""
    if not groups:
        return
    largest_first = sorted(groups, key=lambda names: -len(names))
    items = [", ".join(map(repr, names)) for names in largest_first]
    message = (
        "these labels differ only in case, spaces, Unicode form or the spelling of a number: "
        f"{_join(items, '; ')}; they are treated as different labels"
    )
    yield Finding("labels alike", "warning", message, sum(map(len, groups)), items=_several(items))


def gather_named_labels(clues: Sequence[LabelClue], rows: Sequence[int], within: str) -> Iterator[Finding]:
    """Report labels whose name is in their texts.

    Args:
        clues: What was found.
        rows: The number of each sampled row in the file.
        within: Says that the rows are a sample; "" where they are all rows.
    """
    if not clues:
        return
    found = _commonest_first(clues)
    if len(found) == 1:
        subject = f"the name of the label {found[0].label!r} is in {found[0].coverage:.0%} of its texts{within}"
        items: list[str] = []
    else:
        items = [f"{clue.label!r} (in {clue.coverage:.0%})" for clue in found]
        subject = f"the names of {len(found):,} labels are in many of their texts{within}: {_join(items)}"
    message = f"{subject}, but in few others: check whether the texts contain their label"
    yield Finding("named label", "note", message, _rows_of(found), _examples(found, rows), tuple(items))


def gather_revealing_words(clues: Sequence[LabelClue], rows: Sequence[int], within: str) -> Iterator[Finding]:
    """Report words that give labels away; the arguments are those of `gather_named_labels`."""
    if not clues:
        return
    found = _commonest_first(clues)
    severity: Severity = "warning" if any(clue.coverage >= 0.5 for clue in found) else "note"
    if len(found) == 1:
        (clue,) = found
        items: list[str] = []
        message = (
            f"the word {clue.word!r} gives away the label {clue.label!r}: {clue.rows_with_label:,} of the "
            f"{clue.rows:,} rows with the word{within} have the label, and {clue.coverage:.0%} of the label's rows "
            "have the word; check whether the word comes from how the data was collected"
        )
    else:
        items = [
            f"{clue.word!r} gives away the label {clue.label!r} ({clue.rows_with_label:,} of {clue.rows:,} rows with "
            f"the word have it, {clue.coverage:.0%} of its rows have the word)"
            for clue in found
        ]
        message = (
            f"words give away {len(found):,} labels{within}: {_join(items)}; check whether these words come from how "
            "the data was collected"
        )
    yield Finding("leakage", severity, message, _rows_of(found), _examples(found, rows), tuple(items))


_REMEDIES: Final[dict[str, tuple[str, Severity, str]]] = {
    INVISIBLE: (
        "characters that nobody sees give the label away",
        "warning",
        "a classifier may learn them in place of the words: find out where they come from, and remove them from all "
        "texts",
    ),
    WHITE_SPACE: (
        "white space gives the label away",
        "warning",
        "it often shows that the classes come from different files: strip and collapse it in all texts",
    ),
    LETTERS: (
        "letter case or encoding gives the label away",
        "warning",
        "check whether the classes come from different sources, and write all texts alike",
    ),
    LENGTH: (
        "length gives the label away",
        "warning",
        "check how the texts of each label were collected or cut",
    ),
    POSITION: (
        "the rows are sorted by label, wholly or in part",
        "note",
        "this is harmless where rows are split at random, as fullbake does; shuffle the rows before you cut the file "
        "in pieces or take its first rows",
    ),
    COLUMN: (
        "other columns give the label away",
        "note",
        "training does not read them: do not add them to the texts without need, and if rows of one value belong "
        "together (a user, a source), keep them in one part",
    ),
}
"""By kind of probe: what is found, how serious that is, and what to do."""


def gather_leaks(leaks: Sequence[Leak], rows: Sequence[int], label_names: Sequence[str], within: str) -> list[Finding]:
    """Report what the probes found, one finding for each kind of probe.

    Args:
        leaks: What was found, the largest gain first.
        rows: The number of each probed row in the file.
        label_names: The labels.
        within: Says that the rows are a sample; "" where they are all rows.
    """
    findings = []
    for kind, (title, severity, remedy) in _REMEDIES.items():
        own = [leak for leak in leaks if leak.kind == kind]
        if own:
            items = [_describe_leak(leak, label_names) for leak in own]
            message = f"{title}{within}: {_join(items, '; ')}; {remedy}"
            examples = tuple(rows[position] for position in own[0].found.positions)
            findings.append(Finding(_KINDS[kind], severity, message, own[0].rows, examples, _several(items)))
    return findings


_KINDS: Final = {
    INVISIBLE: "invisible characters",
    WHITE_SPACE: "white space",
    LETTERS: "letters",
    LENGTH: "length",
    POSITION: "sorted by label",
    COLUMN: "revealing column",
}


def _describe_leak(leak: Leak, label_names: Sequence[str]) -> str:
    found = leak.found
    subject = f"{leak.subject}{f' ({leak.detail})' if leak.detail else ''}"
    if isinstance(found, Sign):
        return (
            f"{subject} recognizes {found.coverage:.0%} of the held-out rows with the label "
            f"{label_names[found.label]!r}: {found.precision:.0%} of the rows so recognized have it "
            f"({found.share:.0%} of all rows do)"
        )
    if found.label is None:
        result = f"predicts the label of {found.correct:.0%} of the held-out rows"
        baseline = f"the most frequent label alone: {found.baseline:.0%}"
    else:
        result = f"says for {found.correct:.1%} of the held-out rows whether they have {label_names[found.label]!r}"
        baseline = f"one answer for all rows: {found.baseline:.1%}"
    return f"{subject} {result} ({baseline})"


def _join(items: Sequence[str], separator: str = ", ") -> str:
    rest = len(items) - MAX_GATHERED
    return separator.join([*items[:MAX_GATHERED], *([f"and {rest:,} more"] if rest > 0 else [])])


def _several(items: Sequence[str]) -> tuple[str, ...]:
    """Return the items, or nothing where the message already holds the only one."""
    return tuple(items) if len(items) > 1 else ()


def _commonest_first(clues: Sequence[LabelClue]) -> list[LabelClue]:
    return sorted(clues, key=lambda clue: -clue.rows)


def _rows_of(clues: Sequence[LabelClue]) -> int:
    return sum(clue.rows for clue in clues)


def _examples(clues: Sequence[LabelClue], rows: Sequence[int]) -> tuple[int, ...]:
    """Return rows of the first clue, or one row of each of the first clues."""
    chosen = clues[0].examples if len(clues) == 1 else [clue.examples[0] for clue in clues if clue.examples]
    return tuple(rows[position] for position in chosen[:MAX_EXAMPLES])
