"""The folder of a run: a shard is finished or not, and the folder belongs to one plan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fullbake.core.errors import OutputError
from fullbake.core.json_files import read_checked_json
from fullbake.scoring.ledger import (
    MANIFEST_NAME,
    MOST_ATTEMPTS,
    BadShard,
    Ledger,
    ShardFacts,
    WorkerFault,
    close_ledger,
    make_facts,
    open_ledger,
    parse_result,
)
from fullbake.scoring.shards import InputShard

SHARD = InputShard("day=1/a.csv.gz", "/in/day=1/a.csv.gz", 7, 5)
PLAN: dict[str, Any] = {"input": "/in", "bundle": {"sha256": "1"}, "options": {"top_k": 2}}


def publish(ledger: Ledger, shard: InputShard = SHARD) -> ShardFacts:
    with ledger.partial() as folder:
        written = folder / "a.csv"
        written.write_text("text\nx\n")
        facts = make_facts(shard, written, rows=1, input_sha256="0", machine="m", seconds=0.5, warnings=[])
        ledger.publish(shard, written, facts)
    return facts


def test_a_published_shard_is_finished_until_it_or_its_input_changes(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "out", PLAN, overwrite=False)
    assert ledger.find_finished(SHARD) is None
    facts = publish(ledger)
    assert ledger.find_finished(SHARD) == facts
    assert ledger.find_finished(replace(SHARD, changed=6)) is None
    assert not list((tmp_path / "out" / "_partial").iterdir())
    (tmp_path / "out" / "day=1" / "a.csv").write_text("")
    assert ledger.find_finished(SHARD) is None


def test_a_shard_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "out", PLAN, overwrite=False)
    assert [ledger.begin(SHARD) for _ in range(MOST_ATTEMPTS + 1)] == [True] * MOST_ATTEMPTS + [False]
    ledger.end(SHARD)
    assert ledger.begin(SHARD)


def test_the_same_plan_goes_on_and_others_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(open_ledger(out, PLAN, overwrite=False))
    assert open_ledger(out, PLAN, overwrite=False).find_finished(SHARD)
    for change, words in (
        ({"bundle": {"sha256": "2"}}, "another bundle"),
        ({"options": {}}, r"other options.\nExpected top-k 2; got no top-k.*--out.*--overwrite"),
        ({"input": "/other"}, "another input"),
    ):
        with pytest.raises(OutputError, match=f"(?s){words}"):
            open_ledger(out, PLAN | change, overwrite=False)
    ledger = open_ledger(out, PLAN | {"options": {}}, overwrite=True)
    assert ledger.find_finished(SHARD) is None
    assert not (out / "day=1" / "a.csv").exists()


def test_nothing_foreign_is_written_over_or_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"(?s)not of an earlier run.*mine\.csv"):
            open_ledger(tmp_path, PLAN, overwrite=overwrite)
    with pytest.raises(OutputError, match="a file has this name"):
        open_ledger(tmp_path / "mine.csv", PLAN, overwrite=False)
    (tmp_path / "mine.csv").unlink()
    publish(open_ledger(tmp_path, PLAN, overwrite=False))
    (tmp_path / "mine.csv").write_text("x")
    open_ledger(tmp_path, PLAN, overwrite=True)
    assert (tmp_path / "mine.csv").read_text() == "x"


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"format": 1}')
    with pytest.raises(OutputError, match="manifest of this folder is damaged"):
        open_ledger(tmp_path, PLAN, overwrite=False)


def test_the_manifest_has_all_shards_and_the_bad_ones(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, PLAN, overwrite=False)
    bad = BadShard(name="b.csv", error="b.csv, line 2: wrong", machine="m")
    assert close_ledger(ledger, PLAN, [publish(ledger)], [bad], {"fullbake": "0"}) == 1
    found = read_checked_json(tmp_path / MANIFEST_NAME)
    assert (found["state"], found["rows"], found["plan"]) == ("finished but for bad shards", 1, PLAN)
    assert found["shards"][0]["name"] == SHARD.name
    assert found["bad"] == [bad.model_dump()]


def test_what_workers_return_is_checked(tmp_path: Path) -> None:
    facts = publish(open_ledger(tmp_path, PLAN, overwrite=False))
    bad, fault = BadShard(name="a", error="e", machine="m"), WorkerFault(name="a", fault="f", machine="m", trace="")
    for result in (facts, bad, fault):
        assert parse_result(result.model_dump_json()) == result
    for text in ("", "[]", "{}", '{"name": "a", "error": 1, "machine": "m"}', facts.model_dump_json()[:-2]):
        with pytest.raises(ValueError):
            parse_result(text)
