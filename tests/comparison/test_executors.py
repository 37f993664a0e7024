"""Trials in real processes, and on a real Ray cluster of one node: the leaderboard is that of one process."""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.executed import run_comparison, scores_of, stored_arrays

from fullbake.comparison import executors
from fullbake.comparison.executors import ProcessExecutor, RayExecutor, TaskNeeds, divide_threads, shares_folder
from fullbake.comparison.packing import Assignment, join_message
from fullbake.comparison.schedule import NextTrial, Trial
from fullbake.comparison.trial_work import TrialTask
from fullbake.core.ray_cluster import ClusterAddress, ray_cluster

Bases = Callable[..., Path]
Local = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def local(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The comparison in this process: (parent of its folder, leaderboard)."""
    folder = tmp_path_factory.mktemp("local")
    return folder, run_comparison(bases("bert"), folder)


def assignment(name: str = "frozen-linear") -> Assignment:
    trial = Trial(name, 0)
    return Assignment(TrialTask(trial), NextTrial(trial, "sweep", 1.0, True), 1, None, 0.5)


def shell(code: str) -> Callable[..., Any]:
    """Return what starts a shell in place of a worker."""
    real = executors.subprocess.Popen
    return lambda _, **kind: real(["sh", "-c", code], **kind)


def test_two_processes_give_the_same_bits(local: Local, bases: Bases, tmp_path: Path) -> None:
    board = run_comparison(bases("bert"), tmp_path, jobs=2)
    assert stored_arrays(tmp_path) == stored_arrays(local[0])
    assert scores_of(board) == scores_of(local[1])


def test_a_process_that_dies_runs_its_trial_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, words in (("kill -9 $$", "signal 9, probably for lack of memory"), ("echo boom >&2; exit 3", "boom")):
        with monkeypatch.context() as patch:
            patch.setattr(executors.subprocess, "Popen", shell(code))
            with executors.closing(ProcessExecutor(b"package", 1)) as executor:
                executor.submit(assignment())
                assert list(executor.progress()) == ["frozen-linear/0"]
                end, found = time.monotonic() + 20, []
                while not found and time.monotonic() < end:
                    found = executor.wait(1.0)
        assert [(one.id, one.data, one.reason) for one in found] == [("frozen-linear/0", None, words)]


def test_a_free_process_that_is_dead_gets_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes died together: what one of them did is not given to the other one."""
    made: list[Any] = []
    start_shell = shell("cat >/dev/null")

    def start(command: Any, **kind: Any) -> Any:
        made.append(start_shell(command, **kind))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(executors.subprocess, "Popen", start)
        with executors.closing(ProcessExecutor(b"package", 2)) as executor:
            executor.submit(assignment())
            executor._crew[0].assignment = None  # it is done
            made[0].kill()
            made[0].wait()
            executor.submit(assignment("frozen-mlp"))
            assert [one.machine for one in executor.progress().values()] == ["process 2"]


def test_a_process_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "SAVE_SECONDS", 0.3)
    made: list[Any] = []
    start_shell = shell("trap '' TERM; while true; do sleep 0.1; done")

    def start(command: Any, **kind: Any) -> Any:
        made.append(start_shell(command, **kind))
        return made[-1]

    monkeypatch.setattr(executors.subprocess, "Popen", start)
    executor = ProcessExecutor(b"package", 2)
    executor.submit(assignment())
    executor.submit(assignment("frozen-mlp"))
    assert executor.wait(0.1) == []
    executor.cancel("frozen-mlp/0")
    assert made[1].returncode == -signal.SIGKILL
    executor.close()
    assert made[0].returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fullbake[ray]'")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_worker_niceness", "0")  # Ray's workers would wait for all other processes
    with (
        tempfile.TemporaryDirectory(prefix="fb", ignore_cleanup_errors=True) as folder,
        ray_cluster(ClusterAddress(fresh=True), cpus=1, folder=folder, object_store_memory=100_000_000) as connected,
    ):
        yield connected
    patch.undo()


def test_a_ray_cluster_gives_the_same_bits(ray: Any, local: Local, bases: Bases, tmp_path: Path) -> None:
    board = run_comparison(bases("bert"), tmp_path, on="ray")
    assert stored_arrays(tmp_path) == stored_arrays(local[0])
    assert scores_of(board) == scores_of(local[1])
    assert ray.is_initialized(), "a connection of the caller's stays"


def test_folders_that_nodes_see(ray: Any, tmp_path: Path) -> None:
    assert shares_folder(ray, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_task_that_fails_at_ray_is_told(ray: Any) -> None:
    executor = RayExecutor(ray, join_message({"no": "package"}, {}), TaskNeeds(1))
    assert executor.workers == 1
    executor.submit(assignment())
    end, found = time.monotonic() + 60, []
    while not found and time.monotonic() < end:
        found = executor.wait(1.0)
    (returned,) = found
    assert returned.data is None
    assert "KeyError" in returned.reason
    executor.close()


def test_what_a_trial_asks_of_a_node() -> None:
    node = {"Alive": True, "Resources": {"CPU": 8, "GPU": 2}}
    fake = SimpleNamespace(_room_on=None, needs=TaskNeeds(3, 1.0))
    assert RayExecutor._room_on(fake, node["Resources"]) == 2  # type: ignore[arg-type]
    fake.needs = TaskNeeds(3)
    assert RayExecutor._room_on(fake, node["Resources"]) == 2  # type: ignore[arg-type]
    fake.needs = TaskNeeds(9)
    assert RayExecutor._room_on(fake, node["Resources"]) == 0  # type: ignore[arg-type]


def test_threads_are_divided() -> None:
    assert divide_threads(2, 3) == 3
    assert divide_threads(10_000, None) == 1
