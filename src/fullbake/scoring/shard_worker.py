"""Score one shard: fetch it if it is elsewhere, read it as `predict_file` does, write its rows, and say what was done.

A shard is streamed in chunks, so a worker's memory does not grow with it. What comes back is JSON: the facts of the
shard, or why it cannot be read.
"""

import json
import logging
import platform
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fullbake.classifier.model import Classifier
from fullbake.classifier.predict import open_table_as_trained, predict_file
from fullbake.classifier.worker_bundle import WorkerBundle, load_worker_bundle
from fullbake.core.console import log, silenced
from fullbake.core.errors import DataError, Error, OutputError
from fullbake.core.hashing import file_sha256
from fullbake.core.storage import translate_full_disk
from fullbake.scoring.ledger import MOST_ATTEMPTS, BadShard, Ledger, ShardFacts, make_facts
from fullbake.scoring.shards import InputShard, address_error, open_address

_MOST_WARNINGS = 3


@dataclass(frozen=True)
class ShardOptions:
    """How every shard of a run is read and written: plain values, which go to the workers."""

    folder: str
    """The folder of the scored rows."""

    reading: Mapping[str, Any]
    """`text`, `text_pair` and the fields of Dialect that were given."""

    writing: Mapping[str, Any]
    """`prefix`, `top_k`, `threshold` and `labels_only`."""

    names: tuple[str, ...] | None
    """The columns that every shard must have; None where a format has no fixed columns."""


def score_shard(classifier: Classifier, shard: InputShard, options: ShardOptions) -> ShardFacts | BadShard:
    """Score a shard into the folder of the run, unless that is done already.

    Args:
        classifier: It scores the rows.
        shard: The shard.
        options: How it is read and written.

    Returns:
        What is noted of it; or why it cannot be read, with the place of the row.
    """
    ledger = Ledger(Path(options.folder))
    finished = ledger.find_finished(shard)
    if finished is not None:
        return finished
    if not ledger.begin(shard):
        reason = f"its worker died {MOST_ATTEMPTS} times; the shard may need more memory than a worker has"
        return BadShard(name=shard.name, error=f"{shard.place}: {reason}", machine=platform.node())
    try:
        with ledger.partial() as folder, _collected_warnings() as lines, silenced():
            begun = time.monotonic()
            written = folder / PurePosixPath(shard.output_name).name
            rows, digest = _score_file(classifier, shard, options, written)
            facts = make_facts(
                shard,
                written,
                rows=rows,
                input_sha256=digest,
                machine=platform.node(),
                seconds=round(time.monotonic() - begun, 3),
                warnings=lines[:_MOST_WARNINGS],
            )
            ledger.publish(shard, written, facts)
            result: ShardFacts | BadShard = facts
    except DataError as error:
        ledger.withdraw(shard)
        result = BadShard(name=shard.name, error=str(error), machine=platform.node())
    ledger.end(shard)
    return result


def score_as_json(bundle: WorkerBundle, folder: Path, shard: InputShard, options: ShardOptions) -> str:
    """Score a shard in a worker process, and return JSON that `parse_result` reads and checks.

    Args:
        bundle: What scores it.
        folder: Where the bundle is on this machine.
        shard: The shard.
        options: How it is read and written.
    """
    try:
        result = score_shard(load_worker_bundle(bundle, folder), shard, options).model_dump(mode="json")
    except Exception as error:  # anything else than a bad shard ends the run, and the driver says why
        text = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        trace = "" if isinstance(error, Error) else traceback.format_exc()
        result = {"name": shard.name, "fault": text, "machine": platform.node(), "trace": trace}
    return json.dumps(result, ensure_ascii=False)


def _score_file(classifier: Classifier, shard: InputShard, options: ShardOptions, written: Path) -> tuple[int, str]:
    """Write the scored rows of a shard. Return their number, and the sha256 of the shard."""
    with fetched(shard) as path:
        _check_unchanged(shard, path)
        digest = file_sha256(path)
        table = open_table_as_trained(classifier, path, **options.reading)
        check_names(shard, table.names, options.names)
        rows = predict_file(classifier, table, written, **_columns(options.reading), **options.writing)
        _check_unchanged(shard, path)
        return rows, digest


def _columns(reading: Mapping[str, Any]) -> dict[str, Any]:
    return {name: reading[name] for name in ("text", "text_pair") if name in reading}


def check_names(shard: InputShard, names: tuple[str, ...], expected: tuple[str, ...] | None) -> None:
    """Raise DataError if a shard has other columns than the first one."""
    if expected is not None and names != expected:
        raise DataError(
            "this shard has other columns than the first",
            where=shard.place,
            expected=", ".join(map(repr, expected)),
            got=", ".join(map(repr, names)),
            remedy="Write all files with the same columns, in the same order.",
        )


@contextmanager
def fetched(shard: InputShard) -> Iterator[Path]:
    """Provide a shard as a file of this machine.

    Args:
        shard: The shard.

    Yields:
        Its path, or that of a copy that is removed at the end.

    Raises:
        DataError: It cannot be fetched.
        OutputError: This machine does not see it.
    """
    if not shard.is_remote:
        path = Path(shard.place)
        if not path.is_file():
            raise OutputError(
                "this machine cannot see a file of the input",
                where=f"{shard.place} on {platform.node()}",
                remedy="Put the input on a folder that every machine sees under the same path, or give an address "
                "such as s3://bucket/folder.",
            )
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fullbake-shard-") as folder:
        path = Path(folder) / PurePosixPath(shard.name).name
        fetch_address(shard.place, path)
        try:
            yield path
        except DataError as error:  # its place is the address, not the copy
            where = None if error.where is None else error.where.replace(str(path), shard.place)
            raise DataError(
                error.what, where=where, expected=error.expected, got=error.got, remedy=error.remedy
            ) from error


def fetch_address(address: str, target: Path) -> None:
    """Copy a file that pyarrow reads to this machine.

    Raises:
        DataError: It cannot be read.
        SpaceFault: There is no room for it.
        Error: The store does not answer.
    """
    from pyarrow import ArrowException

    system, path = open_address(address)
    try:
        # No decompression: the reader does that, by the ending of the name.
        with (
            translate_full_disk(target.parent, target, 0),
            system.open_input_stream(path, compression=None) as stream,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(stream, file, 1 << 20)
    except (ArrowException, OSError) as error:
        raise address_error(address, error) from None


def _check_unchanged(shard: InputShard, path: Path) -> None:
    """Raise DataError if a file is no longer the one that was found when the run began."""
    status = path.stat()
    if status.st_size != shard.size or (not shard.is_remote and status.st_mtime_ns != shard.changed):
        raise DataError(
            "the file changed while it was being scored",
            where=shard.place,
            expected=f"{shard.size:,} bytes, as when this run began",
            got=f"{status.st_size:,} bytes",
            remedy="Run the same command again when nobody writes the input.",
        )


class _Collector(logging.Handler):
    """Collects warnings, so that the driver can show them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(record.getMessage())


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Within the block, collect the warnings of fullbake in place of showing them."""
    collector, propagate, handlers = _Collector(), log.propagate, log.handlers
    log.propagate, log.handlers = False, [collector]
    try:
        yield collector.lines
    finally:
        log.propagate, log.handlers = propagate, handlers
