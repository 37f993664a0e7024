"""Which rows train, which choose, which score.

Shares of the training file are split by seed, stratified, with equal and near-equal texts on one side. Files that are
given are compared with it: equal texts on two sides are refused with their count, unless the recipe says otherwise.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullbake.config import DataConfig
from fullbake.data import Dataset, check_trainable, read_dataset
from fullbake.duplicates import duplicate_groups, find_overlap
from fullbake.errors import DataError
from fullbake.hashing import fingerprint
from fullbake.progress import say
from fullbake.splits import split


@dataclass(frozen=True)
class Part:
    """Some rows of a source. indices: int64, sorted, into `source`."""

    source: Dataset
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def texts(self) -> pa.ChunkedArray:
        """The part's texts."""
        return self.source.texts.take(pa.array(self.indices))

    @property
    def labels(self) -> np.ndarray:
        """The part's label ids, int64 (rows,)."""
        assert self.source.labels is not None
        labels: np.ndarray = self.source.labels[self.indices]
        return labels

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
    """The rows of a run. overlap_allowed: training or validation rows whose text stands in a later part, by
    permission."""

    train: Part
    validation: Part
    test: Part | None
    overlap_allowed: int = 0
    overlap_dropped: int = 0

    def named(self) -> dict[str, Part]:
        """The parts there are, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def divide(data: Dataset, config: DataConfig) -> Parts:
    """Parts by the recipe: shares of `data`, or files of their own. Raises DataError where a part cannot be had."""
    check_trainable(data)
    groups = duplicate_groups(data.texts) if not _all_given(config) else None
    whole = Part(data, np.arange(len(data)))
    rest, test = _part(whole, config.test, groups, config, 1.0)
    left = len(rest) / len(whole)
    train, validation = _part(rest, config.validation, groups, config, left)
    assert validation is not None
    return _without_overlap(Parts(train, validation, test), config)


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


def read_labelled(source: str | Path, config: DataConfig, *, label_names: tuple[str, ...] | None = None) -> Dataset:
    """A file or hub data set with its labels, by the recipe's `data` section; label_names: those that are allowed."""
    return read_dataset(
        source,
        text=config.text,
        label=config.label,
        label_names=label_names,
        drop_unlabelled=config.drop_unlabelled,
        delimiter=config.delimiter,
        encoding=config.encoding,
    )


def _given(source: str, train: Dataset, config: DataConfig) -> Part:
    data = read_labelled(source, config, label_names=train.label_names)
    return Part(data, np.arange(len(data)))


def _without_overlap(parts: Parts, config: DataConfig) -> Parts:
    """Deal with equal texts across parts: the rows of the earlier part go, stay by permission, or the run is
    refused."""
    train, validation = _shared(parts.train, parts.validation), _shared(parts.validation, parts.test)
    train = np.union1d(train, _shared(parts.train, parts.test))
    count = len(train) + len(validation)
    if not count or config.allow_overlap:
        return replace(parts, overlap_allowed=count)
    if not config.drop_overlap:
        raise _overlapping(parts, train, validation)
    say(f"left out {count:,} rows whose text also stands in a later part (--drop-overlap)")
    return replace(
        parts,
        train=parts.train.without(train),
        validation=parts.validation.without(validation),
        overlap_dropped=count,
    )


def _shared(part: Part, other: Part | None) -> np.ndarray:
    """Positions within `part` of the texts that equal one of `other`."""
    if other is None or other.source is part.source:  # shares of one file: split by groups of equal texts
        return np.empty(0, dtype=np.int64)
    return find_overlap(part.texts, other.texts, near=False)[0]


def _overlapping(parts: Parts, train: np.ndarray, validation: np.ndarray) -> DataError:
    counts = [(train, parts.train, "training"), (validation, parts.validation, "validation")]
    told = [
        f"{len(found):,} of {len(part):,} {name} rows (row {', '.join(map(str, part.rows[found[:3]]))}"
        f"{', ...' if len(found) > 3 else ''} of {part.source.source})"
        for found, part, name in counts
        if len(found)
    ]
    return DataError(
        "texts stand on both sides of the splits that were given",
        expected="no text in two parts (compared after NFKC, case folding and whitespace collapsing)",
        got=f"{' and '.join(told)} whose text also stands in a part that chooses or scores",
        remedy="Pass --drop-overlap to leave those rows out, or --allow-overlap to keep them and have every report "
        "say so.",
    )
