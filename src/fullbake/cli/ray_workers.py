"""Run a command by several processes of a Ray cluster that train together, and print their lines here.

Ray Train starts the processes, and starts all of them again if one is lost. Each runs the same command without --on and
--workers, as under torchrun; the training resumes from its newest checkpoint. Lines, exit codes and the request to stop
go through one small actor, as plain texts and numbers.
"""

import contextlib
import io
import logging
import os
import re
import runpy
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.cli.terminal import print_line
from fullbake.core import ranks, runtime, stopping
from fullbake.core.console import console as err
from fullbake.core.console import say
from fullbake.core.errors import Error, Fault, RecipeError
from fullbake.core.heartbeat import waiting
from fullbake.core.ray_cluster import check_workers, live_nodes, on_every_node, parse_on, ray_cluster
from fullbake.core.screen import Line

RESTARTS: Final = 3
"""How many times the processes are started again after one of them was lost."""

POLL_SECONDS: Final = 0.5
"""How often lines are fetched, and how often a process asks whether it must stop."""

_OWN_FLAGS: Final = ("--on", "--workers")


def parse_workers(text: str) -> tuple[int, int]:
    """Return the fewest and the most processes that --workers allows.

    Args:
        text: a number, or two such as `1:4`.

    Raises:
        RecipeError: it is neither, or a number is 0.
    """
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    low, high = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 0 < low <= high:
        raise RecipeError(
            "this is no number of processes",
            where="--workers",
            expected="a number such as 2, or the fewest and the most such as 1:4",
            got=repr(text),
        )
    return low, high


def run_on_ray(command: Sequence[str], on: str | None, workers: str | None, out: Path) -> None:
    """Run a command that trains by processes of a Ray cluster, and end this process with the command's exit code.

    Args:
        command: the words of the command line.
        on: the value of --on.
        workers: the value of --workers; None takes one process for each GPU of the cluster, or for each node without
            any.
        out: the output folder, which all machines have to share.

    Raises:
        Error: the cluster does not answer, or its machines do not fit.
        Fault: a process was lost too often.
        SystemExit: with the code of the command.
    """
    if on is None:
        raise RecipeError(
            "--workers needs a cluster",
            remedy="Add --on ray. Without Ray: torchrun --nproc-per-node 2 -m fullbake train ...",
        )
    address, wanted = parse_on(on), None if workers is None else parse_workers(workers)
    most = None if wanted is None else max(wanted[1], runtime.count_processors())
    with ray_cluster(address, cpus=most) as ray:
        check_workers(ray)
        _check_working_folder(ray)
        nodes = live_nodes(ray)
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
        count = wanted or (max(gpus, len(nodes)),) * 2
        _check_room(nodes, count[0], gpus)
        code = _Launch(ray, _without_own_flags(command), count, gpus > 0, out).run()
    sys.exit(code)


def _without_own_flags(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and not any(word.startswith(f"{flag}=") for flag in _OWN_FLAGS) and word not in _OWN_FLAGS:
            kept.append(word)
        skip = word in _OWN_FLAGS
    return kept


def _check_working_folder(ray: Any) -> None:
    folder = str(Path.cwd())
    blind = [name for name, sees in on_every_node(ray, is_folder, folder).items() if sees is not True]
    if blind:
        raise Error(
            "this machine of the cluster does not see the folder in which the command runs",
            where=blind[0],
            expected=folder,
            remedy="Run the command in a folder that all machines share under the same path.",
        )


def is_folder(path: str) -> bool:
    """Return True if there is such a folder on the machine that runs this."""
    return Path(path).is_dir()


def _check_room(nodes: Sequence[dict[str, Any]], fewest: int, gpus: int) -> None:
    room = gpus or sum(int(node["Resources"].get("CPU", 0)) for node in nodes)
    if fewest > room:
        raise RecipeError(
            "the cluster is too small for so many processes",
            where="--workers",
            expected=f"at most {room}, one for each {'GPU' if gpus else 'CPU'}",
            got=str(fewest),
        )


class _Post:
    """The actor between the processes and the command: lines one way, the request to stop the other way."""

    def __init__(self) -> None:
        self.lines: list[tuple[bool, str]] = []
        self.codes: dict[int, int] = {}
        self.signal = 0

    def add(self, lines: list[tuple[bool, str]]) -> int:
        """Take lines (is for stdout, text) of a process, and return the signal that it must stop for, or 0."""
        self.lines += lines
        return self.signal

    def take(self) -> tuple[list[tuple[bool, str]], dict[int, int]]:
        """Return the lines since the last call, and the exit code of each process that is done."""
        lines, self.lines = self.lines, []
        return lines, self.codes

    def stop(self, number: int) -> None:
        """Ask all processes to stop for a signal."""
        self.signal = number

    def done(self, rank: int, code: int) -> None:
        """Note the exit code of a process."""
        self.codes[rank] = code


class _Launch:
    """One command on a cluster."""

    def __init__(self, ray: Any, command: list[str], count: tuple[int, int], use_gpu: bool, out: Path) -> None:
        self.ray, self.command, self.count, self.use_gpu = ray, command, count, use_gpu
        # Ray Train keeps its own notes in a folder that all machines see; none of them is needed afterwards.
        self.notes = out.resolve().with_name(f".{out.name}.ray")
        self.post = ray.remote(_Post).options(num_cpus=0).remote()
        self.codes: dict[int, int] = {}
        self.error: BaseException | None = None

    def run(self) -> int:
        """Start the processes, print their lines until all are done, and return the exit code of the command."""
        words = "1 process" if self.count == (1, 1) else f"{self.count[0]} processes"
        if self.count[0] < self.count[1]:
            words = f"{self.count[0]} to {self.count[1]} processes"
        say(f"starting {words} that train together; their lines follow")
        fit = threading.Thread(target=self._fit, name="fullbake-ray-train", daemon=True)
        with stopping.deferred_signals(), waiting():  # the processes say how far they are
            fit.start()
            asked = 0
            while fit.is_alive():
                fit.join(POLL_SECONDS)
                self._print_lines()
                number, _ = stopping.must_stop(together=False)
                if number and not asked:
                    asked = number
                    say("asking the processes to save and stop")
                    self.ray.get(self.post.stop.remote(number))
                if self.codes.get(0) == Error.exit_code:  # a mistake, which the others would print too
                    break
        self._print_lines()
        self._remove_notes()
        if 0 in self.codes:  # what a later attempt of the same process said counts
            return self.codes[0]
        raise Fault(
            "the processes on the cluster ended without a result",
            got=_last_line(self.error),
            remedy="See the lines above. The same command resumes from the newest checkpoint.",
        )

    def _fit(self) -> None:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        settings: Any = ray.train  # its types are those of an older version of the same classes

        fewest, most = self.count
        environment = {name: value for name, value in runtime.settings().items() if name not in _OF_THIS_PROCESS}
        try:
            TorchTrainer(
                work,
                train_loop_config={"command": self.command, "folder": str(Path.cwd()), "post": self.post},
                torch_config=TorchConfig(
                    backend="cpu:gloo,cuda:nccl" if self.use_gpu else "gloo", timeout_s=round(ranks.timeout_seconds())
                ),
                scaling_config=settings.ScalingConfig(
                    num_workers=fewest if fewest == most else (fewest, most), use_gpu=self.use_gpu
                ),
                run_config=settings.RunConfig(
                    name="notes",
                    storage_path=str(self.notes),
                    failure_config=settings.FailureConfig(max_failures=RESTARTS),
                    worker_runtime_env={"env_vars": environment},
                    logging_config=settings.LoggingConfig(log_level="ERROR"),
                ),
            ).fit()
        except BaseException as error:  # of a thread: the command reports it
            self.error = error

    def _print_lines(self) -> None:
        lines, self.codes = self.ray.get(self.post.take.remote())
        for is_result, text in lines:
            if is_result:
                print_line(text)
            else:
                err.print(Line(text), soft_wrap=True)

    def _remove_notes(self) -> None:
        from fullbake.core.storage import remove_tree

        remove_tree(self.notes)


_OF_THIS_PROCESS: Final = ("RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Settings that each process of the cluster gets from Ray."""


def _last_line(error: BaseException | None) -> str | None:
    lines = [] if error is None else [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else None


# What runs in a process of the cluster


def work(given: dict[str, Any]) -> None:
    """Run the command as one of several processes, and send its lines.

    Args:
        given: `command` (words), `folder` (where to run) and `post` (the actor).

    Raises:
        RuntimeError: the command failed by no mistake of the user; Ray starts all processes again.
    """
    os.chdir(given["folder"])
    sys.argv = ["fullbake", *given["command"]]
    with _sent_lines(given["post"]) as stop_signal, stopping.noted_elsewhere(lambda: stop_signal[0]):
        try:
            runpy.run_module("fullbake", run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    _finish(given["post"], code)


def _finish(post: Any, code: int) -> None:
    import ray

    if code == Fault.exit_code:
        raise RuntimeError("the process ended with a fault; its own message says which")
    ray.get(post.done.remote(runtime.rank(), code))


class _Sent(io.TextIOBase):
    """A stream whose lines are collected to be sent."""

    encoding = "utf-8"

    def __init__(self, is_result: bool, lines: list[tuple[bool, str]]) -> None:
        self.is_result, self.lines, self.begun = is_result, lines, ""

    def write(self, text: str) -> int:
        """Collect whole lines."""
        *whole, self.begun = (self.begun + text).split("\n")
        self.lines += [(self.is_result, line) for line in whole]
        return len(text)


@contextlib.contextmanager
def _sent_lines(post: Any) -> Iterator[list[int]]:
    """Within the block, send what is printed. Yields a list whose item becomes the signal to stop for."""
    import ray

    lines: list[tuple[bool, str]] = []
    stop_signal, ended = [0], threading.Event()

    def send() -> None:
        while True:
            last = ended.wait(POLL_SECONDS)
            number = len(lines)
            stop_signal[0] = ray.get(post.add.remote(lines[:number])) or stop_signal[0]
            del lines[:number]
            if last:
                return

    thread = threading.Thread(target=send, daemon=True, name="fullbake-lines")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(_Sent(True, lines)), contextlib.redirect_stderr(_Sent(False, lines)):
        thread.start()
        try:
            yield stop_signal
        finally:
            ended.set()
            thread.join()
