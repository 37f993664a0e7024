"""Facts and warnings about labeled texts, before anything is trained on them.

The rows are read once, in memory that does not grow with them. Counts are of all rows. Words, scripts, token lengths
and near duplicates are of a random sample. Equal texts are found by hashes; when there are too many, only texts whose
hash is a multiple of some number are counted, so all rows of a text count or none. Every figure that comes from a
sample says so. The same code looks at a file (`inspect_file`) and at the training rows when a run starts
(`inspect_parts`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.config.problems import SINGLE_LABEL, Problem, problem_named, problem_of
from fullbake.config.sections import DataConfig
from fullbake.core.console import bar
from fullbake.data.arrow import PARQUET, ArrowSource
from fullbake.data.dataset import Dataset, join_pairs
from fullbake.data.duplicates import duplicate_groups, find_overlap
from fullbake.data.files import is_sorted_by_class
from fullbake.data.findings import (
    MAX_EXAMPLES,
    Finding,
    gather_alike_labels,
    gather_leaks,
    gather_named_labels,
    gather_revealing_words,
    list_names,
    order_findings,
)
from fullbake.data.label_checks import describe_dropped, drop_rare_labels
from fullbake.data.label_doubts import find_alike_labels, find_label_doubts
from fullbake.data.labeled_files import read_labeled, read_part
from fullbake.data.labels import LabelReader
from fullbake.data.leak_probes import POSITION, find_leaks
from fullbake.data.normalization import normalize, text_hashes
from fullbake.data.predictive_codes import LabeledSample
from fullbake.data.sources import as_parts, open_source
from fullbake.data.spare_columns import FieldsOf, fields_of_rows, read_fields, spare_columns
from fullbake.data.splits import DEFAULT_FOLDS, MAX_ROWS_FOR_FOLDS, MIN_VALIDATION_ROWS, Parts
from fullbake.data.text_checks import (
    SUSPECT_PATTERNS,
    SuspectPattern,
    TextSearch,
    count_letters,
    find_label_clues,
    find_named_labels,
    script_shares,
)

SAMPLE_ROWS: Final = 20_000
"""Rows of a file in which words, scripts, near duplicates and token lengths are looked for."""

QUICK_SAMPLE_ROWS: Final = 3_000
"""The same when a run starts, because training should not wait for it."""

MAX_HASHES: Final = 1_000_000
"""Hashes of texts that are held at a time."""

MIN_ROWS_PER_LABEL: Final = 8
"""A label with fewer rows gets a warning."""

_SERIOUS_SHARE: Final = 0.01
"""Suspect texts are a warning, not a note, if they are more than this share of the rows."""


class CountedTokens(Protocol):
    """The tokens of some texts by the base's tokenizer."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(texts,) the number of tokens of each, special ones included."""

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that the tokenizer does not know."""

    @property
    def unknown_warning(self) -> str | None:
        """What to do about unknown tokens, None if they are few."""


TokenCounter = Callable[[Sequence[str]], CountedTokens]
"""Called with texts; returns how many tokens they have."""

LabelsByRow = Sequence[tuple[str, ...] | None]
"""(rows,) the label names of each row; None for a row whose label is missing."""

# What is returned: the names of these fields are those of `fullbake inspect --json`


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in characters or tokens."""

    median: int
    p90: int
    """90% of the texts are no longer than this."""

    p99: int
    longest: int
    limit: int | None = None
    """The longest input that the base accepts."""

    over: float | None = None
    """Share of the texts that are longer than the limit."""

    lost: float | None = None
    """Share of all tokens that the limit cuts off."""

    counts: tuple[tuple[int, int], ...] = ()
    """Histogram: (longest length of the bin, number of texts)."""


@dataclass(frozen=True)
class Facts:
    """What is known about labeled texts."""

    source: str
    rows: int
    labels: dict[str, int]
    """Label name to number of rows."""

    multi_label: bool
    """Whether a row may have several labels."""

    unlabelled: int
    """Rows without a label."""

    characters: Lengths
    tokens: Lengths | None
    """None where no base was named."""

    scripts: dict[str, float]
    """Script to its share of all letters."""

    sampled: int
    """Rows in the sample."""

    findings: tuple[Finding, ...]
    """The warnings first."""

    unknown_tokens: float | None = None
    """Share of the tokens that the base's tokenizer does not know; None where no base was named."""

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return asdict(self)


def inspect_file(
    source: Any,
    data: DataConfig,
    count_tokens: TokenCounter | None = None,
    max_length: int | None = None,
    *,
    sample_rows: int = SAMPLE_ROWS,
    max_hashes: int = MAX_HASHES,
) -> Facts:
    """Inspect a file of any size, a hub data set, or rows in memory.

    Args:
        source: what `adapt` takes, but no Dataset.
        data: the recipe's `data` section. Files that it names for validation and test are read too, and texts that they
            share with `source` are reported; the same of parts that `source` holds.
        count_tokens: counts tokens by the base's tokenizer; None leaves token lengths out.
        max_length: the longest input that the base accepts, in tokens.
        sample_rows: the number of rows in the sample.
        max_hashes: the number of hashes held at a time.

    Raises:
        DataError: a row cannot be read.
    """
    given = as_parts(source)
    source, columns = given.train, data.columns
    data = data.model_copy(update=given.fields(data))
    survey = _Survey(str(source), sample_rows, max_hashes=max_hashes)
    reader = LabelReader(columns)
    table = open_source(source, columns, data.dialect)
    survey.spare = spare_columns(table, [*columns.of_texts, *columns.of_labels, *columns.of_groups])
    with bar("reading", None, "rows") as advance:
        for chunk in table.chunks():
            # A reader for each chunk, because it holds the labels of all rows it has read.
            reader = LabelReader(columns, form=reader.form)
            reader.add(chunk.columns, chunk.where)
            texts = [chunk.columns[name] for name in columns.of_texts]
            joined = texts[0] if len(texts) == 1 else join_pairs(*texts)
            spare_of = fields_of_rows(table, chunk, survey.spare)
            survey.add(joined, _name_labels(len(chunk), *reader.finish()), spare_of=spare_of)
            advance(len(chunk))
    if survey.spare and (isinstance(source, ArrowSource) or table.format == PARQUET.name):
        survey.read_spare(source)
    survey.problem = reader.problem
    return _conclude(survey, count_tokens, max_length, data, _find_shared_texts(source, data, given.others))


def inspect_parts(parts: Parts, data: DataConfig, count_tokens: TokenCounter, max_length: int | None) -> Facts:
    """Inspect the training file of a run, quickly: from a smaller sample.

    Args:
        parts: the run's parts; their whole source file is inspected.
        data: the recipe's `data` section.
        count_tokens: counts tokens by the base's tokenizer.
        max_length: the longest input that the base accepts, in tokens.
    """
    source = parts.train.source
    assert source.labels is not None
    survey = _Survey(source.source, QUICK_SAMPLE_ROWS, source.problem)
    labels = _name_labels(len(source), source.label_names, source.labels, np.arange(len(source)))
    survey.add(source.joined_texts.to_pylist(), labels, source.rows.tolist())
    return _conclude(survey, count_tokens, max_length, data, [])


def headlines(facts: Facts) -> list[str]:
    """Return the lines that a run prints when it starts: shares of the labels, lengths in tokens, unknown tokens."""
    counts = sorted(facts.labels.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {count / max(1, facts.rows):.1%}" for name, count in counts[:6])
    more = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
    lines = [f"labels: {shares}{more}"]
    if facts.tokens is not None and facts.tokens.over is not None:
        lines.append(
            f"tokens per text: median {facts.tokens.median}, 99% have at most {facts.tokens.p99}; "
            f"{facts.tokens.over:.1%} of the texts are longer than the limit of {facts.tokens.limit}"
        )
    if facts.unknown_tokens is not None:
        lines.append(f"unknown tokens: {facts.unknown_tokens:.2%}")
    return lines


# One pass over the rows


class _Sampled(NamedTuple):
    """A row of the sample."""

    key: float
    """Random; the rows with the lowest keys are the sample."""

    row: int
    text: str
    labels: tuple[str, ...] | None
    """None where the label is missing."""

    spare: tuple[str, ...]
    """The values of the spare columns; () where they are not known."""


@dataclass
class _Survey:
    """Gathers counts, a sample and hashes of the rows."""

    source: str
    sample_rows: int
    """Rows to keep in the sample."""

    problem: Problem = field(default_factory=lambda: problem_named(SINGLE_LABEL))
    max_hashes: int = MAX_HASHES
    rows: int = 0
    unlabeled: int = 0
    """Rows whose label is missing."""

    one_label_rows: int = 0
    """Rows that have exactly one label."""

    without_labels: int = 0
    """Rows that have none of several possible labels."""

    label_counts: Counter[str] = field(default_factory=Counter)
    length_counts: Counter[int] = field(default_factory=Counter)
    """Characters of a text to number of texts."""

    suspect_counts: Counter[SuspectPattern] = field(default_factory=Counter)
    suspect_rows: dict[SuspectPattern, list[int]] = field(default_factory=dict)
    """The first rows with each pattern."""

    spare: tuple[str, ...] = ()
    """The columns that are neither text nor label."""

    sample: list["_Sampled"] = field(default_factory=list)
    """The rows with the lowest keys, sorted by key, then by row."""

    hashes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    """For each chunk (texts,) arrays of the hash, the labels' hash and the row of each text whose hash is kept."""

    hash_step: int = 1
    """Hashes that are multiples of it are kept: one text in so many."""

    def add(
        self,
        texts: list[str],
        labels: LabelsByRow,
        row_numbers: Sequence[int] | None = None,
        spare_of: FieldsOf | None = None,
    ) -> None:
        """Add some rows.

        Args:
            texts: (rows,) texts, or joined pairs.
            labels: (rows,) their labels.
            row_numbers: (rows,) their numbers in the file; None continues from the last row.
            spare_of: gives the values of the spare columns of a row; None where they are not known.
        """
        rows = list(range(self.rows + 1, self.rows + 1 + len(texts))) if row_numbers is None else list(row_numbers)
        # Seeded by the position in the file, so that the same file always gives the same sample.
        keys = np.random.Generator(np.random.PCG64([self.rows, 1])).random(len(texts)).tolist()
        self.rows += len(texts)
        counts = Counter(labels)
        self.unlabeled += counts[None]
        self.without_labels += counts[()]
        for names, count in counts.items():
            self.one_label_rows += count if names is not None and len(names) == 1 else 0
            self.label_counts.update(dict.fromkeys(names or (), count))
        self.length_counts.update(map(len, texts))
        self._find_suspect_texts(pa.array(texts, pa.large_string()), rows)
        self._add_hashes(texts, labels, rows)
        limit = self.sample[-1].key if len(self.sample) >= self.sample_rows else 2.0  # keys are below 1
        for position, key in enumerate(keys):
            if key < limit:
                spare = () if spare_of is None else spare_of(position)
                self.sample.append(_Sampled(key, rows[position], texts[position], labels[position], spare))
        self.sample = sorted(self.sample)[: self.sample_rows]

    def read_spare(self, source: str | Path | ArrowSource) -> None:
        """Read the spare columns of the sampled rows from a Parquet file or a table in memory."""
        self.sample.sort(key=lambda one: one.row)
        fields = read_fields(source, self.spare, [one.row for one in self.sample])
        if fields:
            self.sample = [one._replace(spare=spare) for one, spare in zip(self.sample, fields, strict=True)]

    def _find_suspect_texts(self, texts: pa.Array, rows: list[int]) -> None:
        search = TextSearch(texts)
        for suspect in SUSPECT_PATTERNS:
            found = search.find(suspect.pattern, wide=suspect.wide)
            first = self.suspect_rows.setdefault(suspect, [])
            first.extend(rows[position] for position in found[: MAX_EXAMPLES - len(first)])
            self.suspect_counts[suspect] += len(found)

    def _add_hashes(self, texts: list[str], labels: LabelsByRow, rows: list[int]) -> None:
        """Keep the hashes of texts; whenever there are too many, keep those of half of the texts."""
        of_texts = text_hashes(texts).view("<u8")[:, 0]
        hashed = {names: crc32("\x1f".join(sorted(names or ())).encode()) for names in set(labels)}
        of_labels = np.array([hashed[names] for names in labels], dtype=np.uint32)
        self.hashes.append(_keep_multiples(self.hash_step, (of_texts, of_labels, np.array(rows))))
        while sum(len(kept) for kept, _, _ in self.hashes) > self.max_hashes:
            self.hash_step *= 2
            self.hashes = [_keep_multiples(self.hash_step, arrays) for arrays in self.hashes]


def _keep_multiples(step: int, arrays: tuple[np.ndarray, ...]) -> Any:
    """Keep the entries of parallel arrays where the first one, a hash, is a multiple of `step`."""
    kept = arrays[0] % np.uint64(step) == 0
    return tuple(array[kept] for array in arrays)


def _name_labels(rows: int, names: tuple[str, ...], labels: np.ndarray, labeled_rows: np.ndarray) -> LabelsByRow:
    """Return the labels of all rows by name, from the number of rows and what `LabelReader.finish` returns."""
    by_row: list[tuple[str, ...] | None] = [None] * rows
    problem = problem_of(labels)
    if problem.exclusive:
        # One tuple for each label rather than for each row: a file may have millions of rows.
        alone = [(name,) for name in names]
        for position, label in zip(labeled_rows.tolist(), labels.tolist(), strict=True):
            by_row[position] = alone[label]
        return by_row
    for position, ids in zip(labeled_rows.tolist(), problem.label_ids(labels), strict=True):
        by_row[position] = tuple(names[label] for label in ids)
    return by_row


# From what was gathered to facts


def _conclude(
    survey: _Survey,
    count_tokens: TokenCounter | None,
    max_length: int | None,
    data: DataConfig,
    findings: list[Finding],
) -> Facts:
    survey.sample.sort(key=lambda one: one.row)  # findings name the first rows as examples
    texts = [one.text for one in survey.sample]
    counted = None if count_tokens is None else count_tokens(texts)
    found = [
        *findings,
        *_check_unknown_tokens(counted, len(texts)),
        *_check_labels(survey, data),
        *_check_texts(survey),
        *_check_equal_texts(survey),
        *_check_sample(survey, data.near_duplicates == "together"),
    ]
    return Facts(
        source=survey.source,
        rows=survey.rows,
        labels=dict(sorted(survey.label_counts.items())),
        multi_label=not survey.problem.exclusive,
        unlabelled=survey.unlabeled,
        characters=_lengths(survey.length_counts, None),
        tokens=None if counted is None else _lengths(Counter(counted.lengths.tolist()), max_length),
        scripts=script_shares(count_letters(texts)),
        sampled=len(texts),
        findings=order_findings(found),
        unknown_tokens=None if counted is None else counted.unknown_share,
    )


def _lengths(counts: Counter[int], limit: int | None) -> Lengths:
    """Summarize lengths. counts: length to number of texts."""
    values = np.array(sorted(counts) or [0])
    numbers = np.array([counts[value] for value in sorted(counts)] or [1])
    cumulative = np.cumsum(numbers)
    median, p90, p99 = (int(values[np.searchsorted(cumulative, share * cumulative[-1])]) for share in (0.5, 0.9, 0.99))
    # About 24 bins, each wider than the one before by the same factor: lengths vary over orders of magnitude.
    bin_ends = np.unique(np.geomspace(4, max(8, int(values[-1])), 24).astype(int))
    bins = np.searchsorted(bin_ends, values)
    histogram = tuple((int(end), int(numbers[bins == number].sum())) for number, end in enumerate(bin_ends))
    over = lost = None
    if limit is not None:
        over = float(numbers[values > limit].sum() / cumulative[-1])
        lost = float((np.maximum(values - limit, 0) * numbers).sum() / max(1, (values * numbers).sum()))
    return Lengths(median, p90, p99, int(values[-1]), limit, over, lost, histogram)


def _check_unknown_tokens(counted: CountedTokens | None, rows: int) -> Iterator[Finding]:
    if counted is not None and counted.unknown_warning is not None:
        yield Finding("unknown tokens", "warning", counted.unknown_warning, rows)


def _check_labels(survey: _Survey, data: DataConfig) -> Iterator[Finding]:
    if survey.unlabeled:
        message = f"{survey.unlabeled:,} of {survey.rows:,} rows have no label; --drop-unlabelled leaves them out"
        yield Finding("unlabelled", "warning", message, survey.unlabeled)
    if survey.without_labels:
        rows = "1 row has" if survey.without_labels == 1 else f"{survey.without_labels:,} rows have"
        message = f"{rows} none of the labels"
        yield Finding("no label holds", "note", message, survey.without_labels)
    for doubt in find_label_doubts(
        survey.label_counts,
        survey.problem,
        data.columns,
        rows=survey.rows - survey.unlabeled,
        one_label_rows=survey.one_label_rows,
    ):
        yield Finding(doubt.kind, "warning", doubt.sentence, doubt.count)
    dropped = {name: count for name, count in sorted(survey.label_counts.items()) if count < (data.drop_rare or 0)}
    if dropped:
        yield Finding("dropped labels", "note", f"{describe_dropped(dropped)} (--drop-rare)", len(dropped))
    counts = {name: count for name, count in survey.label_counts.items() if name not in dropped}
    rare = [name for name, count in sorted(counts.items()) if count < MIN_ROWS_PER_LABEL]
    if rare:
        message = (
            f"{_labels_have(rare)} fewer than {MIN_ROWS_PER_LABEL} rows, too few to learn from: {list_names(rare)}"
        )
        yield Finding("rare labels", "warning", message, len(rare))
    yield from gather_alike_labels(find_alike_labels(list(survey.label_counts)))
    yield from _check_validation_share(survey, data)


def _check_validation_share(survey: _Survey, data: DataConfig) -> Iterator[Finding]:
    if isinstance(data.validation, str) or data.folds or not survey.label_counts:
        return
    small = [
        name for name, count in sorted(survey.label_counts.items()) if count * data.validation < MIN_VALIDATION_ROWS
    ]
    if small:
        message = (
            f"{_labels_have(small)} fewer than {MIN_VALIDATION_ROWS} rows in a validation share of "
            f"{data.validation:g} ({list_names(small)})"
        )
        uses_folds = survey.rows <= MAX_ROWS_FOR_FOLDS and data.folds is None
        # the same rule as in `splits.divide`
        consequence = (
            f"a run uses {DEFAULT_FOLDS} folds instead"
            if uses_folds
            else f"--folds {DEFAULT_FOLDS} would validate on all rows"
        )
        yield Finding("small validation", "note", f"{message}; {consequence}", len(small))


def _check_texts(survey: _Survey) -> Iterator[Finding]:
    for suspect, count in survey.suspect_counts.items():
        if count:
            serious = suspect.damaged or count > _SERIOUS_SHARE * survey.rows
            message = "1 text contains" if count == 1 else f"{count:,} texts contain"
            rows = tuple(survey.suspect_rows[suspect])
            yield Finding("texts", "warning" if serious else "note", f"{message} {suspect.description}", count, rows)


def _check_equal_texts(survey: _Survey) -> Iterator[Finding]:
    hashes, labels, rows = (np.concatenate(column) for column in zip(*survey.hashes, strict=True))
    order = np.lexsort((rows, hashes))
    hashes, labels, rows = hashes[order], labels[order], rows[order]
    # Runs of equal hashes are the groups of equal texts.
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(hashes)))
    repeated = int((sizes - 1).sum())
    estimated = "" if survey.hash_step == 1 else f" (estimated from 1 text in {survey.hash_step})"
    if repeated:
        count = repeated * survey.hash_step
        repeat = "1 row repeats" if count == 1 else f"{count:,} rows repeat"
        message = f"{repeat} the text of another row{estimated}; splits keep such rows together"
        first = rows[starts[sizes > 1] + 1]
        yield Finding("equal texts", "note", message, count, tuple(first[:MAX_EXAMPLES].tolist()))
    differing = np.maximum.reduceat(labels, starts) != np.minimum.reduceat(labels, starts) if len(starts) else starts
    contradicting = np.flatnonzero(differing)
    if len(contradicting):
        count = int(sizes[contradicting].sum()) * survey.hash_step
        message = f"{count:,} rows have the same text as a row with another label{estimated}; check which is right"
        examples = [int(row) for group in contradicting[:2] for row in rows[starts[group] : starts[group] + 2]]
        yield Finding("contradicting labels", "warning", message, count, tuple(examples))


def _check_sample(survey: _Survey, near_together: bool) -> Iterator[Finding]:
    sample = survey.sample
    within = "" if len(sample) == survey.rows else f" among {len(sample):,} sampled rows"
    normalized = np.array([normalize(one.text) for one in sample], dtype=object)
    _, first, text_ids = np.unique(normalized, return_index=True, return_inverse=True)
    texts, rows = [one.text for one in sample], [one.row for one in sample]
    yield from _check_near_texts(texts, rows, first, within, near_together)
    labeled = [position for position, one in enumerate(sample) if one.labels is not None]
    names = sorted(survey.label_counts)
    # A single class is not predicted; a single label of several possible ones is there or not.
    if not labeled or len(names) < (2 if survey.problem.exclusive else 1):
        return
    chosen = [sample[position] for position in labeled]
    texts, rows = [one.text for one in chosen], [one.row for one in chosen]
    labels = survey.problem.encode([one.labels or () for one in chosen], names)
    yield from gather_named_labels(find_named_labels(texts, labels, names), rows, within)
    yield from gather_revealing_words(find_label_clues(texts, labels, names), rows, within)
    columns = tuple(
        (name, tuple(one.spare[place] for one in chosen))
        for place, name in enumerate(survey.spare)
        if all(one.spare for one in chosen)
    )
    probed = LabeledSample(
        tuple(texts), labels, tuple(names), survey.problem, np.array(rows), text_ids[labeled], columns
    )
    leaks = find_leaks(probed)
    if is_sorted_by_class(survey.source):  # the order says nothing where each class has a folder of its own
        leaks = [leak for leak in leaks if leak.kind != POSITION]
    yield from gather_leaks(leaks, rows, names, within)


def _check_near_texts(
    texts: list[str], rows: list[int], distinct: np.ndarray, within: str, near_together: bool
) -> Iterator[Finding]:
    """Report nearly equal texts. distinct: the position of one row of each different text."""
    if not texts:
        return
    groups = duplicate_groups([texts[position] for position in distinct])
    near = np.flatnonzero(np.bincount(groups)[groups] > 1)
    if len(near):
        first = sorted(rows[distinct[position]] for position in near)[:MAX_EXAMPLES]
        largest = int(np.bincount(groups).max())
        if near_together and 2 * largest > len(groups):
            message = (
                f"{largest:,} of {len(groups):,} different texts{within} are one group of nearly equal texts, which "
                "splits keep together; if they are made from a template, --near-duplicates apart lets splits part them"
            )
            yield Finding("template", "warning", message, largest)
        consequence = "splits keep them together" if near_together else "splits may part them (--near-duplicates apart)"
        message = f"{len(near):,} different texts{within} are nearly equal to another text; {consequence}"
        yield Finding("near duplicates", "note", message, len(near), tuple(first))


def _find_shared_texts(source: Any, data: DataConfig, others: Mapping[str, Any]) -> list[Finding]:
    """Report the texts that a training file shares with the rows that are given for validation and test."""
    given = {name: path for name in ("validation", "test") if isinstance(path := getattr(data, name), str)}
    given |= others
    if not given:
        return []
    train = drop_rare_labels(read_labeled(source, data), data.drop_rare)
    findings: list[Finding] = []
    for name, path in given.items():
        other = read_part(path, data, train)
        findings += _check_overlap(train, other, name)
    return findings


def _check_overlap(train: Dataset, other: Dataset, name: str) -> Iterator[Finding]:
    equal = find_overlap(train.joined_texts, other.joined_texts, near=False)[1]
    near = find_overlap(train.joined_texts, other.joined_texts, near=True)[1]
    if len(equal):
        message = (
            f"{len(equal):,} of {len(other):,} {name} rows have a text that is also in the training file; a run "
            "refuses this unless you pass --drop-overlap or --allow-overlap"
        )
        yield Finding(f"overlap with {name}", "warning", message, len(equal), _first_rows(other, equal))
    only_near = np.setdiff1d(near, equal)
    if len(only_near):
        message = f"{len(only_near):,} more {name} rows are nearly equal to a training text"
        yield Finding(f"near overlap with {name}", "warning", message, len(only_near), _first_rows(other, only_near))


def _first_rows(dataset: Dataset, positions: np.ndarray) -> tuple[int, ...]:
    return tuple(dataset.rows[positions[:MAX_EXAMPLES]].tolist())


def _labels_have(names: list[str]) -> str:
    return "one label has" if len(names) == 1 else f"{len(names):,} labels have"
