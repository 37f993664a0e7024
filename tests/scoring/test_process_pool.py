"""Several processes score each shard once, also where one of them is killed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.shards import killer, read_rows, write_shards

from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.worker_bundle import WorkerBundle
from fullbake.config.sections import Dialect
from fullbake.scoring.ledger import ShardFacts, open_ledger, parse_result
from fullbake.scoring.process_pool import score_in_processes
from fullbake.scoring.shard_worker import ShardOptions
from fullbake.scoring.shards import find_shards


def test_killed_processes_cost_no_row(
    graph_bundles: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = graph_bundles("bert"), tmp_path / "out"
    shards = find_shards(write_shards(tmp_path / "in", shards=3, rows=400), Dialect())
    bundle = WorkerBundle(bundle_digest(folder), "onnx")
    open_ledger(out, {}, overwrite=False)
    options = ShardOptions(str(out), {}, {}, None)
    with killer(out, deaths=2) as killed:
        results = [parse_result(text) for text in score_in_processes(bundle, folder, shards, options, jobs=2)]
    assert len(killed) == 2
    assert "a worker process ended with code -9" in caplog.text
    assert sorted(result.name for result in results if isinstance(result, ShardFacts)) == [
        shard.name for shard in shards
    ]
    assert [row.split(",")[0] for row in read_rows(out)] == sorted(f"0{number}" for number in range(1200))
