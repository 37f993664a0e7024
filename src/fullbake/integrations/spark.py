"""Spark: score the rows of a DataFrame on its workers, and give SQL a function that classifies.

Rows go to Python as record batches of Arrow (`mapInArrow`), are scored there by the bundle's engine, and come back
with the columns that `predict_frame` adds. The bundle goes to the workers once, as an archive that Spark unpacks on
each machine; nothing of it is pickled. A worker process loads it once, and checks that it is the driver's.
"""

import atexit
import platform
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fullbake.classifier.bundle_outline import BundleOutline, bundle_digest, read_outline
from fullbake.classifier.hub_bundles import local_bundle
from fullbake.classifier.model import Classifier
from fullbake.classifier.prediction_columns import (
    PredictionOptions,
    added_kinds,
    choose_text_columns,
    predict_columns,
)
from fullbake.classifier.sharing import copy_for_sharing
from fullbake.classifier.worker_bundle import (
    WorkerBundle,
    check_scoring_versions,
    load_worker_bundle,
    scoring_versions,
)
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.core.arguments import describe_value
from fullbake.core.console import silenced
from fullbake.core.errors import BundleError, DataError, MissingExtraError, RecipeError
from fullbake.core.extras import is_installed, name_missing_extra
from fullbake.data.arrow import arrow_strings
from fullbake.data.tables import CHUNK_CHARACTERS, check_unique, select_columns
from fullbake.evaluation.top_labels import Threshold, with_threshold

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE: Final = 4096
"""So many rows are tokenized and scored at a time, longest first, however many Spark puts into a batch."""

_SPARK_KINDS: Final = {"str": "StringType", "float32": "FloatType", "uint8": "ShortType"}
"""A type of an added column -> Spark's type. Spark has no unsigned numbers."""

_PLAIN_TYPES: Final = ("string", "char", "varchar", "boolean", "byte", "short", "integer", "long", "float", "double")
"""Spark's types whose values are read as texts, beside decimals."""


def score(
    df: Any,
    bundle: str | Path,
    text: str | Sequence[str] | None = None,
    *,
    prefix: str = "",
    top_k: int | None = None,
    threshold: Threshold | None = None,
    labels_only: bool = False,
    engine: Engine = "auto",
    precision: ScoringPrecision = "fp32",
    shared: bool = False,
) -> Any:
    """Classify the rows of a Spark DataFrame on the workers.

    Nothing is computed before an action asks for the result. All columns are kept, and so is the order of the rows
    within a partition. A worker process computes with as many threads as a task has processors (`spark.task.cpus`).

    Args:
        df: The DataFrame, also a streaming one.
        bundle: The folder of a bundle or a cascade on the driver, or its id on the hub, such as org/name.
        text: The column of the texts; of a classifier of pairs the two columns. None: their names in training.
        prefix: Text before the names of the added columns.
        top_k: Add so many of the likeliest labels of each row. None: the scores of all labels.
        threshold: Decide by this score in place of the classifier's own decision, as for `Classifier.predict`.
        labels_only: Leave out the columns of scores.
        engine: As for `Classifier.load`.
        precision: As for `Classifier.load`.
        shared: The workers see the bundle under the same path, so it is not sent to them.

    Returns:
        A DataFrame with the columns that `predict_frame` adds: `predicted`, `score` and `score:<class>`; of many labels
        `predicted:<label>` (0 or 1) and `score:<label>`.

    Raises:
        DataError: The value is no DataFrame of Spark, a column is missing or holds no plain values, or a column has the
            name of an added one. A text that is null fails the job, with its partition and row.
        BundleError: It is no bundle.
        RecipeError: `top_k` or `threshold` is wrong.
        MissingExtraError: pyspark is not installed.
    """
    _require_spark()
    _require_frame(df)
    session = df.sparkSession
    sent = _send(session, bundle, engine, precision, shared)
    options = PredictionOptions(prefix, top_k, threshold, labels_only)
    kinds = _checked_kinds(sent.outline, options)
    columns = _find_columns(df, choose_text_columns(sent.outline.columns, *_two(text)))
    schema = _schema_with(df.schema, kinds, ignore_case=_ignores_case(session))
    scorer = partial(_score_batches, sent.worker, tuple(columns), options, tuple(kinds))
    with warnings.catch_warnings():
        # pyspark looks for pandas here, and warns of new versions; no pandas is used.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        return df.mapInArrow(scorer, schema)


def register(
    spark: Any,
    bundle: str | Path,
    name: str = "classify",
    *,
    top_k: int | None = None,
    threshold: Threshold | None = None,
    engine: Engine = "auto",
    precision: ScoringPrecision = "fp32",
    shared: bool = False,
) -> Any:
    """Give Spark's SQL a function that classifies texts: `SELECT classify(body) FROM mails`.

    It returns what `Classifier.predict` returns for a text: a string; of many labels an array of strings; with `top_k`
    an array of structs with `label` and `score`. NULL stays NULL. A classifier of pairs takes two columns.

    Args:
        spark: The session.
        bundle: As for `score`.
        name: The name of the function in SQL.
        top_k: Return so many of the likeliest labels with their scores; with `threshold` those that reach it.
        threshold: As for `Classifier.predict`.
        engine: As for `Classifier.load`.
        precision: As for `Classifier.load`.
        shared: As for `score`.

    Returns:
        The function, which takes columns: `df.select(classify("body"))`.

    Raises:
        BundleError: It is no bundle.
        RecipeError: `top_k` or `threshold` is wrong, or `name` is no name.
        MissingExtraError: pyspark is not installed, or is older than 4.1.
    """
    _require_spark(arrow_functions=True)
    import pyarrow as pa

    functions: Any = import_module("pyspark.sql.functions")

    if not isinstance(name, str) or not name.isidentifier():
        raise RecipeError(
            "this cannot be the name of a function in SQL",
            where="name",
            expected="letters, digits and underscores, such as classify",
            got=describe_value(name),
        )
    sent = _send(spark, bundle, engine, precision, shared)
    options = PredictionOptions(top_k=top_k, threshold=threshold)
    _checked_kinds(sent.outline, options)
    kind = "string" if sent.outline.problem.exclusive else "array<string>"
    if top_k is not None:
        kind = "array<struct<label:string,score:float>>"
    answer = partial(_answer_columns, sent.worker, options)
    if sent.outline.columns.text_pair is None:

        def classify(text: pa.Array) -> pa.Array:
            return answer([text])

        function = functions.arrow_udf(classify, kind)
    else:

        def classify_pair(text: pa.Array, text_pair: pa.Array) -> pa.Array:
            return answer([text, text_pair])

        function = functions.arrow_udf(classify_pair, kind)
    return spark.udf.register(name, function)


# On the driver


@dataclass(frozen=True)
class SparkWorker:
    """What a worker is handed: plain values, which are pickled with the function."""

    bundle: WorkerBundle
    place: str
    """The path of the bundle, or its name among the files that Spark sent."""

    sent: bool
    """True if Spark sent it."""

    versions: Mapping[str, str]
    """Of the driver's libraries."""


@dataclass(frozen=True)
class _Sent:
    worker: SparkWorker
    outline: BundleOutline


_archives: dict[tuple[str, Path, str], tuple[str, str]] = {}
"""(application or session, bundle, its sha256) -> the name under which Spark sent a copy, and the sha256 of that."""


def _send(session: Any, bundle: str | Path, engine: Engine, precision: ScoringPrecision, shared: bool) -> _Sent:
    """Let Spark send a bundle to the workers, unless it did so before or they see it."""
    if isinstance(bundle, Classifier):
        raise BundleError(
            "a classifier in memory cannot be sent to Spark's workers",
            expected="the folder of a bundle, or its id on the hub",
            got=describe_value(bundle),
            remedy="Save it: classifier.save(FOLDER), and pass the folder.",
        )
    folder = local_bundle(bundle).resolve()
    outline = read_outline(folder, precision)
    place = str(folder)
    if not shared:
        place, digest = _archive(session, folder, outline.digest)
        outline = replace(outline, digest=digest)
    worker = WorkerBundle(outline.digest, engine, precision)
    return _Sent(SparkWorker(worker, place, not shared, scoring_versions()), outline)


def _archive(session: Any, folder: Path, digest: str) -> tuple[str, str]:
    """Let Spark send a copy of a bundle without the hashes of its training texts. Return its name, and its sha256."""
    owner, send = _sender(session)
    key = (owner, folder, digest)
    if key not in _archives:
        holder = Path(tempfile.mkdtemp(prefix="fullbake-spark-"))
        atexit.register(shutil.rmtree, holder, ignore_errors=True)
        copy_for_sharing(folder, holder / "bundle")
        copied = bundle_digest(holder / "bundle")
        name = f"fullbake-{copied[:16]}"
        _pack(holder / "bundle", holder / f"{name}.zip")
        send(f"{holder / name}.zip#{name}")
        _archives[key] = name, copied
    return _archives[key]


def _pack(folder: Path, target: Path) -> None:
    """Write the files of a folder into a zip file, as they are: weights do not shrink."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())


def _sender(session: Any) -> tuple[str, Callable[[str], object]]:
    """Return who keeps what was sent (an application, or a session of Spark Connect), and what sends an archive.

    Raises:
        BundleError: The session can send none.
    """
    try:
        context = session.sparkContext
    except Exception as error:  # Spark Connect has no SparkContext
        if hasattr(session, "addArtifacts"):
            return str(session.session_id), partial(session.addArtifacts, archive=True)
        raise BundleError(
            "this session cannot send a bundle to the workers: it has neither a SparkContext nor addArtifacts",
            remedy="Put the bundle where every worker sees it under the same path, and pass shared=True.",
        ) from error
    return str(context.applicationId), context.addArchive


def _require_spark(*, arrow_functions: bool = False) -> None:
    if not is_installed("pyspark"):
        with name_missing_extra():
            raise ModuleNotFoundError(name="pyspark")
    if arrow_functions:
        from pyspark import __version__ as version
        from pyspark.sql import functions

        if not hasattr(functions, "arrow_udf"):
            raise MissingExtraError(
                f"a function in SQL needs pyspark 4.1 or newer, and {version} is installed",
                remedy="Run: pip install --upgrade 'fullbake[spark]'. Or use fullbake.integrations.spark.score.",
                module="pyspark",
            )


def _require_frame(df: Any) -> None:
    from pyspark.sql import DataFrame

    if not isinstance(df, DataFrame):
        raise DataError(
            "the argument df is no DataFrame of Spark",
            expected="a pyspark.sql.DataFrame",
            got=describe_value(df),
            remedy="For tables in memory there is fullbake.predict_frame, for files fullbake.predict_file.",
        )


def _two(text: str | Sequence[str] | None) -> tuple[str | None, str | None]:
    """Return the names of the two text columns, None where they are not given."""
    given = [text] if isinstance(text, str) else list(text or ())
    if len(given) > 2 or not all(isinstance(name, str) for name in given):
        raise DataError(
            "the argument text cannot be used",
            expected="the name of a column, or the names of two for a classifier of pairs",
            got=f"{len(given)} values" if len(given) > 2 else describe_value(text),
        )
    first, second = (*given, None, None)[:2]
    return first, second


def _checked_kinds(outline: BundleOutline, options: PredictionOptions) -> dict[str, type]:
    if options.threshold is not None:
        with_threshold(outline.decision, options.threshold)
    return added_kinds(outline.problem, outline.label_names, options, cascade=outline.cascade)


def _ignores_case(session: Any) -> bool:
    return str(session.conf.get("spark.sql.caseSensitive", "false")).lower() != "true"


def _find_columns(df: Any, wanted: Sequence[str]) -> list[str]:
    """Return the text columns as the schema spells them; raise DataError if one is missing or holds no plain values."""
    where, names = "the DataFrame", [field.name for field in df.schema.fields]
    check_unique(names, where)
    found = []
    for name in wanted:
        alike = [other for other in names if other.lower() == name.lower()] if _ignores_case(df.sparkSession) else []
        own = name if name in names or len(alike) != 1 else alike[0]
        select_columns(where, tuple(names), [own], " Pass text=NAME.")
        kind = df.schema[own].dataType
        if not kind.typeName().startswith((*_PLAIN_TYPES, "decimal", "void")):
            raise DataError(
                f"column {own!r} does not hold plain values",
                where=where,
                expected="strings, numbers or booleans",
                got=kind.simpleString(),
                remedy=f'Make strings of them: df.withColumn("{own}", ...cast("string")).',
            )
        found.append(own)
    return found


def _schema_with(schema: Any, kinds: Mapping[str, type], *, ignore_case: bool) -> Any:
    """Return Spark's schema of the result."""
    from pyspark.sql import types

    taken = {field.name.lower() if ignore_case else field.name for field in schema.fields}
    result = types.StructType(list(schema.fields))
    for name, kind in kinds.items():
        if (name.lower() if ignore_case else name) in taken:
            raise DataError(
                f"there is a column {name!r} already",
                where="the DataFrame",
                remedy='Pass prefix to put something before the added names, such as prefix="fullbake_".',
            )
        result = result.add(name, getattr(types, _SPARK_KINDS[kind.__name__])(), True)
    return result


# On a worker


def _load(worker: SparkWorker) -> Classifier:
    """Return the classifier, with as many threads as a task has processors."""
    from pyspark import SparkFiles, TaskContext

    task = TaskContext.get()
    bundle = replace(worker.bundle, threads=1 if task is None else max(1, task.cpus()))
    check_scoring_versions(worker.versions)
    folder = Path(SparkFiles.get(worker.place)) if worker.sent else Path(worker.place)
    return load_worker_bundle(bundle, folder)


def _place_of_task() -> str:
    """Return where this task reads, for errors."""
    from pyspark import TaskContext

    task = TaskContext.get()
    return f"the DataFrame, partition {0 if task is None else task.partitionId()} (on {platform.node()})"


def _score_batches(
    worker: SparkWorker,
    columns: Sequence[str],
    options: PredictionOptions,
    names: Sequence[str],
    batches: Iterator["pa.RecordBatch"],
) -> Iterator["pa.RecordBatch"]:
    """Yield Spark's batches with the added columns."""
    import pyarrow as pa

    start, place = 1, _place_of_task()
    for batch in batches:
        for part in _slices(batch, columns):
            texts = [arrow_strings(place, part, name, start) for name in columns]
            with silenced():
                values = predict_columns(_load(worker), texts, options)
            added = [_as_arrow(values[name]) for name in names]
            yield pa.RecordBatch.from_arrays(
                [*part.columns, *added],
                schema=pa.schema([*part.schema, *(pa.field(n, a.type) for n, a in zip(names, added, strict=True))]),
            )
            start += part.num_rows


def _slices(batch: "pa.RecordBatch", columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    """Cut a batch so that a part holds at most ROWS_AT_ONCE rows and about CHUNK_CHARACTERS bytes of text."""
    size = sum(batch.column(name).nbytes for name in columns)
    rows = max(1, min(ROWS_AT_ONCE, CHUNK_CHARACTERS * batch.num_rows // max(1, size)))
    for begin in range(0, batch.num_rows, rows):
        yield batch.slice(begin, rows)


def _as_arrow(values: Any) -> "pa.Array":
    """Return the values of an added column as Spark takes them."""
    import numpy as np
    import pyarrow as pa

    array = np.asarray(values)
    if array.dtype.kind in "OU":
        return pa.array(list(values), pa.string())
    return pa.array(array, pa.float32() if array.dtype.kind == "f" else pa.int16())


def _answer_columns(worker: SparkWorker, options: PredictionOptions, columns: Sequence[Any]) -> "pa.Array":
    """Return the answers of the SQL function for a batch. columns: the texts, one array for each argument."""
    import pyarrow as pa

    names = [f"argument {number}" for number in range(1, 1 + len(columns))]
    batch = pa.RecordBatch.from_arrays(list(columns), names)
    present = [all(column[row].is_valid for column in columns) for row in range(batch.num_rows)]
    known = batch.filter(pa.array(present, pa.bool_()))
    classifier = _load(worker)
    answers: list[Any] = []
    for part in _slices(known, names):
        with silenced():
            answers += _answers(classifier, [arrow_strings(_place_of_task(), part, name, 1) for name in names], options)
    given = iter(answers)
    return pa.array([next(given) if there else None for there in present], _answer_type(classifier, options))


def _answers(classifier: Classifier, texts: Sequence[Sequence[str]], options: PredictionOptions) -> list[Any]:
    if options.top_k is not None:
        return list(classifier.predict(*texts, top_k=options.top_k, threshold=options.threshold))
    found = classifier.predict(*texts, threshold=options.threshold)
    if classifier.problem.exclusive:
        return list(found)
    return [[str(name) for name in classifier.classes_[row.astype(bool)]] for row in found]


def _answer_type(classifier: Classifier, options: PredictionOptions) -> Any:
    import pyarrow as pa

    if options.top_k is not None:
        return pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))
    return pa.string() if classifier.problem.exclusive else pa.list_(pa.string())
