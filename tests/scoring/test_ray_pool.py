"""Shards on a Ray cluster: the same rows as here, once each, although actors are killed; and what nodes must see."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.shards import killer, write_shards

from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.worker_bundle import WorkerBundle
from fullbake.core.errors import OutputError
from fullbake.core.ray_cluster import ClusterAddress, ray_cluster
from fullbake.scoring import ray_pool, run
from fullbake.scoring.ledger import Ledger, open_ledger
from fullbake.scoring.ray_pool import ShardActor, find_digest, find_size, try_to_write
from fullbake.scoring.run import predict_shards
from fullbake.scoring.shard_worker import ShardOptions
from fullbake.scoring.shards import InputShard

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray Data's own settings


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One cluster on this machine; Ray keeps processes connected to it, so runs do not start their own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fullbake[ray]'")
    with (
        tempfile.TemporaryDirectory(prefix="fb", ignore_cleanup_errors=True) as folder,
        ray_cluster(ClusterAddress(fresh=True), cpus=2, folder=folder, object_store_memory=100_000_000) as connected,
    ):
        yield connected


def test_two_killed_actors_cost_no_row(
    ray: Any, graph_bundles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, source, out = graph_bundles("bert"), write_shards(tmp_path / "in", shards=3, rows=300), tmp_path / "out"
    expected = predict_shards(bundle, source, tmp_path / "here", threads=1)
    with ExitStack() as stack:
        deaths: list[list[str]] = []

        def open_with_killer(*arguments: Any, **options: Any) -> Ledger:
            ledger = open_ledger(*arguments, **options)
            deaths.append(stack.enter_context(killer(out, deaths=2)))
            return ledger

        monkeypatch.setattr(run, "open_ledger", open_with_killer)
        done = predict_shards(bundle, source, out, on="ray", jobs=1)
    assert [sorted(names) for names in deaths] == [["part-0.csv.txt", "part-1.csv.txt"]]
    assert done.rows == expected.rows == 900
    for path in source.iterdir():
        assert (out / path.name).read_bytes() == (tmp_path / "here" / path.name).read_bytes()
    assert predict_shards(bundle, source, out, on="ray").scored == 0


def test_a_bundle_that_nodes_do_not_see_goes_through_the_object_store(
    ray: Any, graph_bundles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = WorkerBundle(bundle_digest(graph_bundles("bert")), "onnx")
    monkeypatch.setattr(ray_pool, "on_every_node", lambda *_: {"n1": bundle.digest, "n2": None})
    place, digest = ray_pool._place(ray, bundle, graph_bundles("bert"))
    options = ShardOptions(str(tmp_path / "out"), {}, {}, None)
    open_ledger(tmp_path / "out", {}, overwrite=False)
    actor = ShardActor(WorkerBundle(digest, "onnx"), place, options)
    folder = actor._folder
    assert bundle_digest(folder) == digest
    assert not (folder / "seen.safetensors").exists()


def test_nodes_that_do_not_see_input_or_output_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "on_every_node", lambda *_: {"n7 (10.0.0.7)": None})
    with pytest.raises(OutputError, match=r"(?s)n7.*cannot write the output.*--out"):
        ray_pool._check_output(None, tmp_path)
    shard = InputShard("a.csv", str(tmp_path / "a.csv"), 3, 1)
    with pytest.raises(OutputError, match=r"(?s)n7.*does not see the input.*s3://"):
        ray_pool._check_input(None, shard)
    ray_pool._check_input(None, InputShard("a.csv", "s3://bucket/a.csv", 3, 1))


def test_what_a_node_answers(tmp_path: Path) -> None:
    assert try_to_write(str(tmp_path)) is None
    (tmp_path / "seen-by-the-driver").write_text("seen-by-the-driver")
    assert try_to_write(str(tmp_path)) == "seen-by-the-driver"
    assert find_size(str(tmp_path / "seen-by-the-driver")) == len("seen-by-the-driver")
    assert find_size(str(tmp_path / "gone")) is None
    assert find_digest(str(tmp_path)) is None


def test_room_for_actors() -> None:
    class Cluster:
        def __init__(self, **resources: float) -> None:
            self.cluster_resources = lambda: resources

    assert ray_pool._room(Cluster(CPU=8.0), 2, 0.0) == 4
    assert ray_pool._room(Cluster(CPU=1.0), 2, 0.0) == 1
    assert ray_pool._room(Cluster(CPU=16.0, GPU=2.0), 1, 1.0) == 2
