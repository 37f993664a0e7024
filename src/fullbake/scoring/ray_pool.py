"""Score shards on a Ray cluster: Ray Data hands their paths to a pool of actors, each of which holds a classifier.

Ray Data's own readers are not used. They would read other texts than `fullbake predict` does (`01` becomes 1, `NA` a
missing value), and would not keep a file's rows together. What goes through Ray is a path of a shard on the way out,
and a line of JSON on the way back. An actor that dies is started again, and its shard is scored again.
"""

import atexit
import json
import logging
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Final

import numpy as np

from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.sharing import copy_for_sharing
from fullbake.classifier.worker_bundle import WorkerBundle
from fullbake.core import runtime
from fullbake.core.console import say
from fullbake.core.errors import Error, OutputError
from fullbake.core.ray_cluster import ClusterAddress, check_workers, on_every_node, ray_cluster
from fullbake.scoring.ledger import Ledger
from fullbake.scoring.shard_worker import ShardOptions, score_as_json
from fullbake.scoring.shards import InputShard

_MOST_TASKS: Final = 5_000
"""With more shards, several are one task of Ray."""

_TOKEN: Final = "seen-by-the-driver"


class ShardActor:
    """What runs in a worker process of Ray: it scores one shard at a time.

    Args:
        bundle: What scores them.
        place: The folder of the bundle on this machine, or its files by name, as `ray.put` stored them.
        options: How shards are read and written.
    """

    def __init__(self, bundle: WorkerBundle, place: Any, options: ShardOptions) -> None:
        self._bundle, self._options = bundle, options
        self._folder = Path(place) if isinstance(place, str) else _unpack(place)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Score the shards of a batch. Return {"result": one line of JSON for each}."""
        shards = [InputShard(**json.loads(text)) for text in batch["shard"]]
        return {"result": [score_as_json(self._bundle, self._folder, shard, self._options) for shard in shards]}


def score_on_ray(
    address: ClusterAddress,
    bundle: WorkerBundle,
    folder: Path,
    options: ShardOptions,
    jobs: int | None,
    threads: int | None,
    shards: Sequence[InputShard],
) -> Generator[str, None, None]:
    """Score shards on a cluster, and yield what `score_as_json` returned of each, as they end.

    Args:
        address: The cluster.
        bundle: What scores them.
        folder: The folder of the bundle here. Where a node does not see it, its files go through Ray's object store.
        options: How shards are read and written.
        jobs: The number of actors; None takes as many as there are processors for.
        threads: Threads, and processors, of each; None takes one.
        shards: The shards.

    Raises:
        Error: The cluster does not answer, a node has other versions, or does not see input or output.
    """
    if not shards:
        return  # no cluster is needed
    runtime.quiet_ray_backend()
    with ray_cluster(address) as ray:
        check_workers(ray, optional=("torch", "transformers"))  # a bundle with a graph needs neither
        _check_output(ray, Path(options.folder))
        _check_input(ray, shards[0])
        own = replace(bundle, threads=threads or 1)
        gpus = 1.0 if bundle.engine == "torch" and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        actors = min(jobs or _room(ray, own.threads, gpus), len(shards))
        say(f"scoring with {actors:,} actors of {own.threads} thread{'' if own.threads == 1 else 's'} on Ray")
        place, digest = _place(ray, bundle, folder)
        yield from _stream(ray, replace(own, digest=digest), place, options, shards, actors, gpus)


def _room(ray: Any, threads: int, gpus: float) -> int:
    """Return how many actors the cluster has room for, at least one."""
    resources = ray.cluster_resources()
    by_processors = int(resources.get("CPU", 1)) // threads
    return max(1, min(by_processors, int(resources["GPU"] // gpus)) if gpus else by_processors)


def _stream(
    ray: Any,
    bundle: WorkerBundle,
    place: Any,
    options: ShardOptions,
    shards: Sequence[InputShard],
    actors: int,
    gpus: float,
) -> Iterator[str]:
    data: Any = ray.data
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"shard": json.dumps(asdict(shard))} for shard in shards]
    results = data.from_items(items, override_num_blocks=min(len(items), _MOST_TASKS)).map_batches(
        ShardActor,
        fn_constructor_args=(bundle, place, options),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=actors),
        num_cpus=bundle.threads,
        num_gpus=gpus,
    )
    for row in results.iter_rows():
        yield str(row["result"])


# The bundle


def _place(ray: Any, bundle: WorkerBundle, folder: Path) -> tuple[Any, str]:
    """Return where the actors find the bundle, and its digest there.

    That is its path where every node sees it, else its files in the object store, without the hashes of its training
    texts.
    """
    seen = on_every_node(ray, find_digest, str(folder))
    if all(answer == bundle.digest for answer in seen.values()):
        return str(folder), bundle.digest
    blind = sorted(name for name, answer in seen.items() if answer != bundle.digest)
    say(f"{blind[0]} does not see {folder}: the bundle goes to the workers through Ray's object store")
    with TemporaryDirectory(prefix="fullbake-ray-") as holder:
        copied = copy_for_sharing(folder, Path(holder) / "bundle").folder
        return ray.put(_pack(copied)), bundle_digest(copied)


def find_digest(folder: str) -> str | None:
    """Return the digest of a bundle on this machine, None if there is none."""
    try:
        return bundle_digest(Path(folder))
    except (Error, OSError):
        return None


def _pack(folder: Path) -> dict[str, np.ndarray]:
    """Return the files of a bundle by name, as arrays of bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): np.fromfile(path, np.uint8) for path in files}


def _unpack(files: Any) -> Path:
    import ray

    folder = Path(mkdtemp(prefix="fullbake-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, content in ray.get(files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content.tofile(path)
    return folder


# Input and output


def _check_output(ray: Any, folder: Path) -> None:
    """Raise OutputError if a node cannot write into the folder of the output."""
    with Ledger(folder).partial() as own:
        (own / _TOKEN).write_text(_TOKEN)
        for node, answer in on_every_node(ray, try_to_write, str(own)).items():
            if answer != _TOKEN:
                raise OutputError(
                    "this node cannot write the output, or sees another folder of that name",
                    where=node,
                    expected=str(folder),
                    got=None if answer is None else str(answer).strip().splitlines()[-1][:200],
                    remedy="Name a folder with --out that all machines share under the same path.",
                )


def try_to_write(folder: str) -> str | None:
    """Return what the driver wrote into a folder, if this machine sees it and may write there; else None."""
    try:
        text = (Path(folder) / _TOKEN).read_text()
        with TemporaryDirectory(dir=folder):
            return text
    except OSError:
        return None


def _check_input(ray: Any, shard: InputShard) -> None:
    """Raise OutputError if a node does not see a shard that is a file. Addresses are read by each node itself."""
    if shard.is_remote:
        return
    for node, answer in on_every_node(ray, find_size, shard.place).items():
        if answer != shard.size:
            raise OutputError(
                "this node does not see the input",
                where=node,
                expected=f"{shard.place} of {shard.size:,} bytes",
                got="nothing" if answer is None else str(answer).strip().splitlines()[-1][:200],
                remedy="Put the input on a folder that all machines share under the same path, or give an address such "
                "as s3://bucket/folder.",
            )


def find_size(path: str) -> int | None:
    """Return the bytes of a file, None if this machine does not see it."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
