"""One shard: read as a file alone, written whole or not at all, and described."""

import errno
import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.served_models import BUNDLE, make_source
from helpers.shards import write_shards

from fullbake import predict_file
from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.worker_bundle import WorkerBundle
from fullbake.config.sections import Dialect
from fullbake.core.hashing import file_sha256
from fullbake.scoring import shard_worker
from fullbake.scoring.ledger import BadShard, ShardFacts, WorkerFault, open_ledger, parse_result
from fullbake.scoring.shard_worker import ShardOptions, score_as_json, score_shard
from fullbake.scoring.shards import InputShard, find_shards

CLASSIFIER = make_source("one", ("a", "b", "c")).load()


def options(folder: Path, **changes: Any) -> ShardOptions:
    open_ledger(folder, {}, overwrite=False)
    return replace(ShardOptions(str(folder), {}, {}, None), **changes)


def one_shard(source: Path | str) -> InputShard:
    (shard,) = find_shards(source, Dialect())
    return shard


def test_a_shard_is_scored_as_a_file_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "in", shards=1)
    how = options(tmp_path / "out", writing={"top_k": 1}, names=("id", "text"))
    facts = score_shard(CLASSIFIER, one_shard(folder), how)
    predict_file(CLASSIFIER, folder / "part-0.csv", tmp_path / "alone.csv", top_k=1)
    written = tmp_path / "out" / "part-0.csv"
    assert written.read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert isinstance(facts, ShardFacts)
    assert (facts.rows, facts.sha256) == (6, file_sha256(written))
    assert facts.input_sha256 == file_sha256(folder / "part-0.csv")
    changed = written.stat().st_mtime_ns
    assert score_shard(CLASSIFIER, one_shard(folder), how) == facts
    assert written.stat().st_mtime_ns == changed, "a finished shard is not written again"


def test_an_address_and_a_compressed_shard_give_the_same(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "in", shards=1)
    (folder / "part-0.csv.gz").write_bytes(gzip.compress((folder / "part-0.csv").read_bytes()))
    (folder / "part-0.csv").unlink()
    for name, source in (("disk", folder), ("address", folder.as_uri())):
        facts = score_shard(CLASSIFIER, one_shard(source), options(tmp_path / name))
        assert isinstance(facts, ShardFacts)
    assert (tmp_path / "disk" / "part-0.csv").read_text() == (tmp_path / "address" / "part-0.csv").read_text()


@pytest.mark.parametrize("remote", [False, True])
def test_a_bad_shard_is_named_with_its_row_and_leaves_nothing(tmp_path: Path, remote: bool) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text('text\ngood\n"never closed\n')
    source = folder.as_uri() if remote else folder
    found = score_shard(CLASSIFIER, one_shard(source), options(tmp_path / "out"))
    assert isinstance(found, BadShard)
    place = f"{folder.as_uri()}/a.csv" if remote else str(folder / "a.csv")
    assert found.error.startswith(f"{place}, line 3: a quote is never closed")
    assert [path.name for path in (tmp_path / "out").rglob("a.csv*")] == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject operation"), "does not answer"),
    ],
)
def test_a_full_disk_and_a_silent_store_are_no_fault_of_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    class Store:
        def open_input_stream(self, path: str, compression: None) -> Any:
            raise error

    monkeypatch.setattr(shard_worker, "open_address", lambda address: (Store(), "a.csv"))
    shard = InputShard("a.csv", "s3://bucket/a.csv", 1, 1)
    found = parse_result(score_as_json(WorkerBundle(bundle_digest(BUNDLE)), BUNDLE, shard, options(tmp_path / "out")))
    assert isinstance(found, WorkerFault)
    assert words in found.fault


def test_other_columns_and_a_changed_file_are_bad_shards(tmp_path: Path) -> None:
    shard = one_shard(write_shards(tmp_path / "in", shards=1))
    found = score_shard(CLASSIFIER, shard, options(tmp_path / "out", names=("text",)))
    assert isinstance(found, BadShard)
    assert "other columns than the first" in found.error
    found = score_shard(CLASSIFIER, replace(shard, changed=1), options(tmp_path / "out"))
    assert isinstance(found, BadShard)
    assert "changed while it was being scored" in found.error


def test_warnings_come_back_with_the_facts(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text,,\nx,y,\n")
    facts = score_shard(CLASSIFIER, one_shard(tmp_path / "in"), options(tmp_path / "out", reading={"text": "text"}))
    assert isinstance(facts, ShardFacts)
    assert "columns without a name" in facts.warnings[0]


def test_a_worker_that_cannot_load_the_bundle_says_so(tmp_path: Path) -> None:
    shard = one_shard(write_shards(tmp_path / "in", shards=1))
    bundle = WorkerBundle("0" * 64)
    found = parse_result(score_as_json(bundle, BUNDLE, shard, options(tmp_path / "out")))
    assert isinstance(found, WorkerFault)
    assert "another bundle than the driver" in found.fault
    assert found.trace == ""
    bundle = WorkerBundle(bundle_digest(BUNDLE), "torch")
    assert isinstance(parse_result(score_as_json(bundle, BUNDLE, shard, options(tmp_path / "out"))), ShardFacts)
