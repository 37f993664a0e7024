"""What a person calls data, as one table: files, folders, hub data sets, and whatever holds rows in memory.

Every function that takes rows takes them through here, so a data frame means the same to all of them. A value is looked
at once, by `as_source`, and then opened as often as needed, by `open_source`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.config.sections import Columns, Dialect
from fullbake.core.arguments import PATH, describe_value, is_instance_of
from fullbake.core.errors import DataError, RecipeError
from fullbake.core.mistyped_paths import mistyped_path_remedy
from fullbake.data.arrow import ArrowSource, arrow_table
from fullbake.data.files import FORMATS, names_a_data_file, open_table
from fullbake.data.frames import columns_source, dataset_source, frame_source, is_column
from fullbake.data.tables import ReadOptions, Table, check_flags

EXPECTED_SOURCE: Final = (
    "the path of a file or folder, a hub id, a data frame (pandas, polars), an Arrow table, a Hugging Face Dataset, a "
    "dict of columns, or a pair (texts, labels)"
)

PART_NAMES: Final = ("train", "validation", "test")

_NOT_READ: Final = {
    ("polars", "LazyFrame"): "Pass frame.collect().",
    ("narwhals", "LazyFrame"): "Pass frame.collect().",
    ("datasets", "IterableDataset"): "It is a stream. Load it without streaming=True, or write it to a file.",
    ("dask.dataframe", "DataFrame"): "Pass frame.compute().",
    ("pyspark.sql", "DataFrame"): "Pass frame.toArrow(), or write it to a folder of Parquet files.",
    ("fullbake.data.dataset", "Dataset"): "It is what read_dataset returns, so it has been read already.",
}
"""Classes whose rows are not read -> what to do."""


@dataclass(frozen=True, eq=False)
class NamelessTexts:
    """Texts, and labels if there are some, whose columns have no names: they are those that are asked for."""

    texts: Any
    labels: Any = None

    def __str__(self) -> str:
        return f"{len(self.texts):,} texts{'' if self.labels is None else ' with labels'}"

    def named(self, columns: Columns) -> ArrowSource:
        """Return the two columns under the names that are asked for.

        Raises:
            DataError: Labels are asked for, and there are none; or more columns are asked for than these two.
        """
        if columns.of_labels and self.labels is None:
            raise DataError(
                "there are texts but no labels",
                where=str(self),
                expected="a label for each text",
                remedy="Files of one table stand in a folder: pass its path."
                if any(isinstance(text, str) and names_a_data_file(Path(text)) for text in self.texts[:1])
                else 'Pass a pair (texts, labels), or {"text": texts, "label": labels}.',
            )
        if columns.labels is not None or columns.text_pair is not None or columns.group is not None:
            raise DataError(
                "texts and labels without names cannot stand for these columns",
                where=str(self),
                expected=", ".join(map(repr, (*columns.of_texts, *columns.of_labels, *columns.of_groups))),
                remedy="Pass a dict of columns with these names.",
            )
        named = {columns.text: self.texts}
        if columns.label is not None:
            named[columns.label] = self.labels
        return columns_source(str(self), named)


Source = str | Path | ArrowSource | NamelessTexts
"""What `open_source` opens. Each is called by its `str`."""


@dataclass(frozen=True, eq=False)
class GivenParts:
    """The training rows, and rows for validation and test where the caller gave some beside them."""

    train: Any
    """A Source, or a Dataset."""

    others: Mapping[str, Any]
    """"validation" and "test" -> a Source or a Dataset."""

    def fields(self, config: Any) -> dict[str, str]:
        """Return the fields of a recipe that name the parts given.

        Args:
            config: The recipe's `data` section.

        Raises:
            RecipeError: The recipe names a file of such a part too.
        """
        # A Dataset knows what it was read from; all others are called by their text.
        names = {name: str(getattr(rows, "source", rows)) for name, rows in self.others.items()}
        for name, given in names.items():
            named = getattr(config, name)
            if isinstance(named, str) and named != given:
                raise RecipeError(
                    f"the {name} rows are given twice",
                    where="recipe",
                    expected="one of the two",
                    got=f"{named!r} in the recipe, and {given} beside the training rows",
                    remedy=f"Leave {name} out of the recipe, or out of the data.",
                )
        return names


def as_source(value: Any, name: str = "source") -> Source:
    """Return what a caller means by rows.

    Args:
        value: A path, a hub id, a table in memory (`frames.frame_source`), a pair (texts, labels), or texts alone: a
            list, a column of a library, a generator.
        name: The argument's name, for errors.

    Raises:
        DataError: It is none of these, or rows for several parts.
    """
    if isinstance(value, str | Path | ArrowSource | NamelessTexts):
        return value
    if isinstance(value, PATH):
        return Path(value)
    frame = as_frame(value, name)
    if frame is not None:
        return frame
    if isinstance(value, tuple) and len(value) == 2 and all(map(_is_sequence, value)):
        return NamelessTexts(*value)
    # A list in which some values are no texts gets the reader's error, which names the row.
    if is_column(value) or (isinstance(value, list | tuple) and (not value or any(isinstance(v, str) for v in value))):
        return NamelessTexts(value)
    if isinstance(value, Iterator):
        return as_source(list(value), name)
    raise _refused(value, name)


def as_frame(value: Any, name: str = "source") -> ArrowSource | None:
    """Return a table in memory; None if the value is no table.

    Args:
        value: Anything.
        name: The argument's name, for errors.

    Raises:
        DataError: It holds the tables of several parts, or its columns do not fit together.
    """
    if _holds_parts(value):
        raise _several_parts_error(value, name)
    return frame_source(value)


def as_parts(value: Any) -> GivenParts:
    """Return what a caller of `adapt` or `compare` means by data.

    Args:
        value: Rows as for `as_source`, a Dataset; or a DatasetDict or another mapping of "train", and of "validation"
            and "test" if there are such rows, to any of these. Other parts are left out with a message.

    Raises:
        DataError: It is none of these, or a mapping without "train".
    """
    if not _holds_parts(value):
        return GivenParts(_rows_of(value, "data"), {})
    if "train" not in value:
        raise DataError(
            "there is no part 'train'",
            expected="the parts train, and validation and test if there are such rows",
            got=f"{describe_value(value)} of the parts {', '.join(map(repr, value))}",
            remedy=f"Rename the part, or pass one: data[{next(iter(value))!r}].",
        )
    unused = [str(name) for name in value if name not in PART_NAMES]
    if unused:
        from fullbake.core.console import say

        say(f"not used of the data: {', '.join(map(repr, unused))} (read are train, validation and test)")
    read = {name: _rows_of(value[name], name) for name in PART_NAMES if name in value}
    return GivenParts(read.pop("train"), read)


def open_source(
    source: Any,
    columns: Columns,
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
    *,
    nullable: Sequence[str] = (),
) -> Table:
    """Open rows as a table of the text and label columns.

    Args:
        source: What `as_source` takes. A string is a path if it exists, or ends like a data file; else it is a hub id.
        columns: The columns to read. A null label becomes "", and the label column may hold lists.
        dialect: How the files are written.
        nullable: Other columns in which null becomes "".

    Raises:
        DataError: The source or a column cannot be found or read.
    """
    source = as_source(source)
    wanted = (*columns.of_texts, *columns.of_labels, *columns.of_groups)
    nullable = (*columns.of_labels, *columns.of_groups, *nullable)
    lists = () if columns.label is None else (columns.label,)
    if isinstance(source, NamelessTexts):
        source = source.named(columns)
    return open_columns(source, ReadOptions(wanted, nullable, lists, dialect))


def open_columns(source: str | Path | ArrowSource, options: ReadOptions) -> Table:
    """Open columns of a file, a hub data set or a frame.

    Raises:
        DataError: The source or a column cannot be found or read, or the dialect is given and the source is no file.
    """
    if isinstance(source, ArrowSource):
        _refuse_dialect(source.description, options.dialect, "Rows in memory have no flags of files: leave it out.")
        return arrow_table(source, options)
    path = Path(source)
    # A mistyped file name such as "trian.csv" must not become a request to the hub.
    if path.exists() or names_a_data_file(path):
        return open_table(
            path, columns=options.columns, nullable=options.nullable, lists=options.lists, dialect=options.dialect
        )
    remedy = mistyped_path_remedy(str(source), lambda other: other.is_dir() or names_a_data_file(other))
    if remedy is not None:
        raise DataError("there is no such file or folder", where=str(source), remedy=remedy)
    _refuse_dialect(str(source), options.dialect, "There is no such file, and a hub data set has no flags of files.")
    return arrow_table(_hub_source(str(source)), options)


def _refuse_dialect(where: str, dialect: Dialect, remedy: str) -> None:
    check_flags(where, dialect, frozenset(), remedy)


def _holds_parts(value: Any) -> bool:
    """Return True if a value is a mapping of parts: each is a path, a data set or a table, not a column."""
    if not isinstance(value, Mapping):
        return False
    return bool(value) and all(
        isinstance(part, Mapping | ArrowSource | NamelessTexts)
        or (isinstance(part, PATH) and name in PART_NAMES)
        or any(is_instance_of(part, *known) for known in _NOT_READ)
        or (hasattr(part, "__arrow_c_stream__") and not is_column(part))
        or is_instance_of(part, "datasets", "Dataset")
        or _is_pair(part)
        for name, part in value.items()
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_sequence, value))


def _is_sequence(value: Any) -> bool:
    return is_column(value) or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def _rows_of(value: Any, name: str) -> Any:
    return value if is_instance_of(value, "fullbake.data.dataset", "Dataset") else as_source(value, name)


def _several_parts_error(value: Mapping[Any, Any], name: str) -> DataError:
    return DataError(
        f"the argument {name} holds several parts, and one is needed here",
        expected=EXPECTED_SOURCE,
        got=f"{describe_value(value)} of the parts {', '.join(map(repr, value))}",
        remedy=f"Choose one: {name}[{next(iter(value))!r}]."
        if set(value) & set(PART_NAMES)
        else f"Choose one: {name}[{next(iter(value))!r}]. In place of a dict of dicts, as to_dict() makes it, pass "
        "the frame itself.",
    )


def remedy_for(value: object) -> str | None:
    """Return what to do with a table that is not in memory, such as a LazyFrame; None for any other value."""
    return next((words for known, words in _NOT_READ.items() if is_instance_of(value, *known)), None)


def _refused(value: Any, name: str) -> DataError:
    remedy = remedy_for(value)
    if isinstance(value, tuple) and len(value) == 2 and len(getattr(value[1], "shape", ())) == 2:
        remedy = (
            'Columns of 0 and 1 need names: pass {"text": texts, "joy": [0, 1], "anger": [1, 0]} with labels=("joy", '
            '"anger"). Or pass lists of names as labels.'
        )
    if isinstance(value, list) and value and all(map(_is_sequence, value)):
        remedy = "Of a list of (text, label) make a pair: tuple(zip(*rows))."
    return DataError(
        f"the argument {name} cannot be used",
        expected=EXPECTED_SOURCE,
        got=describe_value(value),
        remedy=remedy or "Make one of these of it, or write the rows to a file and pass its path.",
    )


# Hub data sets


def _hub_source(source: str) -> ArrowSource:
    """Return a hub data set, in which class numbers are replaced by the names that the data set gives them."""
    name, _, split = source.partition(":")
    return dataset_source(_load_hub(source, name, split or "train"), source)


def _load_hub(source: str, name: str, split: str) -> Any:
    """Load a split of a hub data set; the library takes it from its cache where the hub cannot be reached."""
    import datasets

    try:
        return datasets.load_dataset(name, split=split)  # type: ignore[attr-defined]
    except ValueError as error:  # the library's error for an unknown split or configuration
        raise DataError(
            "the hub data set cannot be opened by this name",
            where=source,
            got=str(error).splitlines()[0],
            remedy="Name a split that it has: owner/name:split. If it has several configurations, save the "
            "one you want as a file.",
        ) from None
    except Exception as error:
        raise DataError(
            "there is no such file, and no hub data set of this name can be reached",
            where=source,
            expected=f"a file ({', '.join(FORMATS)}), or a hub id: owner/name or owner/name:split",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="Check the path. For a hub id check the spelling, the connection and HF_HUB_OFFLINE.",
        ) from None
