"""Measure how fast a bundle answers: each engine and precision in a process of its own, on this machine.

A process of its own makes the cold start real, and its peak memory that of one engine alone.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake.classifier import manifest
from fullbake.core import runtime
from fullbake.core.console import activity
from fullbake.core.errors import BundleError, Error, RecipeError, one_line
from fullbake.core.extras import is_installed

SINGLE_TEXTS: Final = 200
"""At most this many calls with one text are timed: the slowest of a hundred is then seen twice."""

CHUNK: Final = 512
"""Texts of one call while many texts are scored."""


@dataclass(frozen=True)
class EngineSpeed:
    """How fast one engine answers with one precision.

    Attributes:
        engine: `torch` or `onnx`.
        precision: `fp32` or `int8`.
        cold_start_s: Seconds from the start of a process to the scores of its first text.
        load_s: Seconds of them that loading and checking the bundle took.
        p50_ms: Median of the milliseconds for one text alone.
        p99_ms: 99 of 100 texts alone were answered within so many milliseconds.
        texts_per_second: Texts that were scored in a second, many at once.
        texts_per_cpu_second: The same for each second of processor time, which other processes disturb less.
        peak_memory: Bytes of main memory that the process held at most, None where the system does not say.
        threads: Threads that computed.
    """

    engine: str
    precision: str
    cold_start_s: float
    load_s: float
    p50_ms: float
    p99_ms: float
    texts_per_second: float
    texts_per_cpu_second: float
    peak_memory: int | None
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name, with four significant digits."""
        values = asdict(self)
        return {name: _rounded(value) if isinstance(value, float) else value for name, value in values.items()}


def available_engines(bundle: Path) -> list[tuple[str, str]]:
    """Return the (engine, precision) pairs that this bundle has and this installation can run.

    Raises:
        BundleError: The folder is no bundle, or nothing that is installed here can run it.
    """
    files = manifest.read_manifest(bundle)["files"]
    graphs = {"fp32": "model.onnx", "int8": "int8/model.onnx"}
    found = [("torch", "fp32")] if is_installed("torch") and is_installed("transformers") else []
    if is_installed("onnxruntime"):
        found += [("onnx", precision) for precision, name in graphs.items() if name in files]
    if not found:
        raise BundleError(
            "no engine that is installed here can run this bundle",
            where=str(bundle),
            expected="a bundle with a graph, or torch and transformers",
            remedy="Add the graph where the bundle was trained: fullbake export BUNDLE. Or: pip install "
            "'fullbake[train]'.",
        )
    return found


def measure_engines(
    bundle: str | Path,
    texts: Sequence[Sequence[str]],
    *,
    threads: int,
    seconds: float = 5.0,
    limit: float = math.inf,
) -> list[EngineSpeed]:
    """Measure all engines and precisions of a bundle, one after another.

    Args:
        bundle: Folder of the bundle.
        texts: One list of texts for each text column of training. They are repeated if they are few.
        threads: Threads that each engine computes with.
        seconds: How long many texts at once are scored for each engine; the same for texts alone.
        limit: Seconds after which measuring ends, whatever a busy machine takes to start the engines.

    Returns:
        What was measured, without the engines for which the limit left no time.

    Raises:
        BundleError: The folder is no bundle, cannot be run here, or differs from what was saved.
        RecipeError: There is no text, or no time to measure in.
    """
    folder, end = Path(bundle), time.monotonic() + limit
    if not (math.isfinite(seconds) and seconds > 0):
        raise RecipeError("no time to measure in", where="seconds", expected="a number above 0", got=str(seconds))
    if not texts or not len(texts[0]):
        raise RecipeError("there is no text to measure with", where="texts", expected="one text or more", got="none")
    found = []
    for engine, precision in available_engines(folder):
        with activity(f"measuring {engine} {precision}"):
            task = {"folder": str(folder.resolve()), "engine": engine, "precision": precision, "seconds": seconds}
            speed = _measure_in_child(task | {"texts": [list(column) for column in texts]}, threads, end)
        if speed is None:
            break
        found.append(speed)
    return found


def _measure_in_child(task: dict[str, Any], threads: int, end: float) -> EngineSpeed | None:
    """Start a process that loads the bundle and scores the texts; return what it found.

    Args:
        task: What `answer_task` reads.
        threads: Threads that it computes with.
        end: When it is stopped, on `time.monotonic`; None is returned then.
    """
    code = "from fullbake.classifier.speed import answer_task; answer_task()"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    # A file takes all words: a pipe that nobody reads meanwhile could fill up.
    with tempfile.TemporaryFile("w+") as words:
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env=environment,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            with _killed_at(end, child) as was_killed:
                with suppress(BrokenPipeError):  # the child has failed; its words are read below
                    child.stdin.write(json.dumps(task))
                with suppress(BrokenPipeError):
                    child.stdin.close()
                first = child.stdout.readline()
                cold_start = time.perf_counter() - started
                rest = child.stdout.read()
                child.wait()
        if was_killed():
            return None
        if child.returncode or not first:
            words.seek(0)
            raise _not_measured(task, words.read(), child.returncode)
    facts = {"engine": task["engine"], "precision": task["precision"], "threads": threads}
    return EngineSpeed(**facts, cold_start_s=cold_start, **json.loads(rest))


@contextmanager
def _killed_at(end: float, child: "subprocess.Popen[str]") -> Iterator[Callable[[], bool]]:
    """Kill a process that runs longer than the block may take.

    Args:
        end: When, on `time.monotonic`; infinity for never.
        child: The process.

    Yields:
        What returns True if it was killed.
    """
    killed = threading.Event()

    def kill() -> None:
        if child.poll() is None:
            killed.set()
            child.kill()

    if end == math.inf:
        yield killed.is_set
        return
    timer = threading.Timer(max(end - time.monotonic(), 0.0), kill)
    timer.start()
    try:
        yield killed.is_set
    finally:
        timer.cancel()


def _not_measured(task: Mapping[str, Any], words: str, code: int) -> BundleError:
    """Return the error of a child process that failed. words: what it wrote to stderr."""
    lines = words.strip().splitlines()
    return BundleError(
        f"the engine {task['engine']} ({task['precision']}) could not be measured",
        where=task["folder"],
        got=lines[-1][:300] if lines else f"exit code {code}",
        remedy=f"See what this says: fullbake predict {task['folder']} 'a text' --engine {task['engine']}",
    )


def answer_task() -> None:
    """Measure one engine as a task on stdin says. This runs in the child process of `measure_engines`.

    A line is written when the first text is scored, then the figures as JSON. An error is one line on stderr, and the
    exit code is then 1.
    """
    try:
        _answer(json.load(sys.stdin))
    except Error as error:
        print(one_line(error), file=sys.stderr)
        sys.exit(1)


def _answer(task: Mapping[str, Any]) -> None:
    from fullbake.classifier.model import Classifier

    begun = time.perf_counter()
    classifier = Classifier.load(task["folder"], engine=task["engine"], precision=task["precision"])
    load = time.perf_counter() - begun
    columns, seconds = task["texts"], task["seconds"]
    classifier.predict_proba(*([column[0]] for column in columns))
    print("ready", flush=True)
    alone = _milliseconds_alone(classifier.predict_proba, columns, seconds)
    rate, cpu_rate = _texts_per_second(classifier.predict_proba, columns, seconds)
    figures = {
        "load_s": load,
        "p50_ms": float(np.percentile(alone, 50)),
        "p99_ms": float(np.percentile(alone, 99)),
        "texts_per_second": rate,
        "texts_per_cpu_second": cpu_rate,
        "peak_memory": runtime.peak_memory(),
    }
    print(json.dumps(figures), flush=True)


Score = Callable[..., np.ndarray]
"""One list of texts a column -> probabilities."""


def _milliseconds_alone(score: Score, columns: Sequence[Sequence[str]], seconds: float) -> list[float]:
    """Return the milliseconds of each call with one text, until the time is up or SINGLE_TEXTS were scored."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    for row in islice(cycle(zip(*columns, strict=True)), SINGLE_TEXTS):
        begun = time.perf_counter()
        score(*([text] for text in row))
        times.append(1000 * (time.perf_counter() - begun))
        if time.perf_counter() > end:
            break
    return times


def _texts_per_second(score: Score, columns: Sequence[Sequence[str]], seconds: float) -> tuple[float, float]:
    """Return how many texts are scored in a second, and in a second of processor time."""
    done = 0
    begun, used = time.perf_counter(), time.process_time()
    for chunk in _chunks(columns):
        score(*chunk)
        done += len(chunk[0])
        if time.perf_counter() - begun > seconds:
            break
    return done / (time.perf_counter() - begun), done / max(time.process_time() - used, 1e-9)


def _chunks(columns: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """Yield the texts in chunks, again from the start when they end."""
    rows = cycle(zip(*columns, strict=True))
    while True:
        yield [list(column) for column in zip(*islice(rows, CHUNK), strict=True)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
