"""Where trials run, and with how many threads."""

from types import SimpleNamespace
from typing import Any

import pytest

from fullbake.comparison import placement
from fullbake.comparison.placement import Placement, placed
from fullbake.core import runtime
from fullbake.core.errors import Error, RecipeError


def cluster(*cpus: int, gpus: int = 0) -> Any:
    """Return as much of Ray as a placement asks."""
    nodes = [{"Alive": True, "Resources": {"CPU": count}} for count in cpus]
    return SimpleNamespace(nodes=lambda: nodes, cluster_resources=lambda: {"GPU": gpus})


@pytest.mark.parametrize(
    ("jobs", "threads", "expected"),
    [(2, "auto", 4), (3, "auto", 2), (16, "auto", 1), (2, 3, 3)],
)
def test_processors_are_divided(monkeypatch: pytest.MonkeyPatch, jobs: int, threads: Any, expected: int) -> None:
    monkeypatch.setattr(runtime, "count_processors", lambda: 8)
    with placed(None, jobs, threads) as found:
        assert found is not None
        assert (found.threads, found.workers()) == (expected, jobs)


@pytest.mark.parametrize("jobs", [None, 1])
def test_one_job_runs_in_this_process(jobs: int | None) -> None:
    with placed(None, jobs, "auto") as found:
        assert found is None


def test_more_threads_than_processors_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "count_processors", lambda: 2)
    with caplog.at_level("WARNING"), placed(None, 2, 2):
        pass
    assert "more than the 2 processors" in caplog.text


@pytest.mark.parametrize(
    ("nodes", "jobs", "threads", "expected"),
    [((8, 8), None, 4, 4), ((8, 4), 2, 4, 2), ((1, 1, 1), None, 1, 3), ((2, 1), None, 4, 1)],
)
def test_workers_of_a_cluster(nodes: tuple[int, ...], jobs: int | None, threads: int, expected: int) -> None:
    assert Placement(threads, jobs, cluster(*nodes)).workers() == expected


def test_too_many_threads_for_any_node(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RecipeError, match=r"--threads(.|\n)*at most 4"):
        placement._check_cluster(cluster(4, 2), [4, 2], 8)
    if runtime.device().type == "cpu":
        with caplog.at_level("WARNING"):
            placement._check_cluster(cluster(4, gpus=2), [4], 2)
        assert "2 GPUs of the cluster are not used" in caplog.text


def test_a_wrong_place_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(Error, match="ray:local"), placed("dask", None, "auto"):
        pass
