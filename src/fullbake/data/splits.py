"""Splits the rows into training, validation and test parts, or folds; equal and near-equal texts stay on one side.

Shares of the training file are split by a seed, stratified by class. Where a validation share would be too small,
folds of the training rows take its place. Texts that a given validation or test file shares with training are an error
with their count, unless the recipe allows or drops them.

`split` assigns whole groups of rows. It sets for each class a whole number of held-out rows (largest remainder), holds
groups in a seeded order while that brings the classes nearer to their numbers, then repairs classes that are on one
side only. scikit-learn's StratifiedGroupKFold knows shares of 1/k only and does not promise each class a place on both
sides. For several labels a row, the library iterative-stratification chooses the groups: there the shares of labels
were off by at most 0.001 on goemotions and jigsaw, with our own method by 0.003 and 0.008.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.config.problems import Problem, problem_of
from fullbake.config.sections import DataConfig
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import duplicate_groups, find_overlap
from fullbake.data.grouping import (
    bind_rows,
    divisible_labels,
    group_texts,
    loosen_remedy,
    texts_may_cross,
    unsplittable_error,
)
from fullbake.data.label_checks import check_read_as_configured, check_trainable, drop_rare_labels
from fullbake.data.labeled_files import read_part
from fullbake.data.labels import count_labels

Ids = npt.NDArray[np.int64]

MIN_VALIDATION_ROWS: Final = 5
"""Rows of each class that a validation part needs; with fewer, folds take its place."""

DEFAULT_FOLDS: Final = 5

MAX_ROWS_FOR_FOLDS: Final = 5000
"""With more training rows, folds are used only on request: each fold costs a training, and only some rare class needs
them."""

_REPAIR_PASSES: Final = 3
"""If each group has one class, the first pass repairs everything."""


@dataclass(frozen=True)
class Part:
    """Some rows of a data set."""

    source: Dataset
    """The data set that the rows belong to."""

    indices: np.ndarray
    """(rows,) sorted positions in `source`, int64."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def joined_texts(self) -> pa.ChunkedArray:
        """(rows,) what rows are compared by: the texts, or the two texts of each pair joined into one."""
        return self.source.joined_texts.take(pa.array(self.indices))

    @property
    def labels(self) -> np.ndarray:
        """Class ids int64 (rows,), or a label matrix of 0 and 1, uint8 (rows, labels)."""
        assert self.source.labels is not None
        labels: np.ndarray = self.source.labels[self.indices]
        return labels

    @property
    def problem(self) -> Problem:
        """The kind of problem that the labels pose."""
        return self.source.problem

    @property
    def rows(self) -> np.ndarray:
        """(rows,) row numbers in the source file, from 1."""
        rows: np.ndarray = self.source.rows[self.indices]
        return rows

    @property
    def group_ids(self) -> np.ndarray | None:
        """(rows,) the number of each row's group, of the group column; None without one."""
        groups = self.source.group_ids
        return None if groups is None else groups[self.indices]

    def fingerprint(self) -> str:
        """Return a sha256, in hex, of the whole source (texts, labels, label names) and the positions in it."""
        return fingerprint(self.source.fingerprint(), self.indices)

    def without(self, positions: np.ndarray) -> "Part":
        """Return this part without the rows at these positions in it."""
        return replace(self, indices=np.delete(self.indices, positions))


@dataclass(frozen=True)
class Parts:
    """The rows that a run trains on, selects by and is tested on."""

    train: Part
    """The rows that the weights are fitted to."""

    validation: Part | None
    """The rows that select the epoch and the learning rate; None where folds of the training rows do."""

    test: Part | None
    """The rows that are scored once, at the end."""

    folds: tuple[np.ndarray, ...] = ()
    """For each fold the positions in `train` that it holds out; each position is in one fold."""

    groups: np.ndarray | None = None
    """(rows of the training file,) the group of equal or near-equal texts of each row (`duplicate_groups`); None where
    no share of the file was split off."""

    overlap_allowed: int = 0
    """Training and validation rows that stay although their text is also in a later part."""

    overlap_dropped: int = 0
    """Training and validation rows that were left out for that reason."""

    near_overlap: int = 0
    """Validation and test rows (under folds: training rows of different folds) whose text is nearly equal to one that a
    network trained on, where the recipe lets near duplicates be apart."""

    @property
    def selection_part(self) -> Part:
        """The rows whose scores select: validation; under folds the training rows, each scored by a model that was not
        trained on it."""
        return self.train if self.validation is None else self.validation

    def by_name(self) -> dict[str, Part]:
        """Return the parts that exist, by "train", "validation" and "test"."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def count_groups(part: Part) -> int | None:
    """Return how many groups of the group column the rows are in; None without such a column."""
    groups = part.group_ids
    return None if groups is None else len(np.unique(groups))


def divide(data: Dataset, config: DataConfig, *, max_rows_for_folds: int = MAX_ROWS_FOR_FOLDS) -> Parts:
    """Divide a data set into the parts of a run.

    Args:
        data: the training file, with labels.
        config: the recipe's `data` section: `validation` and `test` are shares of `data`, or files.
        max_rows_for_folds: with more rows, a validation share stays even if it is too small; a warning says so.

    Returns:
        The parts. Files that `config` names are read.

    Raises:
        DataError: the labels cannot be trained on, a part would be empty, or a text is in two parts and `config`
            neither allows nor drops it.
    """
    check_read_as_configured(data, config)
    data = drop_rare_labels(data, config.drop_rare)
    check_trainable(data, shares=not isinstance(config.validation, str))
    texts = None if _only_files_given(config) else group_texts(data, config)
    groups = None if texts is None else bind_rows(data, texts, config)
    whole = Part(data, np.arange(len(data)))
    rest, test = _take_part(whole, config.test, groups, config, 1.0)
    share_left = len(rest) / len(whole)
    count = _count_folds(rest, config, share_left, max_rows_for_folds)
    if count:
        assert groups is not None
        if config.folds is None:  # the user did not ask for folds: make as many as there are different texts
            count = max(2, min(count, len(np.unique(groups[rest.indices]))))
        _check_divisible(rest, groups, config)
        held = tuple(_fold_rows(rest, groups, count, config))
        return _resolve_overlap(Parts(rest, None, test, held, texts), config)
    train, validation = _take_part(rest, config.validation, groups, config, share_left)
    return _resolve_overlap(Parts(train, validation, test, groups=texts), config)


def divide_into_test_folds(data: Dataset, config: DataConfig, count: int) -> list[Parts]:
    """Divide a data set `count` times, each time with another fold of the rows as test (cross-validation).

    Args:
        data: the training file, with labels.
        config: the recipe's `data` section; its validation share is taken from the rows outside the test fold.
        count: the number of folds.

    Raises:
        DataError: a class has fewer different texts than there are folds, or what `divide` raises.
    """
    check_read_as_configured(data, config)
    data = drop_rare_labels(data, config.drop_rare)
    check_trainable(data)
    texts, whole = group_texts(data, config), Part(data, np.arange(len(data)))
    groups = bind_rows(data, texts, config)
    _check_divisible(whole, groups, config)
    _check_folds(whole, groups, count, config)
    divided = []
    for held in _fold_rows(whole, groups, count, config):
        test = replace(whole, indices=held)
        rest, share_left = whole.without(held), 1 - len(held) / len(whole)
        train, validation = _take_part(rest, config.validation, groups, config, share_left)
        divided.append(_resolve_overlap(Parts(train, validation, test, groups=texts), config))
    return divided


def split(groups: Ids, labels: npt.NDArray[np.integer], share: float, seed: int) -> tuple[Ids, Ids]:
    """Split rows in two, stratified by class, without splitting a group.

    A class of two groups or more has a row on each side, as far as groups of several classes allow it. A class within
    one group stays in the first side, unless other classes of that group need it in the second. The same arguments
    give the same split.

    Args:
        groups: (rows,) the group of each row.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        share: how much of all rows, and of each class, the second side should have; between 0 and 1.
        seed: of the random order of the groups.

    Returns:
        The sorted positions of the rows on the first side (1 - share), and on the second.

    Raises:
        DataError: the share is not between 0 and 1, or all rows are one group.
    """
    if not 0 < share < 1:
        raise DataError(
            "a share of the rows has to be between 0 and 1",
            expected="such as 0.2",
            got=f"{share:g}",
            remedy="Pass another share, or a file, by --validation or --test.",
        )
    _, group_of_row = np.unique(groups, return_inverse=True)
    if not len(group_of_row) or group_of_row.max() == 0:
        raise DataError(
            "the rows cannot be split",
            expected="two or more different texts",
            got=f"{len(group_of_row):,} rows that are all equal or nearly equal",
            remedy="Pass --near-duplicates apart, which keeps only equal texts together, or files by --validation and "
            "--test.",
        )
    random = np.random.Generator(np.random.PCG64(seed))
    partition = _new_partition(*_count_entries(group_of_row, labels), share, random)
    if not problem_of(labels).exclusive:
        _hold_by_library(partition, share, seed)
    if not partition.held.any() or partition.held.all():  # one label a row, or too few groups for the library
        partition.held[:], partition.held_rows[:] = False, 0
        _hold_greedily(partition, random)
    _repair(partition)
    held = partition.held[group_of_row]
    return np.flatnonzero(~held), np.flatnonzero(held)


def make_folds(groups: Ids, labels: npt.NDArray[np.integer], count: int, seed: int) -> list[Ids]:
    """Divide rows into folds, stratified by class, without splitting a group.

    A class of at least as many groups as folds has a row in each fold, as far as groups of several classes allow it.

    Args:
        groups: (rows,) the group of each row.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        count: the number of folds.
        seed: of the random order of the groups.

    Returns:
        The sorted row positions of each fold; each row is in one of them.

    Raises:
        DataError: there are fewer groups than folds.
    """
    held, left = [], np.arange(len(groups))
    if len(np.unique(groups)) < count:
        raise DataError(
            "there are fewer different texts than folds",
            expected=f"{count} or more",
            got=f"{len(np.unique(groups))}",
            remedy="Lower --folds, or pass --near-duplicates apart, which keeps only equal texts together.",
        )
    # Take one fold after another from the rows that are left.
    for folds_left in range(count, 1, -1):
        fold = left[split(groups[left], labels[left], 1 / folds_left, seed)[1]]
        names, sizes = np.unique(groups[left], return_counts=True)
        taken = np.unique(groups[fold])[: len(names) - (folds_left - 1)]  # each other fold needs a group too
        if not len(taken):  # every group is larger than a fold should be
            taken = names[[sizes.argmin()]]
        fold = left[np.isin(groups[left], taken)]
        held.append(fold)
        left = np.setdiff1d(left, fold)
    return [*held, left]


# How a share of the rows is chosen


@dataclass
class _Partition:
    """Which groups are held out so far. An entry is a pair of a group and a class that it has."""

    groups: Ids
    """(entries,) sorted."""

    classes: Ids
    """(entries,)."""

    rows: Ids
    """(entries,) the number of the group's rows that have the class."""

    starts: Ids
    """(groups + 1,) where the entries of each group start."""

    totals: Ids
    """(classes,) rows of each class."""

    wanted: Ids
    """(classes,) rows of each class to hold out; 0 for a class within one group."""

    held_rows: Ids
    """(classes,) rows of each class that are held out."""

    held: npt.NDArray[np.bool_]
    """(groups,) whether each group is held out."""

    def entries(self, group: int) -> tuple[Ids, Ids]:
        """Return (classes, rows of each) of a group."""
        part = slice(self.starts[group], self.starts[group + 1])
        return self.classes[part], self.rows[part]

    def move(self, group: int) -> None:
        """Move a group to the other side."""
        classes, rows = self.entries(group)
        self.held_rows[classes] += rows * (-1 if self.held[group] else 1)
        self.held[group] = not self.held[group]

    def one_sided(self) -> npt.NDArray[np.bool_]:
        """Return (classes,) whether a class that should be on both sides is on one only."""
        lacking: npt.NDArray[np.bool_] = (self.wanted > 0) & ((self.held_rows == 0) | (self.held_rows == self.totals))
        return lacking

    def cost_of_moving(self, group: int) -> tuple[int, int]:
        """Return (one-sided classes, squared distance from the wanted numbers) after moving a group."""
        self.move(group)
        cost = int(self.one_sided().sum()), int(((self.held_rows - self.wanted) ** 2).sum())
        self.move(group)
        return cost


def _count_entries(group_of_row: Ids, labels: npt.NDArray[np.integer]) -> tuple[Ids, Ids, Ids]:
    """Return (groups, classes, rows) of each entry, sorted by group. Rows without a label count as a class."""
    rows, classes = problem_of(labels).strata(labels)
    pairs, counts = np.unique(np.stack([group_of_row[rows], classes]), axis=1, return_counts=True)
    return pairs[0], pairs[1], counts


def _new_partition(groups: Ids, classes: Ids, rows: Ids, share: float, random: np.random.Generator) -> _Partition:
    """Return a partition that holds out nothing yet, with the number of rows wanted of each class."""
    starts = np.searchsorted(groups, np.arange(groups[-1] + 2))
    totals = np.bincount(classes, weights=rows).astype(np.int64)
    divisible = np.bincount(classes) > 1  # in more than one group
    wanted = np.where(divisible, _round_to_sum(totals * share, random), 0)
    wanted = np.where(divisible, np.clip(wanted, 1, totals - 1), wanted)
    held = np.zeros(len(starts) - 1, dtype=bool)
    return _Partition(groups, classes, rows, starts, totals, wanted, np.zeros_like(totals), held)


def _round_to_sum(exact: npt.NDArray[np.floating], random: np.random.Generator) -> Ids:
    """Round numbers so that they add up to their rounded sum: the largest remainders go up, equal ones at random."""
    floors = np.floor(exact)
    order = np.lexsort((random.permutation(len(exact)), floors - exact))
    floors[order[: round(exact.sum() - floors.sum())]] += 1
    numbers: Ids = floors.astype(np.int64)
    return numbers


def _hold_greedily(partition: _Partition, random: np.random.Generator) -> None:
    """Hold out groups, in random order, that bring the classes nearer to their wanted numbers."""
    for group in random.permutation(len(partition.held)).tolist():
        classes, rows = partition.entries(group)
        # the change of the squared distance, multiplied out: (now + rows - wanted)^2 - (now - wanted)^2
        if (rows * (2 * (partition.held_rows[classes] - partition.wanted[classes]) + rows)).sum() < 0:
            partition.move(group)


def _hold_by_library(partition: _Partition, share: float, seed: int) -> None:
    """Hold out groups by iterative stratification of their labels (Sechidis, Tsoumakas and Vlahavas 2011)."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    matrix = np.zeros((len(partition.held), len(partition.totals)), dtype=np.int64)
    matrix[partition.groups, partition.classes] = 1
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    for group in next(splitter.split(matrix, matrix))[1].tolist():
        partition.move(group)


def _repair(partition: _Partition) -> None:
    """Give every class that can be on both sides a group on the side where it has none."""
    for _ in range(_REPAIR_PASSES):
        lacking = np.flatnonzero(partition.one_sided())
        if not len(lacking):
            return
        for kind in lacking.tolist():
            groups = partition.groups[partition.classes == kind]
            if partition.one_sided()[kind]:  # still: an earlier move may have repaired it
                partition.move(min(groups.tolist(), key=partition.cost_of_moving))


# Which parts a recipe asks for


def _only_files_given(config: DataConfig) -> bool:
    """Return True if no share of the training file is needed."""
    return isinstance(config.validation, str) and not isinstance(config.test, float)


def _take_part(
    whole: Part, wanted: float | str | None, groups: np.ndarray | None, config: DataConfig, share_left: float
) -> tuple[Part, Part | None]:
    """Take a validation or test part.

    Args:
        whole: the rows to take a share from.
        wanted: a share of the training file, or a file, or None for no part.
        groups: (rows of the training file,) its groups of equal texts.
        config: the recipe's `data` section.
        share_left: the share of the training file that is in `whole`.

    Returns:
        The rows that stay, and the part.
    """
    if wanted is None:
        return whole, None
    if isinstance(wanted, str):
        data = read_part(wanted, config, whole.source)
        return whole, Part(data, np.arange(len(data)))
    assert groups is not None
    if wanted >= share_left:
        raise DataError(
            "the shares of validation and test leave nothing to train on",
            expected=f"validation below {share_left:.2f}",
            got=f"{wanted:g}",
            remedy="Lower --validation or --test.",
        )
    kept, held = _split_part(whole, groups, wanted / share_left, config)
    return replace(whole, indices=whole.indices[kept]), replace(whole, indices=whole.indices[held])


def _split_part(whole: Part, groups: np.ndarray, share: float, config: DataConfig) -> tuple[Ids, Ids]:
    """Split as `split` does; where a row may have many labels, the only row of a label stays on the first side."""
    own = groups[whole.indices]
    pinned = np.isin(own, own[_has_lone_label(whole)])
    movable = replace(whole, indices=whole.indices[~pinned])
    if pinned.all():
        raise unsplittable_error(whole.source, config, "rows that each have, or stay with, a label of one row only")
    _check_divisible(movable, groups, config)
    places = np.flatnonzero(~pinned)
    kept, held = split(own[places], movable.labels, share, config.split_seed)
    return np.sort(np.concatenate([np.flatnonzero(pinned), places[kept]])), places[held]


def _has_lone_label(part: Part) -> npt.NDArray[np.bool_]:
    """Return (rows,) whether a row has a label that no other row has, where a row may have many labels."""
    if part.problem.exclusive:
        return np.zeros(len(part), dtype=bool)
    matrix = part.problem.label_matrix(part.labels, len(part.source.label_names))
    return np.asarray(matrix[:, matrix.sum(axis=0) == 1].any(axis=1), dtype=bool)


def _check_divisible(part: Part, groups: np.ndarray, config: DataConfig) -> None:
    """Raise DataError if no label is in more than one group of rows; warn of classes that are within one."""
    own, rows = groups[part.indices], len(part)
    if len(np.unique(own)) < 2:
        raise unsplittable_error(part.source, config, f"{rows:,} rows that all stay together")
    kinds, divisible = divisible_labels(own, part.problem.strata(part.labels))
    if not divisible.any():
        raise unsplittable_error(part.source, config, f"{rows:,} rows in which each label is one group")
    if part.problem.exclusive and not divisible.all():
        names = [part.source.label_names[kind] for kind in np.unique(part.labels)[kinds[~divisible]].tolist()]
        within = [name for name in names if part.source.counts()[part.source.label_names.index(name)] > 1]
        if within:
            warn(
                f"all rows of the class{'' if len(within) == 1 else 'es'} {', '.join(map(repr, within[:5]))}"
                f"{', ...' if len(within) > 5 else ''} stay together, so a part has none of them. "
                f"{loosen_remedy(config)}"
            )


def _fold_rows(part: Part, groups: np.ndarray, count: int, config: DataConfig) -> list[Ids]:
    """Return the rows of each fold, as `make_folds` does, with an error that names the flags."""
    own = groups[part.indices]
    if len(np.unique(own)) < count:
        raise DataError(
            "there are fewer different texts than folds",
            where=part.source.source,
            expected=f"{count} or more groups of rows",
            got=f"{len(np.unique(own))}",
            remedy=f"{loosen_remedy(config)}Or lower --folds.",
        )
    return make_folds(own, part.labels, count, config.split_seed)


def _count_folds(rest: Part, config: DataConfig, share_left: float, max_rows: int) -> int:
    """Return the number of folds that take the place of a validation part, 0 for none; tell the user why.

    Args:
        rest: the rows without the test part.
        config: the recipe's `data` section.
        share_left: the share of the training file that is in `rest`.
        max_rows: with more rows, warn instead of using folds.
    """
    if config.folds is not None or isinstance(config.validation, str):
        return config.folds or 0
    counts = count_labels(rest.labels, len(rest.source.label_names))
    # Folds do not help a label with one row: the network that is asked for it never saw it.
    rarest = int(counts[counts > 1].min(initial=len(rest)))
    if round(rarest * config.validation / share_left) >= MIN_VALIDATION_ROWS:
        return 0
    reason = (
        f"a validation share of {config.validation:g} has fewer than {MIN_VALIDATION_ROWS} rows of the smallest class"
    )
    if len(rest) > max_rows:
        warn(
            f"{reason}; --folds {DEFAULT_FOLDS} would validate on all {len(rest):,} rows, for {DEFAULT_FOLDS} more "
            "trainings"
        )
        return 0
    say(
        f"{reason}, so {DEFAULT_FOLDS} folds of the training rows are used for validation "
        "(--folds 0 keeps a single split)"
    )
    return DEFAULT_FOLDS


def _check_folds(whole: Part, groups: np.ndarray, count: int, config: DataConfig) -> None:
    """Raise DataError if a class has fewer different texts than there are folds."""
    names = whole.source.label_names
    has_class = whole.problem.label_matrix(whole.labels, len(names))
    texts = [len(np.unique(groups[rows])) for rows in has_class.T]
    if not whole.problem.exclusive:  # a label that one row has is scored in its fold, and missing there in training
        texts = [number if number > 1 else count for number in texts]
    rarest = int(np.argmin(texts))
    if texts[rarest] < count:
        raise DataError(
            f"too few rows for {count} folds",
            where=whole.source.source,
            expected=f"{count} different texts or more of each label",
            got=f"{texts[rarest]} of {names[rarest]!r}",
            remedy=(
                f"Pass --folds {texts[rarest]} or less, or leave --folds out. "
                if texts[rarest] > 1
                else "Leave --folds out, add rows, or pass --drop-rare. "
            )
            + loosen_remedy(config),
        )


# Texts that are in two parts


def _resolve_overlap(parts: Parts, config: DataConfig) -> Parts:
    """Leave out, count or refuse rows whose text is also in a later part, as the recipe says."""
    parts = replace(parts, near_overlap=_count_near_overlap(parts, config))
    later = {"train": (parts.validation, parts.test), "validation": (parts.test,)}
    found = {
        name: np.unique(np.concatenate([_overlap(part, other, config) for other in later[name]]))
        for name, part in parts.by_name().items()
        if name in later
    }
    count = sum(map(len, found.values()))
    if not count or config.allow_overlap:
        return replace(parts, overlap_allowed=count)
    if not config.drop_overlap:
        raise _overlap_error(parts, found)
    say(f"left out {count:,} rows because their text is also in a validation or test part (--drop-overlap)")
    folds = _folds_without(parts.folds, found["train"], len(parts.train))
    kept = replace(parts, train=parts.train.without(found["train"]), folds=folds, overlap_dropped=count)
    if kept.validation is None:
        return kept
    return replace(kept, validation=kept.validation.without(found["validation"]))


def _overlap(part: Part, other: Part | None, config: DataConfig) -> np.ndarray:
    """Return the positions in `part` of rows whose text, or group, is also in `other`."""
    none = np.empty(0, dtype=np.int64)
    if other is None:
        return none
    same_file = other.source is part.source
    # Shares of one file were split by groups of equal texts, unless texts may cross the groups of a column.
    texts = none
    if not same_file or texts_may_cross(config):
        texts = find_overlap(part.joined_texts, other.joined_texts, near=False)[0]
    if same_file or part.source.group is None or other.source.group is None:
        return texts
    theirs = set(other.source.group.take(pa.array(other.indices)).to_pylist()) - {""}
    own = part.source.group.take(pa.array(part.indices)).to_pylist()
    return np.union1d(texts, np.flatnonzero([value in theirs for value in own]))


def _count_near_overlap(parts: Parts, config: DataConfig) -> int:
    """Count the rows that are scored and nearly equal to a row of training, in splits in which they may be apart."""
    train = parts.train
    splits = [part for part in (parts.validation, parts.test) if part is not None and part.source is train.source]
    if config.near_duplicates == "together" or not (splits or parts.folds):
        return 0
    groups = duplicate_groups(train.source.joined_texts)
    own = groups[train.indices]
    count = sum(int(np.isin(groups[part.indices], own).sum()) for part in splits)
    for held in parts.folds:
        count += int(np.isin(own[held], np.delete(own, held)).sum())
    if count:
        warn(
            f"{count:,} rows that are scored are nearly equal to a text that is trained on (--near-duplicates apart): "
            "scores may be too high"
        )
    return count


def _folds_without(folds: tuple[np.ndarray, ...], dropped: np.ndarray, rows: int) -> tuple[np.ndarray, ...]:
    """Return the folds renumbered after the training rows at the positions `dropped` are left out."""
    new_position = np.cumsum(~np.isin(np.arange(rows), dropped)) - 1
    return tuple(new_position[np.setdiff1d(fold, dropped)] for fold in folds)


def _overlap_error(parts: Parts, found: dict[str, np.ndarray]) -> DataError:
    group = parts.train.source.columns.group
    counts = [
        f"{len(positions):,} of {len(part):,} {'training' if name == 'train' else name} rows "
        f"(row {', '.join(map(str, part.rows[positions[:3]]))}{', ...' if len(positions) > 3 else ''} of "
        f"{part.source.source})"
        for name, positions in found.items()
        for part in [parts.by_name()[name]]
        if len(positions)
    ]
    return DataError(
        "the given files share texts" if group is None else f"parts share texts, or rows of one {group!r}",
        expected=f"no text{'' if group is None else f' and no {group!r}'} in two parts (texts are compared after NFKC, "
        "case folding and whitespace collapsing)",
        got=f"{' and '.join(counts)} whose text{'' if group is None else f' or {group!r}'} is also in a later part "
        "(validation or test)",
        remedy="Pass --drop-overlap to leave these rows out, or --allow-overlap to keep them; then every report says "
        "so.",
    )
