"""Checks of the labels of a whole data set: can they be learned, are some too rare, are they in the form of training.

A label is rare by its number of rows in the training file. `drop_rare_labels` leaves such labels out once, there; the
rows of other files that have them are then left out by `leave_out_labels`, so that all parts know the same labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, Problem
from fullbake.config.sections import DataConfig
from fullbake.core.console import say
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset
from fullbake.data.label_doubts import list_labels, lists_in_words


def check_trainable(dataset: Dataset, *, shares: bool = True) -> None:
    """Check that rows with these labels can be split and that a classifier can learn from them.

    Args:
        dataset: the training rows.
        shares: whether validation is a share of these rows, or folds of them; False where it is a file.

    Raises:
        DataError: there are no labels; there is one class only; or, where a row may have several labels, a label that
            no row or every row has. Of classes of which a share validates also: a class has a single row, or there are
            fewer than two rows for a class on average (the label column holds texts or ids).
    """
    if dataset.labels is None:
        raise DataError("there are no labels", where=dataset.source, remedy="Name the label column by --label.")
    where = f"{dataset.source}, column {', '.join(map(repr, dataset.columns.of_labels))}"
    checks = {SINGLE_LABEL: _check_classes, MULTI_LABEL: _check_labels}
    checks[dataset.problem.name](dataset, where, shares)


def check_read_as_configured(dataset: Dataset, config: DataConfig) -> None:
    """Check that a data set that the caller read has what the recipe asks for: its group column, exclusive labels.

    Raises:
        DataError: the recipe names a group column that the data set was read without; or it asks for exclusive labels,
            and the rows may have many.
    """
    if config.group is not None and dataset.columns.group != config.group:
        raise DataError(
            "the recipe groups rows by a column that the data set was read without",
            where=dataset.source,
            expected=f"group={config.group!r}",
            got="no group column" if dataset.columns.group is None else f"group={dataset.columns.group!r}",
            remedy=f"Read it by read_dataset(..., group={config.group!r}), or give the path of the file.",
        )
    if config.exclusive and dataset.labels is not None and not dataset.problem.exclusive:
        raise DataError(
            "the recipe asks for exclusive labels, but in this data set a row may have many",
            where=dataset.source,
            remedy="Read it by read_dataset(..., exclusive=True), or give the path of the file.",
        )


def _check_classes(dataset: Dataset, where: str, shares: bool) -> None:
    names = dataset.label_names
    if len(names) < 2:
        dropped = "Lower --drop-rare. " if dataset.dropped_labels else ""
        raise DataError(
            "there is only one class" if names else "there is no class",
            where=where,
            expected="two or more classes",
            got=f"{names[0]!r} in all {len(dataset):,} rows" if names else "no row is left",
            remedy=f"{dropped}Check that this is the label column. A classifier also needs rows that do not have the "
            "label.",
        )
    _check_label_columns(dataset, where)
    if not shares:
        return
    # Columns of texts, ids or measured values have nearly as many different values as rows.
    if 2 * len(names) > len(dataset):
        hint = lists_in_words(names)
        raise DataError(
            "there are too many classes for so few rows",
            where=where,
            expected="at least two rows for each class",
            got=f"{len(names):,} classes in {len(dataset):,} rows, such as {names[0][:40]!r}",
            remedy="Check that this is the label column: texts, ids and measured values are not classes. "
            + (f"{hint.sentence}." if hint else "One row a class is enough where --validation names a file."),
        )
    _check_single_rows(dataset, where)


def _check_label_columns(dataset: Dataset, where: str) -> None:
    """Raise DataError if a column of 0 and 1 holds no 1, so that its class would have no row."""
    empty = np.flatnonzero(dataset.counts() == 0)
    if dataset.columns.labels is not None and len(empty):
        raise DataError(
            f"no row has the label {dataset.label_names[empty[0]]!r}",
            where=where,
            expected="rows of each class",
            got="0 rows of it",
            remedy="Leave its column out of --labels, or pass --drop-rare 1, which leaves out labels that no row has.",
        )


def _check_labels(dataset: Dataset, where: str, shares: bool) -> None:  # noqa: ARG001  (one shape for both checks)
    if not dataset.label_names:
        dropped = "Lower --drop-rare, or check" if dataset.dropped_labels else "Check"
        raise DataError("no row has a label", where=where, remedy=f"{dropped} that this is the label column.")
    for name, count in zip(dataset.label_names, dataset.counts().tolist(), strict=True):
        if count in (0, len(dataset)):
            remedy = "A classifier cannot learn this label from these rows: leave the label out, or add rows."
            raise DataError(
                f"{'no row has' if not count else 'every row has'} the label {name!r}",
                where=where,
                expected="rows with it and rows without",
                got=f"{count:,} of {len(dataset):,} rows with it",
                remedy=remedy if count else f"{remedy} --drop-rare 1 leaves out labels that no row has.",
            )


def _check_single_rows(dataset: Dataset, where: str) -> None:
    """Raise DataError if a class has one row only: it could not be in both training and validation."""
    names, counts = dataset.label_names, dataset.counts()
    rare = np.flatnonzero(counts == 1)
    if not len(rare):
        return
    assert dataset.labels is not None
    has_it = dataset.problem.has_label(dataset.labels, int(rare[0]))
    classes = "a class has" if len(rare) == 1 else f"{len(rare):,} classes have"
    hint = lists_in_words(names)
    raise DataError(
        f"{classes} a single row, which cannot be both in training and in validation",
        where=where,
        expected="at least two rows for each class",
        got=f"one row of {', '.join(repr(names[index]) for index in rare[:5])}{', ...' if len(rare) > 5 else ''} "
        f"(data row {dataset.rows[has_it][0]}{' for the first of them' if len(rare) > 1 else ''})",
        remedy="Add rows, merge the class into another one, or pass --drop-rare 2 to leave such classes out; "
        "--validation FILE validates on other rows, then one row is enough." + (f" {hint.sentence}." if hint else ""),
    )


# Rare labels


def drop_rare_labels(dataset: Dataset, fewest: int | None) -> Dataset:
    """Leave out the labels that have fewer rows than `fewest`, and say which.

    The rows of such a class are left out. Where a row may have many labels, it stays and loses the label. A data set
    whose rare labels were left out already is returned as it is.

    Args:
        dataset: the training rows, with labels.
        fewest: the rows that a label must have; None leaves all labels in.
    """
    if fewest is None or dataset.dropped_labels is not None or dataset.labels is None:
        return dataset
    counts = dataset.counts()
    order = np.argsort(counts < fewest, kind="stable")  # the labels that stay come first
    kept, names = int((counts >= fewest).sum()), [dataset.label_names[label] for label in order.tolist()]
    dropped = {dataset.label_names[label]: int(counts[label]) for label in order[kept:].tolist()}
    left = leave_out_labels(_reorder(dataset, order, names), kept)
    if dropped:
        say(f"{describe_dropped(dropped)} (--drop-rare {fewest})")
    return replace(left, dropped_labels=dropped)


def leave_out_labels(dataset: Dataset, kept: int) -> Dataset:
    """Leave out all labels but the first `kept`, and the rows of such classes.

    Args:
        dataset: rows with labels.
        kept: how many of the label names stay.
    """
    assert dataset.labels is not None
    if kept == len(dataset.label_names):
        return dataset
    if dataset.problem.exclusive:
        left = dataset.take(np.flatnonzero(dataset.labels < kept))
    else:
        left = replace(dataset, labels=dataset.labels[:, :kept])
    return replace(left, label_names=dataset.label_names[:kept])


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Return a clause on the labels that were left out. dropped: label to its rows in the training file."""
    labels = "one label was" if len(dropped) == 1 else f"{len(dropped):,} labels were"
    total = sum(dropped.values())
    return f"{labels} left out, with {total:,} row{'' if total == 1 else 's'}: {list_labels(list(dropped))}"


def _reorder(dataset: Dataset, order: np.ndarray, names: Sequence[str]) -> Dataset:
    """Return the data set with its labels numbered by their place in `order`."""
    assert dataset.labels is not None
    if not dataset.problem.exclusive:
        return replace(dataset, labels=dataset.labels[:, order], label_names=tuple(names))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return replace(dataset, labels=rank[dataset.labels], label_names=tuple(names))


def with_labels_of(
    dataset: Dataset, label_names: Sequence[str], problem: Problem, dropped: Sequence[str] = ()
) -> Dataset:
    """Return rows with their labels numbered as in training.

    Args:
        dataset: rows that were read with other label names, or with these.
        label_names: the labels of training.
        problem: the problem that these pose.
        dropped: labels that training left out; the rows of such classes are left out here too.

    Raises:
        DataError: the rows have no labels, labels of another form, or a label that training did not have.
    """
    if dataset.labels is None:
        raise DataError("there are no labels", where=dataset.source, remedy="Read the rows with their label column.")
    if dataset.problem.name != problem.name:
        forms = {True: "one label a row", False: "lists of labels (a row may have many)"}
        raise DataError(
            "the labels have another form than those of training",
            where=dataset.source,
            expected=forms[problem.exclusive],
            got=forms[dataset.problem.exclusive],
            remedy="Read them as in training: with exclusive=True, if each list holds exactly one label."
            if problem.exclusive
            else "Read them as in training: as lists, or with a label_separator, which reads a word as a list of one.",
        )
    known = (*label_names, *(name for name in dropped if name not in label_names))
    if dataset.label_names == tuple(known[: len(dataset.label_names)]) and len(dataset.label_names) == len(label_names):
        return dataset
    unknown = [name for name in dataset.label_names if name not in known]
    if unknown:
        raise DataError(
            "there are labels that training did not have",
            where=dataset.source,
            expected=list_labels(list(label_names)),
            got=list_labels(unknown),
            remedy="Leave these rows out, or rename their labels.",
        )
    return leave_out_labels(_spread(dataset, known), len(label_names))


def _spread(dataset: Dataset, known: tuple[str, ...]) -> Dataset:
    """Return the data set with these label names, among which its own are."""
    assert dataset.labels is not None
    places = np.array([known.index(name) for name in dataset.label_names], dtype=np.int64)
    if dataset.problem.exclusive:
        return replace(dataset, labels=places[dataset.labels], label_names=known)
    matrix = np.zeros((len(dataset), len(known)), dtype=np.uint8)
    matrix[:, places] = dataset.labels
    return replace(dataset, labels=matrix, label_names=known)
