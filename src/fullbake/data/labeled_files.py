"""Read labeled files by the `data` section of a recipe: the training file, and further files with its labels."""

from pathlib import Path

from fullbake.config.problems import Problem
from fullbake.config.sections import Columns, DataConfig
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset, open_source, read_dataset
from fullbake.data.label_checks import leave_out_labels


def read_labeled(
    source: str | Path,
    config: DataConfig,
    *,
    label_names: tuple[str, ...] | None = None,
    problem: Problem | None = None,
) -> Dataset:
    """Read a file or hub data set with its labels.

    Args:
        source: a path or a hub id.
        config: the recipe's `data` section; it names the columns.
        label_names: the labels that are allowed; None allows all.
        problem: the problem that the labels of training pose; labels of the other form are an error.

    Raises:
        DataError: what `read_dataset` raises.
    """
    columns = config.columns
    return read_dataset(
        source,
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        labels=columns.labels,
        label_separator=columns.label_separator,
        exclusive=columns.exclusive,
        group=columns.group,
        label_names=label_names,
        problem=problem,
        drop_unlabelled=config.drop_unlabelled,
        **vars(config.dialect),
    )


def read_part(source: str | Path, config: DataConfig, train: Dataset) -> Dataset:
    """Read a validation or test file with the labels of training.

    Args:
        source: a path or a hub id.
        config: the recipe's `data` section.
        train: the training rows. Rows of classes that are left out there are left out here too.

    Raises:
        DataError: what `read_dataset` raises; or only rows of such classes are there.
    """
    dropped = tuple(train.dropped_labels or ())
    config = without_missing_group(source, config)
    data = read_labeled(source, config, label_names=train.label_names + dropped, problem=train.problem)
    kept = leave_out_labels(data, len(train.label_names))
    if len(kept) < len(data):
        say(f"{source}: {len(data) - len(kept):,} of {len(data):,} rows have a label that is left out (--drop-rare)")
    if not len(kept):
        raise DataError(
            "every row has a label that is left out", where=str(source), remedy="Lower --drop-rare, or leave it out."
        )
    return kept


def without_missing_group(source: str | Path, config: DataConfig) -> DataConfig:
    """Return the recipe's `data` section, without its group column if this source lacks it; then warn.

    Args:
        source: a path or a hub id of rows that are scored.
        config: the section.
    """
    columns = Columns(config.text)
    if config.group is None or config.group in open_source(source, columns, config.dialect).names:
        return config
    warn(
        f"{source} has no column {config.group!r} (--group): its rows count as independent of each other and of the "
        "training rows"
    )
    return config.model_copy(update={"group": None})
