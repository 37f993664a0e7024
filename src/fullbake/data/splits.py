"""Splits the rows into training, validation and test parts, or folds; equal and near-equal texts stay on one side.

Shares of the training file are split by a seed, stratified by class. Where a validation share would be too small,
folds of the training rows take its place. Texts that a given validation or test file shares with training are an error
with their count, unless the recipe allows or drops them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.config.problems import Problem
from fullbake.config.sections import DataConfig
from fullbake.core.arguments import describe_value
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError, RecipeError
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
from fullbake.data.partition import make_folds, split

Ids = npt.NDArray[np.int64]

MIN_VALIDATION_ROWS: Final = 5
"""Rows of each class that a validation part needs; with fewer, folds take its place."""

DEFAULT_FOLDS: Final = 5

MAX_ROWS_FOR_FOLDS: Final = 5000
"""With more training rows, folds are used only on request: each fold costs a training, and only some rare class needs
them."""


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


def join_parts(first: Part, second: Part) -> Part:
    """Return the rows of two parts as one: of one source in its order, of two sources the first's rows first.

    Args:
        first: Training rows.
        second: Validation rows, with the same label names.
    """
    if first.source is second.source:
        return replace(first, indices=np.sort(np.concatenate([first.indices, second.indices])))
    rows, others = (part.source.take(part.indices) for part in (first, second))
    assert rows.labels is not None
    assert others.labels is not None
    pairs = [(getattr(rows, name), getattr(others, name)) for name in ("texts", "text_pair", "group")]
    texts, text_pair, group = (
        None if one is None or other is None else pa.chunked_array([*one.chunks, *other.chunks], type=one.type)
        for one, other in pairs
    )
    joined = replace(
        rows,
        texts=texts,
        text_pair=text_pair,
        group=group,
        labels=np.concatenate([rows.labels, others.labels]),
        rows=np.concatenate([rows.rows, others.rows]),
    )
    return Part(joined, np.arange(len(joined)))


def sample_rows(dataset: Dataset, max_rows: int | None) -> Dataset:
    """Return at most `max_rows` rows, in which each class keeps its share, and say so. None takes all.

    Raises:
        RecipeError: `max_rows` is not a whole number of 1 or more.
    """
    if max_rows is None:
        return dataset
    if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1:
        raise RecipeError(
            "max_rows cannot be used",
            where="--max-rows (max_rows)",
            expected="a whole number of 1 or more",
            got=describe_value(max_rows),
        )
    if max_rows >= len(dataset):
        return dataset
    assert dataset.labels is not None
    sampled = split(np.arange(len(dataset)), dataset.labels, max_rows / len(dataset), 0)[1]
    say(
        f"{len(sampled):,} of {len(dataset):,} rows are used (--max-rows {max_rows:,}); each class keeps its share of "
        "the rows"
    )
    return dataset.take(sampled)


def count_groups(part: Part) -> int | None:
    """Return how many groups of the group column the rows are in; None without such a column."""
    groups = part.group_ids
    return None if groups is None else len(np.unique(groups))


def divide(
    data: Dataset,
    config: DataConfig,
    given: Mapping[str, Any] = MappingProxyType({}),
    *,
    max_rows_for_folds: int = MAX_ROWS_FOR_FOLDS,
) -> Parts:
    """Divide a data set into the parts of a run.

    Args:
        data: the training file, with labels.
        config: the recipe's `data` section: `validation` and `test` are shares of `data`, or files.
        given: rows for "validation" and "test" that the caller has at hand (`sources.GivenParts.others`). `config`
            names them by a text, as it names files.
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
    rest, test = _take_part(whole, given.get("test", config.test), groups, config, 1.0)
    share_left = len(rest) / len(whole)
    count = _count_folds(rest, config, share_left, max_rows_for_folds)
    if count:
        assert groups is not None
        if config.folds is None:  # the user did not ask for folds: make as many as there are different texts
            count = max(2, min(count, len(np.unique(groups[rest.indices]))))
        _check_divisible(rest, groups, config)
        held = tuple(_fold_rows(rest, groups, count, config))
        return _resolve_overlap(Parts(rest, None, test, held, texts), config)
    train, validation = _take_part(rest, given.get("validation", config.validation), groups, config, share_left)
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


# Which parts a recipe asks for


def _only_files_given(config: DataConfig) -> bool:
    """Return True if no share of the training file is needed."""
    return isinstance(config.validation, str) and not isinstance(config.test, float)


def _take_part(
    whole: Part, wanted: Any, groups: np.ndarray | None, config: DataConfig, share_left: float
) -> tuple[Part, Part | None]:
    """Take a validation or test part.

    Args:
        whole: the rows to take a share from.
        wanted: a share of the training file, or other rows (a file, a table in memory), or None for no part.
        groups: (rows of the training file,) its groups of equal texts.
        config: the recipe's `data` section.
        share_left: the share of the training file that is in `whole`.

    Returns:
        The rows that stay, and the part.
    """
    if wanted is None:
        return whole, None
    if not isinstance(wanted, float):
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
