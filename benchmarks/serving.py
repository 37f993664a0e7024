"""`fullbake serve` under load, beside pipeline() in FastAPI with one lock and in LitServe; overload; life.

    python benchmarks/serving.py BUNDLE FOLDER_OF_DATA [clients|library|classes|overload|life ...] [--seconds 60]

The bundle has a graph, and an int8 graph if int8 is to be measured too. All on one machine over loopback: the load
generator takes a share of the processors from both sides alike. Every client keeps one connection and sends its
next request when the last one is answered; `classes` and `overload` send at a fixed rate instead, whoever answers.
`clients` measures the servers in turn, three rounds of a third of the seconds each. LitServe (it makes batches) is left
out where it is not installed. `life` sends 10,000 requests, with a reload and a SIGTERM in the middle.
"""

import argparse
import asyncio
import csv
import importlib.util
import itertools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import store_result, stored_rows

from fullbake import Classifier

CLIENTS = (1, 8, 64)
ROUNDS = 3
REQUESTS_OF_LIFE = 10_000


# The servers


@dataclass
class Server:
    """A running server."""

    name: str
    port: int
    process: "subprocess.Popen[str]"

    def memory(self) -> float:
        """Return resident memory in MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def seconds(self) -> float:
        """Return processor seconds so far, with those of its worker processes."""
        own = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        return sum(time.user + time.system for time in times)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    name: str, words: Sequence[str], port: int, log: Path | None = None, **environment: str
) -> Iterator[Server]:
    with ExitStack() as stack:
        stderr = subprocess.DEVNULL if log is None else stack.enter_context(log.open("a"))
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **environment},
            cwd=Path(__file__).parent,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        try:
            wait_for(port)
            yield Server(name, port, process)
        finally:
            process.terminate()
            process.wait(30)
            with suppress(ProcessLookupError):  # LitServe leaves processes of its own behind
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int) -> None:
    """Wait until a server is ready."""
    for _ in range(600):
        try:
            if asyncio.run(one_request(port, "GET", "/health"))[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def fullbake_server(
    bundle: Path, *words: str, port: int | None = None, name: str = "fullbake", log: Path | None = None
) -> Any:
    port = port or free_port()
    own = ["-m", "fullbake", "serve", f"m={bundle}", "--port", str(port), "--threads", "1", *words]
    return running(name, own, port, log, OMP_NUM_THREADS="1")


def int8_server(bundle: Path) -> Any:
    return fullbake_server(bundle, "--precision", "int8", name="fullbake, int8")


def plain_server(bundle: Path) -> Any:
    port = free_port()
    words = ["-m", "uvicorn", "plain_server:app", "--port", str(port), "--no-access-log"]
    return running("pipeline() in FastAPI", words, port, OMP_NUM_THREADS="1", FULLBAKE_BUNDLE=str(bundle))


def batching_server(bundle: Path) -> Any:
    port = free_port()
    return running(
        "LitServe", ["batching_server.py", str(port)], port, OMP_NUM_THREADS="1", FULLBAKE_BUNDLE=str(bundle)
    )


# A client


class Connection:
    """HTTP/1.1 with keep-alive over one socket."""

    def __init__(self, port: int) -> None:
        self._port, self._streams = port, None

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n{headers}\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(re.search(r"content-length: (\d+)", head)[1])
        content = await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head[9:12]), content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def one_request(port: int, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
    connection = Connection(port)
    try:
        return await connection.request(method, path, body, headers)
    finally:
        connection.close()


def body_of(text: str) -> bytes:
    return json.dumps({"texts": [text]}).encode()


@dataclass
class Answers:
    """What a load got."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def add(self, other: "Answers") -> None:
        """Add what another round of the same load got."""
        self.seconds += other.seconds
        self.latencies += other.latencies
        self.statuses += other.statuses

    def rate(self) -> float:
        """Return the requests a second that were answered with 200."""
        return self.statuses[200] / self.seconds

    def row(self) -> dict[str, Any]:
        own = np.array(self.latencies or [np.nan]) * 1000
        points = dict(zip(("p50", "p95", "p99"), np.percentile(own, [50, 95, 99]).round(1).tolist(), strict=True))
        return {
            "requests a second": round(self.rate(), 1),
            **points,
            "other statuses": self.statuses.total() - self.statuses[200],
        }


async def closed_load(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> Answers:
    """Let clients send one request after another."""
    found, end = Answers(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection, random_order = Connection(port), random.Random(number)
        while time.perf_counter() < end:
            started = time.perf_counter()
            status, _ = await connection.request("POST", "/v1/predict", random_order.choice(bodies))
            found.latencies.append(time.perf_counter() - started)
            found.statuses[status] += 1
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    found.seconds = time.perf_counter() - started
    return found


async def open_load(
    port: int, kinds: dict[str, Sequence[bytes]], rate: float, seconds: float, headers: str = ""
) -> dict[str, Answers]:
    """Send requests at a fixed rate with random gaps, the kinds in turn at random, whoever answers."""
    found = {kind: Answers(seconds=seconds) for kind in kinds}
    pool: list[Connection] = []
    random_order = random.Random(0)
    tasks = []

    async def send(kind: str, body: bytes) -> None:
        connection = pool.pop() if pool else Connection(port)
        started = time.perf_counter()
        try:
            status, _ = await connection.request("POST", "/v1/predict", body, headers)
        except (ConnectionError, asyncio.IncompleteReadError):  # closed while it was idle; clients open another one
            connection.close()
            status, _ = await connection.request("POST", "/v1/predict", body, headers)
        found[kind].statuses[status] += 1
        if status == 200:
            found[kind].latencies.append(time.perf_counter() - started)
        pool.append(connection)

    started, due = time.perf_counter(), 0.0
    while due < seconds:
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        kind = random_order.choice(list(kinds))
        tasks.append(asyncio.create_task(send(kind, random_order.choice(kinds[kind]))))
        due += random_order.expovariate(rate)
    await asyncio.gather(*tasks)
    for connection in pool:
        connection.close()
    return found


# The parts


def read_texts(folder: Path) -> dict[str, list[bytes]]:
    """Return bodies with texts of two lengths: text messages, and forum comments."""
    found = {}
    for name, file, column in (("SMS", "sms_spam.csv", "text"), ("Jigsaw", "jigsaw_8k.csv", "comment_text")):
        with (folder / file).open(encoding="utf-8", newline="") as rows:
            texts = [row[column] for row in csv.DictReader(rows) if row[column].strip()]
        found[name] = [body_of(text) for text in random.Random(0).sample(texts, 1500)]
    return found


def measure_clients(bundle: Path, texts: dict[str, list[bytes]], seconds: float) -> list[dict[str, Any]]:
    rows = []
    makers = [fullbake_server, plain_server]
    if (bundle / "int8").exists():
        makers.append(int8_server)
    if importlib.util.find_spec("litserve"):
        makers.append(batching_server)
    with ExitStack() as stack:
        servers = [stack.enter_context(make(bundle)) for make in makers]
        for kind, clients in itertools.product(texts, CLIENTS):
            found, used = [Answers() for _ in servers], [0.0] * len(servers)
            for _ in range(ROUNDS):
                for number, server in enumerate(servers):
                    before = server.seconds()
                    found[number].add(asyncio.run(closed_load(server.port, texts[kind], clients, seconds / ROUNDS)))
                    used[number] += server.seconds() - before
            for server, answers, processor in zip(servers, found, used, strict=True):
                row = {"part": "clients", "texts": kind, "clients": clients, "server": server.name, **answers.row()}
                row["requests a processor second"] = round(answers.statuses[200] / processor, 1)
                row["times fullbake is as fast"] = round(found[0].rate() / answers.rate(), 2)
                rows.append(row)
                print(row, flush=True)
    return rows


def measure_library(bundle: Path, texts: dict[str, list[bytes]]) -> list[dict[str, Any]]:
    """Score without a server, all texts at once: what a server on one thread can reach at most."""
    rows = []
    for precision in ("fp32", "int8") if (bundle / "int8").exists() else ("fp32",):
        classifier = Classifier.load(bundle, engine="onnx", precision=precision)
        for kind, bodies in texts.items():
            own = [json.loads(body)["texts"][0] for body in bodies[:600]]
            classifier.predict_proba(own[:50])
            started = time.process_time()
            classifier.predict_proba(own)
            rate = round(len(own) / (time.process_time() - started), 1)
            rows.append({"part": "library", "texts": kind, "precision": precision, "texts a processor second": rate})
            print(rows[-1], flush=True)
    return rows


def measure_classes(bundle: Path, texts: dict[str, list[bytes]], seconds: float) -> list[dict[str, Any]]:
    """At 80% of the highest rate, each length class by itself and both mixed."""
    rows = []
    with fullbake_server(bundle) as server:
        for name, kinds in {**{kind: {kind: own} for kind, own in texts.items()}, "mixed": texts}.items():
            bodies = [body for own in kinds.values() for body in own]
            most = asyncio.run(closed_load(server.port, bodies, 64, min(seconds, 20)))
            rate = 0.8 * most.statuses[200] / most.seconds
            found = asyncio.run(open_load(server.port, kinds, rate, seconds))
            for kind, answers in found.items():
                row = {"part": "classes", "load": name, "texts": kind, "rate": round(rate, 1), **answers.row()}
                row["p99 over p50"] = round(row["p99"] / row["p50"], 1)
                rows.append(row)
                print(row, flush=True)
    return rows


def measure_overload(bundle: Path, texts: dict[str, list[bytes]], seconds: float) -> list[dict[str, Any]]:
    """Three times what the server can do, with a deadline of two seconds."""
    with fullbake_server(bundle, "--timeout", "2s") as server:
        bodies = texts["Jigsaw"]
        most = asyncio.run(closed_load(server.port, bodies, 64, min(seconds, 20)))
        rate, before = 3 * most.statuses[200] / most.seconds, server.memory()
        memory: list[float] = []

        async def run() -> Answers:
            async def watch() -> None:
                while True:
                    memory.append(server.memory())
                    await asyncio.sleep(1)

            watching = asyncio.create_task(watch())
            found = await open_load(server.port, {"Jigsaw": bodies}, rate, seconds)
            watching.cancel()
            return found["Jigsaw"]

        found = asyncio.run(run())
        row = {"part": "overload", "rate": round(rate, 1), **found.row()}
        row |= {f"answered {status}": count for status, count in sorted(found.statuses.items())}
        row |= {
            "slowest": round(1000 * max(found.latencies), 1),
            "MB before": round(before),
            "MB at most": round(max(memory)),
        }
        print(row, flush=True)
        return [row]


def measure_life(bundle: Path, texts: dict[str, list[bytes]], work: Path) -> list[dict[str, Any]]:
    """10,000 requests, with a reload and a SIGTERM in the middle; a supervisor starts the server again."""
    keys = work / "keys.txt"
    keys.write_text("a-key-for-the-benchmark\n")
    bearer, port = "authorization: Bearer a-key-for-the-benchmark\r\n", free_port()
    bodies = [body for own in texts.values() for body in own]
    classifier = Classifier.load(bundle)
    wanted = classifier.predict_proba([json.loads(body)["texts"][0] for body in bodies])
    found: dict[str, Any] = {"part": "life", "requests": REQUESTS_OF_LIFE, "answered": 0, "wrong scores": 0}
    found |= {"refused with 503": 0, "not listening": 0, "closed before an answer": 0, "broken answers": 0}
    found |= {"largest difference": 0.0}
    left = list(range(REQUESTS_OF_LIFE))

    async def ask(connection: Connection, number: int) -> bytes | None:
        """Send a request; return its answer, or None if it must be sent again."""
        try:
            status, content = await connection.request("POST", "/v1/predict", bodies[number], bearer)
        except ConnectionRefusedError:
            found["not listening"] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            partial = isinstance(error, asyncio.IncompleteReadError) and len(error.partial) > 0
            found["broken answers" if partial else "closed before an answer"] += 1
            connection.close()
        else:
            if status == 200:
                return content
            assert status == 503, (status, content)
            found["refused with 503"] += 1
        return None

    async def client() -> None:
        connection = Connection(port)
        while left:
            number = left.pop() % len(bodies)
            while (content := await ask(connection, number)) is None:
                await asyncio.sleep(0.2)
            found["answered"] += 1
            scores = json.loads(content)["results"][0]["scores"]
            apart = np.abs(np.array([scores[name] for name in classifier.label_names]) - wanted[number]).max()
            found["largest difference"] = max(found["largest difference"], float(apart))
            found["wrong scores"] += bool(apart > 1e-5)
        connection.close()

    async def disturb(server: Server) -> None:
        while len(left) > REQUESTS_OF_LIFE * 2 // 3:
            await asyncio.sleep(0.05)
        status, _ = await one_request(port, "POST", "/admin/reload", b"{}", bearer)
        found["reload"] = status
        while len(left) > REQUESTS_OF_LIFE // 3:
            await asyncio.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        found["exit code"] = await asyncio.to_thread(server.process.wait, 60)

    async def run(server: Server) -> None:
        clients = [asyncio.create_task(client()) for _ in range(32)]
        await disturb(server)
        await asyncio.to_thread(
            stack.enter_context, fullbake_server(bundle, *words, port=port, log=log)
        )  # the supervisor
        await asyncio.gather(*clients)

    words, log = ("--api-key-file", str(keys)), work / "log.jsonl"
    with ExitStack() as stack:
        server = stack.enter_context(fullbake_server(bundle, *words, port=port, log=log))
        asyncio.run(run(server))
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    finished = sum(line.get("route") == "/v1/predict" and line.get("status") == 200 for line in lines)
    found["answers the server sent that no client got"] = finished - found["answered"]
    print(found, flush=True)
    return [found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("parts", nargs="*", default=["clients", "library", "classes", "overload", "life"])
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    texts, bundle = read_texts(given.data), given.bundle.resolve()
    rows = [row for row in stored_rows("serving") if row["part"] not in given.parts]
    parts = {
        "clients": lambda: measure_clients(bundle, texts, given.seconds),
        "library": lambda: measure_library(bundle, texts),
        "classes": lambda: measure_classes(bundle, texts, given.seconds),
        "overload": lambda: measure_overload(bundle, texts, given.seconds),
        "life": lambda: measure_life(bundle, texts, Path(work)),
    }
    with tempfile.TemporaryDirectory() as work:
        for part in given.parts:
            rows += parts[part]()
            store_result("serving", rows, seconds=given.seconds)


if __name__ == "__main__":
    main()
