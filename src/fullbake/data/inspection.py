"""One pass over labelled rows, in memory that does not grow with them.

Counts are of all rows; a random sample of rows is kept whole; and beyond a million rows hashes are kept of those texts
whose hash falls into a share of all hashes, so that whole groups of equal texts are in it or out.

Facts and warnings about labelled texts before anything is trained on them.

One pass over the rows, in memory that does not grow with them: counts are of all rows; words, scripts, token lengths
and near duplicates of a random sample; and beyond a million rows equal texts of those whose hash falls into a share of
all hashes, so that whole groups of equal texts are in it or out. Every figure that is of a sample says so. The same
code looks at a file (`inspect_file`) and at the head of every run (`inspect_parts`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, Problem, problem_named
from fullbake.config.sections import DataConfig
from fullbake.core.console import bar
from fullbake.data.dataset import Dataset, join_pairs, open_source
from fullbake.data.duplicates import duplicate_groups, find_overlap, normalize, text_hashes
from fullbake.data.labels import LabelForm, LabelReader
from fullbake.data.splits import DEFAULT_FOLDS, MAX_ROWS_FOR_FOLDS, MIN_VALIDATION_ROWS, Parts, read_labeled
from fullbake.data.text_checks import (
    SUSPECT_PATTERNS,
    LabelClue,
    find_label_clues,
    find_matching_texts,
    find_named_labels,
    script_shares,
)

MOST_HASHES: Final = 1_000_000
"""Hashes of texts held at a time."""

MOST_EXAMPLES: Final = 5
"""Row numbers that a finding names."""


Named = Sequence[tuple[str, ...] | None]
"""The labels of each row by name, None where the row has no mark of any."""


def named_labels(rows: int, names: tuple[str, ...], labels: np.ndarray, labelled: np.ndarray) -> Named:
    """Labels by name. labels: of the rows at the positions `labelled`, as `LabelReader.finish` gives them."""
    named: list[tuple[str, ...] | None] = [None] * rows
    for position, held in zip(labelled.tolist(), labels.tolist(), strict=True):
        places = [place for place, mark in enumerate(held) if mark] if isinstance(held, list) else [held]
        named[position] = tuple(names[place] for place in places)
    return named


@dataclass
class Survey:
    """What one pass gathers. sample: (key, row, text, labels) of the rows with the lowest random keys. prints: hash,
    label and row of the texts whose hash is a multiple of `share`, in arrays a chunk."""

    source: str
    size: int
    problem: Problem = field(default_factory=lambda: problem_named(SINGLE_LABEL))
    rows: int = 0
    unlabelled: int = 0
    bare: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    marked_first: dict[str, list[int]] = field(default_factory=dict)
    sample: list[tuple[float, int, str, tuple[str, ...]]] = field(default_factory=list)
    prints: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    share: int = 1

    def add(self, texts: list[str], named: Named, numbers: Sequence[int] | None = None) -> None:
        """Take rows; numbers: theirs in the file, None where they go on from the last."""
        rows = list(numbers) if numbers is not None else list(range(self.rows + 1, self.rows + 1 + len(texts)))
        keys = np.random.Generator(np.random.PCG64([self.rows, 1])).random(len(texts)).tolist()
        self.rows += len(texts)
        self.unlabelled += sum(labels is None for labels in named)
        self.bare += sum(labels == () for labels in named)
        self.labels.update(label for labels in named for label in labels or ())
        self.lengths.update(map(len, texts))
        self._mark(pa.array(texts, pa.large_string()), rows)
        self._print(texts, named, rows)
        taken = [(key, row, text, held or ()) for key, row, text, held in zip(keys, rows, texts, named, strict=True)]
        limit = self.sample[-1][0] if len(self.sample) >= self.size else 2.0
        self.sample = sorted([*self.sample, *(one for one in taken if one[0] < limit)])[: self.size]

    def _mark(self, texts: pa.Array, rows: list[int]) -> None:
        for name, pattern in SUSPECT_PATTERNS.items():
            found = find_matching_texts(texts, pattern)
            first = self.marked_first.setdefault(name, [])
            first.extend(rows[position] for position in found[: MOST_EXAMPLES - len(first)])
            self.marked[name] += len(found)

    def _print(self, texts: list[str], named: Named, rows: list[int]) -> None:
        """Keep hashes, and half as many whenever there are too many: those of a text are kept together or not at
        all."""
        whole = text_hashes(texts).view("<u8")[:, 0]
        own = np.array([crc32("\x1f".join(sorted(labels or ())).encode()) for labels in named], dtype=np.uint32)
        self.prints.append(_every(self.share, (whole, own, np.array(rows))))
        while sum(len(hashes) for hashes, _, _ in self.prints) > MOST_HASHES:
            self.share *= 2
            self.prints = [_every(self.share, arrays) for arrays in self.prints]


def _every(share: int, arrays: tuple[np.ndarray, ...]) -> Any:
    kept = arrays[0] % np.uint64(share) == 0
    return tuple(array[kept] for array in arrays)


TokenCounter = Callable[[Sequence[str]], npt.NDArray[np.int64]]
"""Texts to the number of tokens of each, (texts,), special ones included."""

SAMPLE: Final = 20_000
"""Rows of a file that words, scripts, near duplicates and token lengths are looked for in."""

QUICK_SAMPLE: Final = 3_000
"""The same at the head of a run, which should not wait for it."""

FEWEST_TO_LEARN: Final = 8
"""Rows a class should have."""


@dataclass(frozen=True)
class Finding:
    """Something to know. severity: `warning` where something should be done, else `note`. count: rows, labels or words
    it is about. rows: numbers of the first of them, from 1 without the header."""

    kind: str
    severity: Literal["warning", "note"]
    message: str
    count: int
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lengths:
    """How long texts are. over: share of the texts beyond `limit`; lost: share of all units that the limit cuts off."""

    median: int
    p90: int
    p99: int
    longest: int
    limit: int | None = None
    over: float | None = None
    lost: float | None = None
    counts: tuple[tuple[int, int], ...] = ()
    """Histogram: (upper end, texts)."""


@dataclass(frozen=True)
class Facts:
    """What there is to know of labelled texts. labels: rows by name. sampled: rows in the sample. scripts: shares of
    letters."""

    source: str
    rows: int
    labels: dict[str, int]
    multi_label: bool
    unlabelled: int
    characters: Lengths
    tokens: Lengths | None
    scripts: dict[str, float]
    sampled: int
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def inspect_file(
    source: str | Path,
    data: DataConfig,
    count_tokens: TokenCounter | None = None,
    max_length: int | None = None,
) -> Facts:
    """The facts of a file of any size, or hub data set, read by the recipe's `data` section.

    count_tokens: texts -> tokens of each, by the base's tokenizer; max_length: the most tokens that the base takes.
    Without them token lengths are left out. Where `data` names files for validation
    or test, these are read too, and what they share with it is told. Raises DataError for rows that cannot be read.
    """
    columns = data.columns
    look = Survey(str(source), SAMPLE)
    form: LabelForm | None = None
    with bar("reading", None, "rows") as advance:
        for chunk in open_source(source, columns, data.delimiter, data.encoding).chunks():
            reader = LabelReader(columns, form=form)
            reader.add(chunk.columns, chunk.where)
            form = reader.form
            texts = [chunk.columns[name] for name in columns.of_texts]
            look.add(texts[0] if len(texts) == 1 else join_pairs(*texts), named_labels(len(chunk), *reader.finish()))
            advance(len(chunk))
    look.problem = problem_named(SINGLE_LABEL if form == "single" else MULTI_LABEL)
    return _facts(look, count_tokens, max_length, data, _shared_with_given(source, data))


def inspect_parts(parts: Parts, data: DataConfig, count_tokens: TokenCounter, max_length: int | None) -> Facts:
    """The facts of a run's training file, quickly: from a smaller sample."""
    source = parts.train.source
    assert source.labels is not None
    look = Survey(source.source, QUICK_SAMPLE, source.problem)
    named = named_labels(len(source), source.label_names, source.labels, np.arange(len(source)))
    look.add(source.joined_texts.to_pylist(), named, source.rows.tolist())
    return _facts(look, count_tokens, max_length, data, [])


def headlines(facts: Facts) -> list[str]:
    """What a run says at its head: the labels, the lengths, and a line for each warning."""
    counts = sorted(facts.labels.items(), key=lambda item: -item[1])
    rates = ", ".join(f"{name} {count / max(1, facts.rows):.1%}" for name, count in counts[:6])
    more = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
    lines = [f"labels: {rates}{more}"]
    if facts.tokens is not None and facts.tokens.over is not None:
        lines.append(
            f"tokens a text: median {facts.tokens.median}, 99% within {facts.tokens.p99}; {facts.tokens.over:.1%} of "
            f"the texts are over the limit of {facts.tokens.limit}"
        )
    return lines


def describe_finding(found: Finding) -> str:
    """A finding as one line."""
    rows = f" (row {', '.join(map(str, found.rows))}{', ...' if found.count > len(found.rows) else ''})"
    return f"{found.message}{rows if found.rows else ''}"


def _facts(
    look: Survey,
    count_tokens: TokenCounter | None,
    max_length: int | None,
    data: DataConfig,
    findings: list[Finding],
) -> Facts:
    look.sample.sort(key=lambda one: one[1])
    texts = [text for _, _, text, _ in look.sample]
    tokens = None
    if count_tokens is not None:
        tokens = _lengths(Counter(count_tokens(texts).tolist()), max_length)
    found = [*findings, *_of_labels(look, data), *_of_texts(look), *_of_equal_texts(look), *_of_sample(look)]
    return Facts(
        source=look.source,
        rows=look.rows,
        labels=dict(sorted(look.labels.items())),
        multi_label=not look.problem.exclusive,
        unlabelled=look.unlabelled,
        characters=_lengths(look.lengths, None),
        tokens=tokens,
        scripts=script_shares(texts),
        sampled=len(texts),
        findings=tuple(sorted(found, key=lambda one: one.severity != "warning")),
    )


def _lengths(counts: Counter[int], limit: int | None) -> Lengths:
    values = np.array(sorted(counts) or [0])
    numbers = np.array([counts[value] for value in sorted(counts)] or [1])
    upto = np.cumsum(numbers)
    median, p90, p99 = (int(values[np.searchsorted(upto, share * upto[-1])]) for share in (0.5, 0.9, 0.99))
    ends = np.unique(np.geomspace(4, max(8, int(values[-1])), 24).astype(int))
    place = np.searchsorted(ends, values)
    shown = tuple((int(end), int(numbers[place == number].sum())) for number, end in enumerate(ends))
    over = lost = None
    if limit is not None:
        over = float(numbers[values > limit].sum() / upto[-1])
        lost = float((np.maximum(values - limit, 0) * numbers).sum() / max(1, (values * numbers).sum()))
    return Lengths(median, p90, p99, int(values[-1]), limit, over, lost, shown)


# Findings


def _of_labels(look: Survey, data: DataConfig) -> Iterator[Finding]:
    if look.unlabelled:
        share = f"{look.unlabelled:,} of {look.rows:,} rows have no label"
        yield Finding("unlabelled", "warning", f"{share}; --drop-unlabelled leaves them out", look.unlabelled)
    if look.bare:
        yield Finding("no label holds", "note", f"{look.bare:,} rows have none of the labels", look.bare)
    rare = [name for name, count in sorted(look.labels.items()) if count < FEWEST_TO_LEARN]
    if rare:
        told = f"{_counted(rare, 'label')} under {FEWEST_TO_LEARN} rows, too few to learn: {_some(rare)}"
        yield Finding("rare labels", "warning", told, len(rare))
    alike: dict[str, list[str]] = {}
    for name in sorted(look.labels):
        alike.setdefault(normalize(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            told = f"labels that differ in case, spaces or Unicode form alone: {', '.join(map(repr, names))}"
            yield Finding("labels alike", "warning", f"{told}; they are kept as different labels", len(names))
    yield from _of_validation(look, data)


def _of_validation(look: Survey, data: DataConfig) -> Iterator[Finding]:
    if isinstance(data.validation, str) or data.folds or not look.labels:
        return
    small = [name for name, count in sorted(look.labels.items()) if count * data.validation < MIN_VALIDATION_ROWS]
    if small:
        told = (
            f"{_counted(small, 'label')} under {MIN_VALIDATION_ROWS} rows in a validation share of {data.validation:g}"
        )
        folds = look.rows <= MAX_ROWS_FOR_FOLDS and data.folds is None
        then = f"a run takes {DEFAULT_FOLDS} folds" if folds else f"--folds {DEFAULT_FOLDS} would choose by all rows"
        yield Finding("small validation", "note", f"{told} ({_some(small)}); {then}", len(small))


def _of_texts(look: Survey) -> Iterator[Finding]:
    for name, count in look.marked.items():
        grave = count > 0.01 * look.rows or "U+FFFD" in name or "read as" in name
        if count:
            message = f"{count:,} texts hold {name}"
            yield Finding("texts", "warning" if grave else "note", message, count, tuple(look.marked_first[name]))


def _of_equal_texts(look: Survey) -> Iterator[Finding]:
    hashes, labels, rows = (np.concatenate(column) for column in zip(*look.prints, strict=True))
    order = np.lexsort((rows, hashes))
    hashes, labels, rows = hashes[order], labels[order], rows[order]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(hashes)))
    again = int((sizes - 1).sum())
    estimated = "" if look.share == 1 else f" (estimated from 1 text in {look.share})"
    if again:
        first = rows[starts[sizes > 1] + 1]
        told = f"{again * look.share:,} rows repeat the text of another row{estimated}; splits keep such rows together"
        yield Finding("equal texts", "note", told, again * look.share, tuple(first[:MOST_EXAMPLES].tolist()))
    differing = np.maximum.reduceat(labels, starts) != np.minimum.reduceat(labels, starts) if len(starts) else starts
    torn = np.flatnonzero(differing)
    if len(torn):
        count = int(sizes[torn].sum()) * look.share
        told = f"{count:,} rows have a text that stands elsewhere under another label{estimated}: which is right?"
        pairs = [int(row) for group in torn[:2] for row in rows[starts[group] : starts[group] + 2]]
        yield Finding("contradicting labels", "warning", told, count, tuple(pairs))


def _of_sample(look: Survey) -> Iterator[Finding]:
    rows = [row for _, row, _, _ in look.sample]
    texts = [text for _, _, text, _ in look.sample]
    within = "" if len(texts) == look.rows else f" among {len(texts):,} sampled rows"
    yield from _of_near_texts(texts, rows, within)
    names = sorted(look.labels)
    if len(names) > 1 and not look.unlabelled:
        labels = look.problem.encode([held for _, _, _, held in look.sample], names)
        yield from (_named_clue(clue, rows, within) for clue in find_named_labels(texts, labels, names))
        yield from (_word_clue(clue, rows, within) for clue in find_label_clues(texts, labels, names))


def _of_near_texts(texts: list[str], rows: list[int], within: str) -> Iterator[Finding]:
    if not texts:
        return
    normalized = [normalize(text) for text in texts]
    _, distinct = np.unique(np.array(normalized, dtype=object), return_index=True)
    groups = duplicate_groups([texts[place] for place in distinct])
    near = np.flatnonzero(np.bincount(groups)[groups] > 1)
    if len(near):
        first = sorted(rows[distinct[place]] for place in near)[:MOST_EXAMPLES]
        told = f"{len(near):,} different texts{within} are nearly equal to another one; splits keep them together"
        yield Finding("near duplicates", "note", told, len(near), tuple(first))


def _named_clue(clue: LabelClue, rows: list[int], within: str) -> Finding:
    told = f"the label {clue.label!r} stands by name in {clue.covered:.0%} of its texts{within} and hardly in others"
    return Finding("named label", "note", f"{told}: is it part of the text?", clue.right, _first(clue, rows))


def _word_clue(clue: LabelClue, rows: list[int], within: str) -> Finding:
    severity: Literal["warning", "note"] = "warning" if clue.covered >= 0.5 else "note"
    told = (
        f"the word {clue.word!r} decides {clue.label!r}: {clue.right:,} of the {clue.rows:,} rows with it{within}, "
        f"{clue.covered:.0%} of that label's"
    )
    return Finding(
        "leakage", severity, f"{told}; does it leak how the data were gathered?", clue.rows, _first(clue, rows)
    )


def _first(clue: LabelClue, rows: list[int]) -> tuple[int, ...]:
    return tuple(rows[place] for place in clue.first[:MOST_EXAMPLES])


def _shared_with_given(source: str | Path, data: DataConfig) -> list[Finding]:
    """What the training file shares with files that are given for validation and test."""
    given = {name: path for name in ("validation", "test") if isinstance(path := getattr(data, name), str)}
    if not given:
        return []
    train = read_labeled(source, data)
    findings: list[Finding] = []
    for name, path in given.items():
        other = read_labeled(path, data, label_names=train.label_names)
        findings += _overlap_of(train, other, name)
    return findings


def _overlap_of(train: Dataset, other: Dataset, name: str) -> Iterator[Finding]:
    equal = find_overlap(train.joined_texts, other.joined_texts, near=False)
    near = find_overlap(train.joined_texts, other.joined_texts, near=True)
    if len(equal[1]):
        told = f"{len(equal[1]):,} of {len(other):,} {name} rows have a text that also stands in training"
        rows = tuple(other.rows[equal[1][:MOST_EXAMPLES]].tolist())
        then = "a run refuses this without --drop-overlap or --allow-overlap"
        yield Finding(f"overlap with {name}", "warning", f"{told}; {then}", len(equal[1]), rows)
    more = np.setdiff1d(near[1], equal[1])
    if len(more):
        told = f"{len(more):,} more {name} rows are nearly equal to a training text"
        yield Finding(
            f"near overlap with {name}", "warning", told, len(more), tuple(other.rows[more[:MOST_EXAMPLES]].tolist())
        )


def _counted(names: list[str], noun: str) -> str:
    return f"one {noun} has" if len(names) == 1 else f"{len(names):,} {noun}s have"


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:MOST_EXAMPLES])) + (", ..." if len(names) > MOST_EXAMPLES else "")
