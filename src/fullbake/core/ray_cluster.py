"""A Ray cluster: name it, connect to it or start one, and check that its machines fit this one.

Ray runs what it is sent: whoever reaches a cluster's ports can run any program there, unless the cluster asks for a
token. Ray itself waits for more than ten minutes where nobody answers, so an address is tried here first. Ray is
imported where it is used, because that takes a second or two.
"""

import contextlib
import platform
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fullbake.core import runtime
from fullbake.core.console import say
from fullbake.core.errors import Error, did_you_mean, similar_names
from fullbake.core.extras import name_missing_extra
from fullbake.core.hashing import file_sha256, fingerprint, hash_files

ANSWER_SECONDS: Final = 5.0
"""An address has to answer within these seconds."""

WORKER_SECONDS: Final = 90.0
"""A node has to run a small task within these seconds. It starts a process of Python for it."""

COMPARED: Final = ("fullbake", "torch", "transformers", "tokenizers", "numpy")
"""Libraries whose versions have to be equal on all machines, beside Python's."""

_FORMS: Final = (
    "ray (the cluster of RAY_ADDRESS or of this machine, else a new one), ray:local (a new one), ray:HOST:PORT"
)

# What opens a connection of HTTP/2 (RFC 9113, 3.4): Ray's control service speaks gRPC, and answers with its settings.
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS_FRAME: Final = 4


@dataclass(frozen=True)
class ClusterAddress:
    """Where a cluster is."""

    host: str | None = None
    port: int | None = None
    fresh: bool = False
    """Start a new cluster on this machine even if one runs."""

    def __str__(self) -> str:
        return "ray:local" if self.fresh else "ray" if self.host is None else f"ray:{self.target}"

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def parse_on(text: str, where: str = "--on") -> ClusterAddress:
    """Return the cluster that a user names.

    Args:
        text: `ray`, `ray:local` or `ray:HOST:PORT`.
        where: The flag, for errors.

    Raises:
        Error: It is none of these.
    """
    word, _, rest = text.strip().partition(":")
    if word.lower() != "ray":
        guess = did_you_mean(word, ["ray"]) if similar_names(word, ["ray"]) else None
        raise Error(f"{text!r} is no place to run on", where=where, expected=_FORMS, remedy=guess)
    if rest.startswith("ray://") or text.strip().lower().startswith("ray://"):
        raise Error(
            "addresses of Ray's client (ray://) are not used",
            where=where,
            expected=_FORMS,
            got=text,
            remedy="Run the command on a machine of the cluster, with the address of its head, such as "
            "--on ray:10.0.0.1:6379; or submit it there: ray job submit -- fullbake ...",
        )
    if not rest or rest.lower() == "local":
        return ClusterAddress(fresh=bool(rest))
    return _parse_target(rest, text, where)


def _parse_target(target: str, text: str, where: str) -> ClusterAddress:
    match = re.fullmatch(r"\[?([^\[\]\s/]+?)\]?:(\d{1,5})", target)
    if match is None or not 0 < int(match[2]) < 65536:
        raise Error(
            f"{target!r} is no address of a Ray cluster",
            where=where,
            expected=_FORMS,
            got=text,
            remedy=f"Name the port of the cluster's head too, usually 6379: --on ray:{target.split(':')[0]}:6379.",
        )
    return ClusterAddress(match[1], int(match[2]))


@contextlib.contextmanager
def ray_cluster(
    address: ClusterAddress, *, cpus: int | None = None, folder: str | Path | None = None, **options: Any
) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, and leave it at the end.

    A process that is connected already stays so, and so does a cluster that was not started here.

    Args:
        address: Which cluster, from `parse_on`.
        cpus: Processors that a cluster that is started here may use; by default all that this process may use.
        folder: Where a cluster that is started here keeps its files (a short path), by default Ray's own choice.
        options: More arguments of `ray.init` for a cluster that is started here, such as `object_store_memory`.

    Yields:
        The module `ray`, connected.

    Raises:
        MissingExtraError: Ray is not installed.
        Error: Nobody answers at the address, it is no Ray cluster, or it refuses this process.
    """
    runtime.forbid_ray_usage_reports()
    with name_missing_extra():
        import ray
    if ray.is_initialized():
        _require_same_cluster(ray, address)
        yield ray
        return
    target = None if address.fresh else _find_target(address)
    with _kept_handlers():
        if target is None:
            _start(ray, cpus, folder, options)
        else:
            _connect(ray, target)
    try:
        _say_where(ray, target)
        yield ray
    finally:
        with _kept_handlers():
            ray.shutdown()  # stops the processes of a cluster that was started here, and only leaves another one


def _require_same_cluster(ray: Any, address: ClusterAddress) -> None:
    """Raise an error if this process is connected to another cluster than the one asked for."""
    connected = ray.get_runtime_context().gcs_address
    if address.host is not None and _resolved(address.target) != _resolved(connected):
        raise Error(
            "this process is connected to another Ray cluster",
            where=str(address),
            got=connected,
            remedy="Call ray.shutdown() first.",
        )


def _resolved(target: str) -> tuple[str, str]:
    """Return (IP, port) of an address; this machine's own names are all one."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    with contextlib.suppress(OSError):
        host = str(socket.gethostbyname(host))
        if host.startswith("127.") or host == socket.gethostbyname(socket.gethostname()):
            host = "here"
    return host, port


def _find_target(address: ClusterAddress) -> str | None:
    """Return HOST:PORT of a running cluster that answers, None if none is named and none runs here."""
    if address.host is not None and address.port is not None:
        _require_answer(address.host, address.port, str(address))
        return address.target
    named = runtime.ray_address()
    if named not in (None, "auto"):
        there = parse_on(f"ray:{named}", where="RAY_ADDRESS")
        return None if there.fresh else _find_target(there)
    with contextlib.suppress(OSError, Error):
        # Where `ray start` writes the address. The file may be left over from a cluster that is gone.
        running = parse_on(f"ray:{runtime.ray_address_file().read_text().strip()}")
        if running.host is not None:
            return _find_target(running)
    if named is not None:  # "auto", as Ray calls the cluster that runs on this machine
        raise Error(
            "no Ray cluster runs on this machine",
            where="RAY_ADDRESS",
            got=named,
            remedy="Start one (ray start --head --port=6379), or write --on ray:local for a new one that ends with the "
            "command.",
        )
    return None


def _require_answer(host: str, port: int, where: str) -> None:
    """Raise an error if nobody answers at an address, or somebody who does not speak as Ray does."""
    remedy = (
        "Start a cluster there (ray start --head --port=6379), name the address that it printed, or write "
        "--on ray:local to use this machine alone."
    )
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            if runtime.ray_uses_tls():
                return
            connection.sendall(_GREETING)
            answer = connection.recv(9)
    except OSError as error:
        reason = str(error) or type(error).__name__
        raise Error("no Ray cluster answers", where=where, got=reason, remedy=remedy) from error
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise Error("what answers there is no Ray cluster", where=where, remedy=remedy)


def _start(ray: Any, cpus: int | None, folder: str | Path | None, options: dict[str, Any]) -> None:
    """Start a cluster on this machine. Without a dashboard, whose port would take jobs from others."""
    if folder is not None:
        options = options | {"_temp_dir": str(folder)}
    try:
        ray.init(
            address="local",
            num_cpus=cpus or runtime.count_processors(),
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            **options,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise Error(
            "a Ray cluster cannot be started on this machine",
            got=str(error).strip().partition("\n")[0],
            remedy="See the log in /tmp/ray/session_latest/logs, or name a running cluster: --on ray:HOST:PORT.",
        ) from error


def _connect(ray: Any, target: str) -> None:
    """Connect to a cluster that answers."""
    runtime.limit_ray_connecting()
    try:
        ray.init(address=target, logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if is_about_token(error):
            raise Error(
                "the cluster refuses this process, for it asks for a token and got none or another one",
                where=f"ray:{target}",
                remedy="Set RAY_AUTH_MODE=token, and put the cluster's token into RAY_AUTH_TOKEN, into the file that "
                "RAY_AUTH_TOKEN_PATH names, or into ~/.ray/auth_token.",
            ) from error
        raise Error(
            "the Ray cluster answers, but this process cannot join it",
            where=f"ray:{target}",
            got=_reason(error),
            remedy="The command has to run on a machine of the cluster, with the same versions of Python and Ray. Join "
            f"this machine: ray start --address={target} --num-cpus=0.",
        ) from error


def is_about_token(error: BaseException) -> bool:
    """Return True if Ray says in an error, or in what caused it, that a token is missing or wrong.

    Ray has an exception of its own for that, but `ray.init` raises ConnectionError, with the text of the other one in
    the message of its cause.
    """
    return any("uthentication token" in str(one) for one in (error, error.__cause__))


def _reason(error: BaseException) -> str:
    """Return the first lines of an error and of what caused it, as one line."""
    words = [str(one).strip().partition("\n")[0] for one in (error, error.__cause__) if one is not None and str(one)]
    words = [line.removesuffix("Traceback (most recent call last):").rstrip(" :.") for line in words]
    return "; ".join(words) or type(error).__name__


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    """Undo what the block does to the handlers of signals: Ray would end the process at SIGTERM without saving."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@cache
def _say_that_nothing_is_reported() -> None:
    say("Ray's usage reports are off (RAY_USAGE_STATS_ENABLED=0).")


def _say_where(ray: Any, target: str | None) -> None:
    if not runtime.ray_reports_usage():
        _say_that_nothing_is_reported()
    found = live_nodes(ray)
    cpus, gpus = (sum(node["Resources"].get(kind, 0) for node in found) for kind in ("CPU", "GPU"))
    where = f"Ray cluster at {target}" if target else "new Ray cluster on this machine"
    say(f"{where}: {len(found)} {'node' if len(found) == 1 else 'nodes'}, {cpus:g} CPUs, {gpus:g} GPUs")


def live_nodes(ray: Any) -> list[dict[str, Any]]:
    """Return Ray's descriptions of the nodes that are alive and have processors for tasks."""
    return [
        node
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU", 0) or node["Resources"].get("GPU", 0))
    ]


def on_every_node(ray: Any, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run a function once on every live node.

    Args:
        ray: The module, connected.
        function: A function at the top of a module of this package; it returns plain values.
        arguments: What it is called with.

    Returns:
        The node's name ("HOST (IP)", numbered if several are on one machine) -> what it returned, or the exception.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    calls: dict[str, Any] = {}
    for node in live_nodes(ray):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        calls[_free_name(node, calls)] = task.remote(*arguments)
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=WORKER_SECONDS) if calls else ([], [])
    return {name: _answer(ray, call, call in ready) for name, call in calls.items()}


def _free_name(node: Mapping[str, Any], taken: Mapping[str, Any]) -> str:
    name = node_name(node)
    number = sum(other == name or other.startswith(f"{name} #") for other in taken)
    return f"{name} #{number + 1}" if number else name


def node_name(node: Mapping[str, Any]) -> str:
    """Return "HOST (IP)" of one of `live_nodes`."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _answer(ray: Any, call: Any, ready: bool) -> Any:
    if not ready:
        return TimeoutError(f"no answer within {WORKER_SECONDS:.0f} seconds")
    try:
        return ray.get(call)
    except Exception as error:
        return error


def installed_versions() -> dict[str, str]:
    """Return the versions that have to be equal on all machines, by name; a library that is missing is left out.

    `code` is a hash of fullbake's own files: two checkouts may have the same version.
    """
    python = platform.python_version().rpartition(".")[0]
    # +cpu and +cu130 are builds of one version
    libraries = {name: version.partition("+")[0] for name, version in runtime.installed_of(COMPARED).items()}
    return {"python": python, **libraries, "code": _code_hash()}


@cache
def _code_hash() -> str:
    top = Path(__file__).parents[1]
    files = sorted(top.rglob("*.py"))
    return fingerprint([[path.relative_to(top).as_posix(), file_sha256(path)] for path in files])[:12]


def check_workers(ray: Any, *, optional: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Ask every live node for its versions, and return them by the node's name.

    Args:
        ray: The module, connected.
        optional: Libraries that may be missing on a node or here.

    Raises:
        Error: A node does not answer, lacks fullbake, or has other versions than this process.
    """
    here = installed_versions()
    answers = on_every_node(ray, installed_versions)
    if not answers:
        raise Error(
            "the Ray cluster has no node with processors for tasks",
            remedy="Start one: ray start --address=HOST:PORT on a machine of the cluster.",
        )
    for name, answer in answers.items():
        if isinstance(answer, Exception):
            raise Error(
                "this node of the Ray cluster cannot run fullbake",
                where=name,
                got=_worker_reason(answer),
                remedy=f"Install there what this machine has: {describe_versions(here)}.",
            )
        lacking = [own for own in optional if own not in answer or own not in here]
        require_equal_versions(answer, name, ignored=lacking)
    return answers


def require_equal_versions(theirs: Mapping[str, Any], name: str, *, ignored: Sequence[str] = ()) -> None:
    """Raise an error if a worker's versions are not those of this process.

    Args:
        theirs: What `installed_versions` returned there.
        name: The worker's machine, for the error.
        ignored: Libraries that are not compared.
    """
    here = installed_versions()
    different = [key for key in {**here, **theirs} if key not in ignored and here.get(key) != theirs.get(key)]
    if different:
        raise Error(
            "this machine has other versions than the one that the command runs on",
            where=name,
            expected=describe_versions({key: here.get(key, "none") for key in different}),
            got=describe_versions({key: str(theirs.get(key, "none")) for key in different}),
            remedy="Install the same versions on all machines: scores of different ones cannot be compared.",
        )


def describe_versions(versions: Mapping[str, str]) -> str:
    """Return versions as words, such as `python 3.11, torch 2.13.0`."""
    return ", ".join(f"{'fullbake files' if name == 'code' else name} {value}" for name, value in versions.items())


def _worker_reason(error: Exception) -> str:
    """Return the last line of what a worker raised: the lines before are the places in the code."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def content_digest(path: str | Path) -> str | None:
    """Return a hash of a file, or of all files of a folder; None if there is nothing."""
    place = Path(path)
    if place.is_file():
        return file_sha256(place)
    return fingerprint(hash_files(place)) if place.is_dir() else None


def check_folder_visible(ray: Any, path: str | Path, digest: str | None = None) -> None:
    """Check that every live node sees a folder or file at the same path, with the same content.

    Args:
        ray: The module, connected.
        path: The folder or file.
        digest: What `content_digest` returns for it here, by default it is computed.

    Raises:
        Error: A node does not see it, or sees another content.
    """
    place = str(Path(path).absolute())
    expected = digest or content_digest(place)
    for name, answer in on_every_node(ray, content_digest, place).items():
        if answer == expected:
            continue
        missing = answer is None or isinstance(answer, Exception)
        raise Error(
            "this node does not see the folder" if missing else "this node sees another content of the folder",
            where=name,
            expected=place,
            got=_worker_reason(answer) if isinstance(answer, Exception) else None,
            remedy="Put it into a folder that all machines share under the same path, and name it by that path.",
        )
