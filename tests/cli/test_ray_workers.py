"""What `--on ray --workers N` does apart from the cluster, which benchmarks/elastic.py tries: flags, lines, errors."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullbake.cli import ray_workers
from fullbake.core import stopping
from fullbake.core.errors import Error, RecipeError


@pytest.mark.parametrize(("text", "found"), [("2", (2, 2)), ("1:4", (1, 4)), (" 3 ", (3, 3))])
def test_number_of_processes_is_one_or_a_range(text: str, found: tuple[int, int]) -> None:
    assert ray_workers.parse_workers(text) == found


@pytest.mark.parametrize("text", ["0", "4:1", "0:2", "two", "1:2:3", ""])
def test_wrong_number_of_processes_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--workers"):
        ray_workers.parse_workers(text)


def test_workers_without_a_cluster_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--on ray"):
        ray_workers.run_on_ray(["train"], None, "2", tmp_path / "out")


@pytest.mark.parametrize("flags", [["--on", "ray", "--workers", "2"], ["--on=ray:local", "--workers=1:2"]])
def test_processes_get_the_command_without_the_flags_of_the_cluster(flags: list[str]) -> None:
    words = ["train", "rows.csv", *flags, "--out", "out"]
    assert ray_workers._without_own_flags(words) == ["train", "rows.csv", "--out", "out"]


def test_cluster_that_is_too_small_is_refused() -> None:
    nodes: list[dict[str, Any]] = [{"Resources": {"CPU": 2.0}}, {"Resources": {"CPU": 1.0}}]
    ray_workers._check_room(nodes, 3, 0)
    with pytest.raises(RecipeError, match="at most 3, one for each CPU"):
        ray_workers._check_room(nodes, 4, 0)


def test_machine_that_lacks_the_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "on_every_node", lambda *_: {"a (10.0.0.1)": True, "b (10.0.0.2)": False})
    with pytest.raises(Error, match=r"b \(10\.0\.0\.2\).*does not see"):
        ray_workers._check_working_folder(None)
    assert ray_workers.is_folder(str(Path.cwd()))


class Method:
    """A method of an actor that runs here."""

    def __init__(self, call: Any) -> None:
        self.remote = call


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(ray_workers, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(sys, "argv", sys.argv)
    actor = ray_workers._Post()
    return SimpleNamespace(actor=actor, add=Method(actor.add), done=Method(actor.done))


def test_lines_and_exit_code_of_a_process_are_sent(post: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ray_workers.work({"command": ["recipes"], "folder": str(tmp_path), "post": post})
    lines, codes = post.actor.take()
    assert any(is_result and "frozen" in text for is_result, text in lines)
    assert codes == {0: 0}
    assert post.actor.take()[0] == []


def test_mistake_of_the_user_ends_all_processes(post: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ray_workers.work({"command": ["train"], "folder": str(tmp_path), "post": post})
    lines, codes = post.actor.take()
    assert any(not is_result and text.startswith("error: ") for is_result, text in lines)
    assert codes == {0: 2}


def test_fault_is_raised_so_that_ray_starts_again(post: Any) -> None:
    with pytest.raises(RuntimeError, match="fault"):
        ray_workers._finish(post, 1)
    assert post.actor.take()[1] == {}


def test_request_to_stop_reaches_the_process(post: Any) -> None:
    post.actor.stop(signal.SIGTERM)
    with ray_workers._sent_lines(post) as stop_signal, stopping.noted_elsewhere(lambda: stop_signal[0]):
        for _ in range(500):
            if stopping.must_stop()[0]:
                break
            ray_workers.threading.Event().wait(0.01)
        assert stopping.must_stop() == (signal.SIGTERM, False)
