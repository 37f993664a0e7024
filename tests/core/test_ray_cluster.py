"""An address is parsed and tried before Ray sees it; one small cluster shows what Ray's own side gives."""

import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fullbake.core import ray_cluster, runtime
from fullbake.core.errors import Error
from fullbake.core.ray_cluster import ClusterAddress, check_folder_visible, check_workers, content_digest, parse_on


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One cluster on this machine, as a user gets one who has none."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fullbake[ray]'")
    with (
        tempfile.TemporaryDirectory(prefix="fb", ignore_cleanup_errors=True) as folder,
        ray_cluster.ray_cluster(
            ClusterAddress(fresh=True), cpus=1, folder=folder, object_store_memory=100_000_000
        ) as connected,
    ):
        yield connected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ray", ClusterAddress()),
        (" Ray ", ClusterAddress()),
        ("ray:local", ClusterAddress(fresh=True)),
        ("ray:10.0.0.1:6379", ClusterAddress("10.0.0.1", 6379)),
        ("ray:head.cluster:6379", ClusterAddress("head.cluster", 6379)),
        ("ray:[fd00::1]:6379", ClusterAddress("fd00::1", 6379)),
    ],
)
def test_forms_of_an_address(text: str, expected: ClusterAddress) -> None:
    assert parse_on(text) == expected
    assert parse_on(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dask", "--on: 'dask' is no place to run on"),
        ("rya", "Did you mean 'ray'?"),
        ("", "ray:HOST:PORT"),
        ("ray:10.0.0.1", "--on ray:10.0.0.1:6379"),
        ("ray:10.0.0.1:99999", "is no address"),
        ("ray://10.0.0.1:10001", "ray job submit"),
        ("ray:ray://10.0.0.1:10001", "Ray's client"),
    ],
)
def test_a_wrong_address_is_refused_with_the_valid_forms(text: str, words: str) -> None:
    with pytest.raises(Error) as raised:
        parse_on(text)
    assert words in str(raised.value)
    assert "ray:local" in str(raised.value)


@given(st.text())
@example("ray:::")
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    with suppress(Error):
        assert isinstance(parse_on(text), ClusterAddress)


def _listener(answer: bytes | None) -> int:
    """Start a server for one connection that sends `answer`, or nothing for None, and return its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(100)
            if answer is not None:
                connection.sendall(answer)
            else:
                connection.recv(100)  # until the other side gives up

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


@pytest.mark.parametrize("answer", ["closed", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_an_address_where_no_cluster_is_raises_within_seconds(
    answer: bytes | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0.3)
    pytest.importorskip("ray")
    if answer == "closed":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
    else:
        port = _listener(answer)  # type: ignore[arg-type]
    with (
        pytest.raises(Error, match=f"ray:127.0.0.1:{port}: .*\n(Got.*)?.*ray start --head"),
        ray_cluster.ray_cluster(ClusterAddress("127.0.0.1", port)),
    ):
        pass


def test_a_left_over_address_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    file = runtime.ray_address_file()
    file.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        file.write_text(f"127.0.0.1:{server.getsockname()[1]}")
    assert ray_cluster._find_target(ClusterAddress()) is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert ray_cluster._find_target(ClusterAddress()) is None, "Ray's own word for a new cluster"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(Error, match=r"RAY_ADDRESS: no Ray cluster runs on this machine(.|\n)*ray start"):
        ray_cluster._find_target(ClusterAddress())
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(Error, match="RAY_ADDRESS: "):
        ray_cluster._find_target(ClusterAddress())


def test_nodes_answer_with_their_versions(ray: Any) -> None:
    answers = check_workers(ray)
    assert list(answers.values()) == [ray_cluster.installed_versions()]
    (name,) = answers
    assert socket.gethostname() in name


def test_other_versions_are_refused_and_named(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_cluster.installed_versions()
    others = here | {"transformers": "4.1.0"}
    monkeypatch.setattr(ray_cluster, "on_every_node", lambda *_: {"a": dict(here), "b (10.0.0.2)": others})
    with pytest.raises(Error, match=r"b \(10.0.0.2\): .*\n.*transformers 5.*; got transformers 4.1.0"):
        check_workers(ray)
    monkeypatch.setattr(ray_cluster, "on_every_node", lambda *_: {"c": ValueError("x\n  File y\nNo module fullbake")})
    with pytest.raises(Error, match=r"c: .*\nGot No module fullbake.*python 3"):
        check_workers(ray)
    monkeypatch.setattr(ray_cluster, "on_every_node", lambda *_: {})
    with pytest.raises(Error, match="no node"):
        check_workers(ray)


def test_a_folder_has_to_have_the_same_content_everywhere(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    digest = content_digest(tmp_path)
    check_folder_visible(ray, tmp_path, digest)
    check_folder_visible(ray, tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"2")
    with pytest.raises(Error, match=r"another content(.|\n)*all machines share"):
        check_folder_visible(ray, tmp_path, digest)
    with pytest.raises(Error, match="does not see the folder"):
        check_folder_visible(ray, tmp_path / "absent", digest)


def test_a_process_that_is_connected_stays_connected(ray: Any) -> None:
    with ray_cluster.ray_cluster(ClusterAddress()) as again:
        assert again is ray
    assert ray.is_initialized()
    here = ray.get_runtime_context().gcs_address
    with ray_cluster.ray_cluster(parse_on(f"ray:{here}")):
        pass
    with pytest.raises(Error, match="connected to another"), ray_cluster.ray_cluster(ClusterAddress("10.0.0.9", 1)):
        pass
    ray_cluster._require_answer(*here.split(":"), where="here")  # so Ray's own port passes the check of addresses


def test_ray_changes_no_handler_of_signals_and_reports_nothing(ray: Any) -> None:
    assert "ray" not in str(signal.getsignal(signal.SIGTERM))
    assert not runtime.ray_reports_usage()


def test_a_slow_node_is_not_waited_for(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "WORKER_SECONDS", 0)
    answers = ray_cluster.on_every_node(ray, ray_cluster.installed_versions)
    assert [type(answer) for answer in answers.values()] == [TimeoutError]


def test_a_library_that_only_one_side_has_may_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray_cluster.installed_versions()
    light = {name: version for name, version in here.items() if name != "torch"}
    monkeypatch.setattr(ray_cluster, "on_every_node", lambda *_: {"n7": light})
    assert check_workers(None, optional=("torch",)) == {"n7": light}
    with pytest.raises(Error, match=r"(?s)n7.*torch none"):
        check_workers(None)
    monkeypatch.setattr(ray_cluster, "on_every_node", lambda *_: {"n7": here | {"torch": "1.0"}})
    with pytest.raises(Error, match=r"(?s)n7.*torch 1\.0"):
        check_workers(None, optional=("torch",))


def test_a_wrong_token_is_found_in_what_ray_raises() -> None:
    """The message of the cause is that of Ray 2.60."""
    found = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    found.__cause__ = RuntimeError(
        "Failed to connect to GCS. Last connection error: Traceback (most recent call last):\n  File ...\n"
        "ray.exceptions.AuthenticationError: InvalidAuthToken: Authentication token is missing or incorrect. Ensure"
    )
    assert ray_cluster.is_about_token(found)
    assert not ray_cluster.is_about_token(ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"))
