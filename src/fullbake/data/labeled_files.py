"""Read labeled rows by the `data` section of a recipe: the training rows, and further rows with their labels."""

from typing import Any

from fullbake.config.problems import Problem
from fullbake.config.sections import Columns, DataConfig
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset, read_dataset
from fullbake.data.label_checks import leave_out_labels, with_labels_of
from fullbake.data.sources import as_source, open_source


def read_labeled(
    source: Any,
    config: DataConfig,
    *,
    label_names: tuple[str, ...] | None = None,
    problem: Problem | None = None,
) -> Dataset:
    """Read rows with their labels.

    Args:
        source: what `sources.as_source` takes, such as a path.
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


def read_part(source: Any, config: DataConfig, train: Dataset) -> Dataset:
    """Read validation or test rows with the labels of training.

    Args:
        source: what `sources.as_source` takes, or a Dataset.
        config: the recipe's `data` section.
        train: the training rows. Rows of classes that are left out there are left out here too.

    Raises:
        DataError: what `read_dataset` raises; or only rows of such classes are there.
    """
    dropped = tuple(train.dropped_labels or ())
    if isinstance(source, Dataset):
        data, kept = source, with_labels_of(source, train.label_names, train.problem, dropped)
        source = source.source
    else:
        source = as_source(source)
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


def without_missing_group(source: Any, config: DataConfig) -> DataConfig:
    """Return the recipe's `data` section, without its group column if this source lacks it; then warn.

    Args:
        source: rows that are scored, as `sources.as_source` takes them.
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
