"""A seeded, stratified partition of rows in two, by whole groups.

Every class's held rows are a whole number near its share, and these numbers add up to the share of all rows
(largest remainder). Groups come in seeded order and are held while that brings the classes nearer to their
numbers; then each class that would stand on one side only gets a group moved. scikit-learn's
StratifiedGroupKFold knows shares of 1/k alone and promises no class a place on both sides. With several
labels a row the library iterative-stratification holds groups (each by the labels that any of its rows has): its
label shares strayed 0.001 from what was asked on goemotions and jigsaw, ours 0.003 and 0.008. There, groups that
bind classes together can make a place on both sides for each impossible.

Which rows train, which choose, which score.

Shares of the training file are split by seed, stratified, with equal and near-equal texts on one side. Where a
validation share would be too small to choose by, the training rows choose for each other, fold by fold. Files that are
given are compared with it: equal texts on two sides are refused with their count, unless the recipe says otherwise.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.config.problems import Problem
from fullbake.config.sections import DataConfig
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import Dataset, check_trainable, read_dataset
from fullbake.data.duplicates import duplicate_groups, find_overlap
from fullbake.data.labels import count_labels

Ids = npt.NDArray[np.int64]

_ROUNDS: Final = 3
"""Passes of mending; with one class a group the first one mends all."""


def split(groups: Ids, labels: npt.NDArray[np.integer], share: float, seed: int) -> tuple[Ids, Ids]:
    """(kept, held): sorted row positions; held has about `share` of the rows, of each class too.

    groups: (rows,) numbers; rows of one group stay together. labels: (rows,) class numbers, or (rows,
    classes) of 0 and 1. A class of two groups or more has a row on each side, as far as groups of several
    classes let it; a class within one group stays in `kept`, unless other classes of that group need it held.
    Same arguments, same answer.

    Raises DataError where share is not between 0 and 1, or all rows are one group.
    """
    if not 0 < share < 1:
        raise DataError(
            "a share of the rows has to be between 0 and 1",
            expected="such as 0.2",
            got=f"{share:g}",
            remedy="Give another share, or a file.",
        )
    _, members = np.unique(groups, return_inverse=True)
    if not len(members) or members.max() == 0:
        raise DataError(
            "the rows cannot be split",
            expected="two or more different texts",
            got=f"{len(members):,} rows that are all equal or nearly equal",
            remedy="Add rows, or give files for validation and test.",
        )
    random = np.random.Generator(np.random.PCG64(seed))
    state = _start(*_count(members, labels), share, random)
    if labels.ndim == 2:
        _fill_by_library(state, share, seed)
    if not state.held.any() or state.held.all():  # one label a row, or too few groups for the library
        state.held[:], state.now[:] = False, 0
        _fill(state, random)
    _mend(state)
    held = state.held[members]
    return np.flatnonzero(~held), np.flatnonzero(held)


def make_folds(groups: Ids, labels: npt.NDArray[np.integer], count: int, seed: int) -> list[Ids]:
    """The sorted row positions that each of `count` folds holds out; every row in one of them.

    groups, labels, seed: as for `split`, which is taken again and again: of what is left, 1 over the folds left. A
    class of as many groups as folds or more has a row in each, as far as groups of several classes let it. Raises
    DataError where there are fewer groups than folds.
    """
    held, left = [], np.arange(len(groups))
    if len(np.unique(groups)) < count:
        raise DataError(
            "there are fewer different texts than folds",
            expected=f"{count} or more",
            got=f"{len(np.unique(groups))}",
            remedy="Lower --folds, or add rows.",
        )
    for number in range(count, 1, -1):
        out = left[split(groups[left], labels[left], 1 / number, seed)[1]]
        names, sizes = np.unique(groups[left], return_counts=True)
        taken = np.unique(groups[out])[: len(names) - (number - 1)]  # the other folds need a group each
        if not len(taken):  # every group is larger than a fold should be
            taken = names[[sizes.argmin()]]
        out = left[np.isin(groups[left], taken)]
        held.append(out)
        left = np.setdiff1d(left, out)
    return [*held, left]


@dataclass
class _State:
    """What is held so far.

    owners, classes, rows: (entries,) each group's rows of each class it has, group after group; starts:
    (groups + 1,) where each group's entries begin. totals, wanted, now: (classes,) rows in all, to be held,
    held. held: (groups,).
    """

    owners: Ids
    classes: Ids
    rows: Ids
    starts: Ids
    totals: Ids
    wanted: Ids
    now: Ids
    held: npt.NDArray[np.bool_]

    def of(self, group: int) -> tuple[Ids, Ids]:
        """(classes, rows of each) in a group."""
        part = slice(self.starts[group], self.starts[group + 1])
        return self.classes[part], self.rows[part]

    def turn(self, group: int) -> None:
        """Move a group to the other side."""
        classes, rows = self.of(group)
        self.now[classes] += rows * (-1 if self.held[group] else 1)
        self.held[group] = not self.held[group]


def _count(members: Ids, labels: npt.NDArray[np.integer]) -> tuple[Ids, Ids, Ids]:
    """(groups, classes, rows) of each pair of group and class that occurs, sorted by group."""
    if labels.ndim == 1:
        at, codes = np.arange(len(labels)), np.unique(labels, return_inverse=True)[1]
    else:
        bare = labels.sum(axis=1, keepdims=True) == 0  # rows of no class get one of their own, to be split as well
        at, codes = np.nonzero(np.concatenate([labels, bare], axis=1))
    pairs, rows = np.unique(np.stack([members[at], codes]), axis=1, return_counts=True)
    return pairs[0], pairs[1], rows


def _start(owners: Ids, classes: Ids, rows: Ids, share: float, random: np.random.Generator) -> _State:
    starts = np.searchsorted(owners, np.arange(owners[-1] + 2))
    totals = np.bincount(classes, weights=rows).astype(np.int64)
    spread = np.bincount(classes) > 1
    wanted = np.where(spread, _whole_numbers(totals * share, random), 0)
    wanted = np.where(spread, np.clip(wanted, 1, totals - 1), wanted)
    held = np.zeros(len(starts) - 1, dtype=bool)
    return _State(owners, classes, rows, starts, totals, wanted, np.zeros_like(totals), held)


def _whole_numbers(exact: npt.NDArray[np.floating], random: np.random.Generator) -> Ids:
    """Rounded so that the sum is the rounded sum: the largest remainders go up, equal ones by lot."""
    floors = np.floor(exact)
    order = np.lexsort((random.permutation(len(exact)), floors - exact))
    floors[order[: round(exact.sum() - floors.sum())]] += 1
    numbers: Ids = floors.astype(np.int64)
    return numbers


def _fill(state: _State, random: np.random.Generator) -> None:
    for group in random.permutation(len(state.held)).tolist():
        classes, rows = state.of(group)
        if (rows * (2 * (state.now[classes] - state.wanted[classes]) + rows)).sum() < 0:
            state.turn(group)


def _fill_by_library(state: _State, share: float, seed: int) -> None:
    """Hold groups by iterative stratification of their labels (Sechidis, Tsoumakas and Vlahavas 2011)."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    groups = len(state.held)
    marks = np.zeros((groups, len(state.totals)), dtype=np.int64)
    marks[state.owners, state.classes] = 1
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    for group in next(splitter.split(marks, marks))[1].tolist():
        state.turn(group)


def _mend(state: _State) -> None:
    """Give every class that could stand on both sides a group on the side where it has none."""
    for _ in range(_ROUNDS):
        lacking = np.flatnonzero(_one_sided(state))
        if not len(lacking):
            return
        for kind in lacking.tolist():
            groups = state.owners[state.classes == kind]
            if _one_sided(state)[kind]:
                state.turn(min(groups.tolist(), key=lambda group: _cost_of_turning(state, group)))


def _one_sided(state: _State) -> npt.NDArray[np.bool_]:
    lacking: npt.NDArray[np.bool_] = (state.wanted > 0) & ((state.now == 0) | (state.now == state.totals))
    return lacking


def _cost_of_turning(state: _State, group: int) -> tuple[int, int]:
    """(classes on one side only, squared distance from the wanted numbers) if the group changed sides."""
    state.turn(group)
    cost = int(_one_sided(state).sum()), int(((state.now - state.wanted) ** 2).sum())
    state.turn(group)
    return cost


MIN_VALIDATION_ROWS: Final = 5
"""Rows of each class that a validation share has to hold to choose by."""

DEFAULT_FOLDS: Final = 5

MAX_ROWS_FOR_FOLDS: Final = 5000
"""Above it folds are not taken unasked: they cost as many trainings, and only some rare class is in need of them."""


@dataclass(frozen=True)
class Part:
    """Some rows of a source. indices: int64, sorted, into `source`."""

    source: Dataset
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def joined_texts(self) -> pa.ChunkedArray:
        """What the part's rows are compared by: their texts, both of a pair in one."""
        return self.source.joined_texts.take(pa.array(self.indices))

    @property
    def labels(self) -> np.ndarray:
        """The part's labels: ids int64 (rows,), or 0 and 1 as uint8 (rows, labels)."""
        assert self.source.labels is not None
        labels: np.ndarray = self.source.labels[self.indices]
        return labels

    @property
    def problem(self) -> Problem:
        """The kind of problem that the labels pose."""
        return self.source.problem

    @property
    def rows(self) -> np.ndarray:
        """Row numbers in the source file, from 1."""
        rows: np.ndarray = self.source.rows[self.indices]
        return rows

    def fingerprint(self) -> str:
        """sha256 hex over the part's texts, labels, label names and places in its source."""
        return fingerprint(self.source.fingerprint(), self.indices)

    def without(self, positions: np.ndarray) -> "Part":
        """This part less the rows at these positions within it."""
        return replace(self, indices=np.delete(self.indices, positions))


@dataclass(frozen=True)
class Parts:
    """The rows of a run.

    validation: None where folds choose. folds: the positions within `train` that each fold holds out, every position in
    one. groups: which rows of the training file are equal or nearly so (`duplicate_groups`), None where no share of it
    was split off. overlap_allowed: training or validation rows whose text stands in a later part, by permission.
    """

    train: Part
    validation: Part | None
    test: Part | None
    folds: tuple[np.ndarray, ...] = ()
    groups: np.ndarray | None = None
    overlap_allowed: int = 0
    overlap_dropped: int = 0

    @property
    def selection_part(self) -> Part:
        """The rows whose scores choose: validation, or under folds the training rows, each scored by a model that did
        not see it."""
        return self.train if self.validation is None else self.validation

    def named(self) -> dict[str, Part]:
        """The parts there are, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def divide(data: Dataset, config: DataConfig) -> Parts:
    """Parts by the recipe: shares of `data`, or files of their own. Raises DataError where a part cannot be had."""
    check_trainable(data)
    groups = duplicate_groups(data.joined_texts) if not _all_given(config) else None
    whole = Part(data, np.arange(len(data)))
    rest, test = _part(whole, config.test, groups, config, 1.0)
    left = len(rest) / len(whole)
    count = _fold_count(rest, config, left)
    if count:
        assert groups is not None
        if config.folds is None:  # unasked, as many as there can be
            count = min(count, len(np.unique(groups[rest.indices])))
        held = tuple(make_folds(groups[rest.indices], rest.labels, count, config.split_seed))
        return _without_overlap(Parts(rest, None, test, held, groups), config)
    train, validation = _part(rest, config.validation, groups, config, left)
    return _without_overlap(Parts(train, validation, test, groups=groups), config)


def divide_into_test_folds(data: Dataset, config: DataConfig, count: int) -> list[Parts]:
    """`count` times parts: each time another fold of the rows is test, and of the others a share validates.

    Raises DataError where a class has fewer different texts than there are folds.
    """
    check_trainable(data)
    groups, whole = duplicate_groups(data.joined_texts), Part(data, np.arange(len(data)))
    _check_folds(whole, groups, count)
    rotated = []
    for held in make_folds(groups, whole.labels, count, config.split_seed):
        test = replace(whole, indices=held)
        rest, left = whole.without(held), 1 - len(held) / len(whole)
        train, validation = _part(rest, config.validation, groups, config, left)
        rotated.append(_without_overlap(Parts(train, validation, test, groups=groups), config))
    return rotated


def _check_folds(whole: Part, groups: np.ndarray, count: int) -> None:
    names = whole.source.label_names
    marks = whole.labels == 1 if whole.labels.ndim == 2 else whole.labels[:, None] == np.arange(len(names))
    texts = [len(np.unique(groups[own])) for own in marks.T]
    rarest = int(np.argmin(texts))
    if texts[rarest] < count:
        raise DataError(
            f"too few rows for {count} folds",
            where=whole.source.source,
            expected=f"{count} different texts or more of each label",
            got=f"{texts[rarest]} of {names[rarest]!r}",
            remedy=f"Pass --folds {texts[rarest]} or less, or leave --folds out."
            if texts[rarest] > 1
            else "Leave --folds out, or add rows.",
        )


def _fold_count(rest: Part, config: DataConfig, left: float) -> int:
    """How many folds choose; 0 where a validation part does. left: share of the file that is in `rest`."""
    if config.folds is not None or isinstance(config.validation, str):
        return config.folds or 0
    rarest = int(count_labels(rest.labels, len(rest.source.label_names)).min())
    if round(rarest * config.validation / left) >= MIN_VALIDATION_ROWS:
        return 0
    expected = f"a validation share of {config.validation:g} would hold under {MIN_VALIDATION_ROWS} rows of a class"
    if len(rest) > MAX_ROWS_FOR_FOLDS:
        warn(f"{expected}; --folds {DEFAULT_FOLDS} would choose by all {len(rest):,} rows, at as many trainings more")
        return 0
    say(f"{expected}: {DEFAULT_FOLDS} folds of the training rows choose instead (--folds 0 for a single split)")
    return DEFAULT_FOLDS


def _all_given(config: DataConfig) -> bool:
    return isinstance(config.validation, str) and not isinstance(config.test, float)


def _part(
    whole: Part, wanted: float | str | None, groups: np.ndarray | None, config: DataConfig, left: float
) -> tuple[Part, Part | None]:
    """(what stays, what was wanted): a share of the training file, or a file. left: share of the file that is in
    `whole`."""
    if wanted is None:
        return whole, None
    if isinstance(wanted, str):
        return whole, _given(wanted, whole.source, config)
    assert groups is not None
    if wanted >= left:
        raise DataError(
            "the shares of validation and test leave nothing to train on",
            expected=f"validation below {left:.2f}",
            got=f"{wanted:g}",
            remedy="Lower --validation or --test.",
        )
    kept, held = split(groups[whole.indices], whole.labels, wanted / left, config.split_seed)
    return replace(whole, indices=whole.indices[kept]), replace(whole, indices=whole.indices[held])


def read_labeled(source: str | Path, config: DataConfig, *, label_names: tuple[str, ...] | None = None) -> Dataset:
    """A file or hub data set with its labels, by the recipe's `data` section; label_names: those that are allowed."""
    columns = config.columns
    return read_dataset(
        source,
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        labels=columns.labels,
        label_separator=columns.label_separator,
        label_names=label_names,
        drop_unlabelled=config.drop_unlabelled,
        delimiter=config.delimiter,
        encoding=config.encoding,
    )


def _given(source: str, train: Dataset, config: DataConfig) -> Part:
    data = read_labeled(source, config, label_names=train.label_names)
    return Part(data, np.arange(len(data)))


def _without_overlap(parts: Parts, config: DataConfig) -> Parts:
    """Deal with equal texts across parts: the rows of the earlier part go, stay by permission, or the run is
    refused."""
    later = {"train": (parts.validation, parts.test), "validation": (parts.test,)}
    found = {
        name: _union([_shared(part, other) for other in later[name]])
        for name, part in parts.named().items()
        if name in later
    }
    count = sum(map(len, found.values()))
    if not count or config.allow_overlap:
        return replace(parts, overlap_allowed=count)
    if not config.drop_overlap:
        raise _overlapping(parts, found)
    say(f"left out {count:,} rows whose text also stands in a later part (--drop-overlap)")
    held = _rows_after_holding_out(parts.folds, found["train"], len(parts.train))
    kept = replace(parts, train=parts.train.without(found["train"]), folds=held, overlap_dropped=count)
    if kept.validation is None:
        return kept
    return replace(kept, validation=kept.validation.without(found["validation"]))


def _union(positions: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(positions))


def _rows_after_holding_out(held: tuple[np.ndarray, ...], gone: np.ndarray, rows: int) -> tuple[np.ndarray, ...]:
    """The folds' positions once those that are `gone` have been left out."""
    place = np.cumsum(~np.isin(np.arange(rows), gone)) - 1
    return tuple(place[np.setdiff1d(fold, gone)] for fold in held)


def _shared(part: Part, other: Part | None) -> np.ndarray:
    """Positions within `part` of the texts that equal one of `other`."""
    if other is None or other.source is part.source:  # shares of one file: split by groups of equal texts
        return np.empty(0, dtype=np.int64)
    return find_overlap(part.joined_texts, other.joined_texts, near=False)[0]


def _overlapping(parts: Parts, found: dict[str, np.ndarray]) -> DataError:
    told = [
        f"{len(positions):,} of {len(part):,} {'training' if name == 'train' else name} rows "
        f"(row {', '.join(map(str, part.rows[positions[:3]]))}{', ...' if len(positions) > 3 else ''} of "
        f"{part.source.source})"
        for name, positions in found.items()
        for part in [parts.named()[name]]
        if len(positions)
    ]
    return DataError(
        "texts stand on both sides of the splits that were given",
        expected="no text in two parts (compared after NFKC, case folding and whitespace collapsing)",
        got=f"{' and '.join(told)} whose text also stands in a part that chooses or scores",
        remedy="Pass --drop-overlap to leave those rows out, or --allow-overlap to keep them and have every report "
        "say so.",
    )
