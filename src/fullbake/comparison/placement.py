"""Which executor a call of `compare` uses: none, processes of this machine, or a Ray cluster; with how many threads."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.comparison.dispatcher import Dispatcher
from fullbake.comparison.executors import (
    Executor,
    ProcessExecutor,
    RayExecutor,
    TaskNeeds,
    closing,
    divide_threads,
    shares_folder,
)
from fullbake.comparison.packing import Assignment, WorkPackage
from fullbake.comparison.runner import Runner
from fullbake.core import runtime
from fullbake.core.arguments import describe_value
from fullbake.core.console import say, warn
from fullbake.core.errors import RecipeError
from fullbake.core.processors import ThreadSetting
from fullbake.core.ray_cluster import check_folder_visible, check_workers, live_nodes, parse_on, ray_cluster

RAY_THREADS: Final = 4
"""Threads of a trial on a cluster if the call does not say, or as many as the smallest node has."""

MEMORY_MARGIN: Final = 1.2
"""A trial asks for this many times the memory that a trial of the same recipe took."""


@dataclass(frozen=True)
class Placement:
    """Where the trials of a comparison run, if not in this process."""

    threads: int
    """Threads of each trial."""
    jobs: int | None
    """Trials at once; None for as many as the cluster has room for."""
    ray: Any = None
    """The module, connected; None for processes of this machine."""

    def run(self, runner: Runner, cache_dir: str | Path | None) -> None:
        """Run the trials of a runner there.

        Args:
            runner: Keeps the results.
            cache_dir: Holds all caches; None for the default.
        """
        package = _package(runner, cache_dir)
        shares_cache = shares_out = True
        executor: Executor
        if self.ray is None:
            assert self.jobs is not None
            executor = ProcessExecutor(package.to_bytes(), self.jobs)
        else:
            _check_corpora(self.ray, runner)
            shares_cache = shares_folder(self.ray, runtime.cache_dir(cache_dir))
            shares_out = shares_folder(self.ray, runner.settings.store.root)
            gpus = 0.0 if runtime.device().type == "cpu" else 1.0
            needs = TaskNeeds(self.threads, gpus, lambda assignment: _memory_of(runner, assignment))
            executor = RayExecutor(self.ray, package.to_bytes(), needs, self.jobs)
            _say_sharing(shares_cache, shares_out)
        with closing(executor):
            Dispatcher(
                runner,
                executor,
                package,
                threads=self.threads,
                shares_out=shares_out,
                sends_entries=not shares_cache,
            ).run()

    def workers(self) -> int:
        """Return how many trials run at once, about."""
        if self.ray is None:
            return self.jobs or 1
        cpus = [int(node["Resources"].get("CPU", 0) // self.threads) for node in live_nodes(self.ray)]
        return max(min(sum(cpus), self.jobs or sum(cpus)), 1)


@contextlib.contextmanager
def placed(on: str | None, jobs: int | None, threads: ThreadSetting) -> Iterator[Placement | None]:
    """Connect to where the trials run.

    Args:
        on: `ray`, `ray:local` or `ray:HOST:PORT`; None for this machine.
        jobs: Trials at once.
        threads: Threads of each trial.

    Yields:
        Where they run; None if they run in this process, one after the other.

    Raises:
        RecipeError: The number of jobs is none.
        Error: The cluster cannot be used: `ray_cluster`, `check_workers`.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise RecipeError(
            "this is no number of trials at once", where="--jobs", expected="1 or more", got=describe_value(jobs)
        )
    wanted = threads if isinstance(threads, int) else None
    if on is None:
        yield None if jobs in (None, 1) else _on_this_machine(jobs, wanted)
        return
    address = parse_on(on)
    with ray_cluster(address) as ray:
        check_workers(ray)
        nodes = [int(node["Resources"].get("CPU", 0)) for node in live_nodes(ray)]
        _check_cluster(ray, nodes, wanted)
        yield Placement(wanted or max(min(RAY_THREADS, *nodes), 1), jobs, ray)


def _on_this_machine(jobs: int, threads: int | None) -> Placement:
    own, processors = divide_threads(jobs, threads), runtime.count_processors()
    if jobs * own > processors:
        warn(
            f"--jobs {jobs} with {own} {'thread' if own == 1 else 'threads'} each are more than the {processors} "
            "processors of this machine: they wait for each other"
        )
    if runtime.device().type != "cpu":
        warn(f"--jobs {jobs}: the trials share one {runtime.device().type} device and its memory")
    return Placement(own, jobs)


def _check_cluster(ray: Any, nodes: Sequence[int], threads: int | None) -> None:
    if threads is not None and threads > max(nodes):
        raise RecipeError(
            "no node of the cluster has so many processors",
            where="--threads",
            expected=f"at most {max(nodes)}",
            got=str(threads),
            remedy="Trials of other numbers of threads cannot be compared bit for bit.",
        )
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus and runtime.device().type == "cpu":
        warn(f"the {gpus:g} GPUs of the cluster are not used: run the command on a machine that has one")


def _package(runner: Runner, cache_dir: str | Path | None) -> WorkPackage:
    settings = runner.settings
    return WorkPackage(
        candidates=settings.candidates,
        base_keys={name: jobs[0].base for name, jobs in settings.jobs.items()},
        folds=settings.folds,
        metric=settings.metric,
        decision=settings.decision,
        facts={
            "cache_dir": None if cache_dir is None else str(Path(cache_dir).absolute()),
            "folder": os.getcwd(),
            "device": runtime.device().type,
        },
    )


def _check_corpora(ray: Any, runner: Runner) -> None:
    """Raise an error unless all nodes see the files that further pretraining reads beside the rows."""
    recipes = [one.recipe for one in runner.settings.candidates.values() if one.recipe is not None]
    stages = [recipe.further_pretraining for recipe in recipes if recipe.further_pretraining is not None]
    for path in dict.fromkeys(str(path) for stage in stages for path in stage.corpus or ()):
        check_folder_visible(ray, path)


def _memory_of(runner: Runner, assignment: Assignment) -> int | None:
    """Return the bytes that a trial may need, by those of the same recipe; None before any is finished."""
    own = runner.results.get(assignment.task.trial.candidate)
    seen = [] if own is None else [one.memory for one in own.trials.values() if one.memory]
    return int(MEMORY_MARGIN * max(seen)) if seen else None


def _say_sharing(shares_cache: bool, shares_out: bool) -> None:
    if not shares_cache:
        say("the nodes share no cache folder: features and bases go through Ray (--cache-dir names a shared one)")
    if not shares_out:
        say("the nodes do not see the folder of --out: a trial whose node dies begins anew, without checkpoints")
