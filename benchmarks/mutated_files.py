"""Damaged files: mutations of awkward files are read as before, read with other values, or refused with a remedy.

    python benchmarks/mutated_files.py [number of files, 40000]

The files are those of tests/helpers/nasty_files.py and some ordinary ones of thirty rows. A mutation changes, deletes,
repeats, moves or inserts bytes, some of them awkward ones (quotes, line ends, NUL, marks, halves of characters), or
cuts the file off. A worker reads 1,000 files in one process with at most 4 GB of memory and 20 seconds a file. What
must not happen: an exception that is no error of fullbake, an error without a remedy, a crash, a file that takes too
long. Rows that become fewer without a warning are counted too: a damaged quote joins rows, and no reader can know.
"""

import csv
import gzip
import io
import json
import logging
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

AWKWARD = [
    *(b'"', b'""', b'"\n', b'\n"', b' "', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\0\0\0\0"),
    *(b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\xbd", b"\\ud83d", b"\\u0000", b"{", b"}", b"[", b"]"),
    *(b"null", b"NaN", b"1e999", b":", b"\\", b"sep=;\n", b"\x1f\x8b", b"PAR1", b"\x80" * 9, b"x" * 70_000),
]
ROWS_OF_A_WORKER = 1000
SECONDS, BYTES = 20, 4 * 2**30


def ordinary() -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return (name, content, flags) of ordinary files of thirty rows in each format."""
    import pyarrow as pa
    from pyarrow import parquet

    draw = random.Random(7)
    words = ["good", "bad", "a, b", 'he said "no"', "two\nlines", "café", "👍🏽", "tab\there", "", "NA"]
    rows = [(" ".join(draw.choices(words, k=6)), draw.choice(["pos", "neg"])) for _ in range(30)]
    plain = [(text.replace("\n", " ").replace("\t", " "), label) for text, label in rows]
    made: list[tuple[str, bytes, dict[str, Any]]] = []
    for ending, delimiter in ((".csv", ","), (".tsv", "\t"), (".csv", ";")):
        written = io.StringIO(newline="")
        csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *rows])
        flags = {"delimiter": delimiter} if delimiter == ";" else {}
        made.append((ending, written.getvalue().encode(), flags))
        made.append((f"{ending}.gz", gzip.compress(written.getvalue().encode(), mtime=0), flags))
    glue = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in plain)
    made.append((".tsv", glue.encode(), {"quoting": "none"}))
    made.append((".txt", glue.encode("utf-16"), {"quoting": "none", "delimiter": "\t", "encoding": "utf-16"}))
    objects = [{"text": text, "label": label} for text, label in rows]
    lines = "".join(json.dumps(row) + "\n" for row in objects).encode()
    made += [(".jsonl", lines, {}), (".jsonl.zst", pa.compress(lines, "zstd", asbytes=True), {})]
    made.append((".json", json.dumps(objects, indent=1).encode(), {}))
    lists = {"n": 1, "train": [list(row) for row in rows], "val": [["x", "pos"]]}
    made.append((".json", json.dumps(lists).encode(), {"json_path": "train", "no_header": ["text", "label"]}))
    for options in ({}, {"compression": "none", "use_dictionary": False}, {"compression": "zstd", "row_group_size": 9}):
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(objects), buffer, **options)
        made.append((".parquet", buffer.getvalue(), {}))
    return made


def seeds() -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return (ending, content, flags) of the files that are mutated; ordinary ones make up half of the draws."""
    from helpers.nasty_files import CASES

    awkward = [
        ("".join(Path(case.name).suffixes[-2:]), case.content, {"text": "text", "label": "label"} | case.flags)
        for case in CASES
        if len(case.content) < 20_000
    ]
    common = [(ending, content, {"text": "text", "label": "label"} | flags) for ending, content, flags in ordinary()]
    return awkward + common * (len(awkward) // len(common))


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one to three changes."""
    made = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(len(made) + 1)
        span = min(len(made) - place, draw.choice((1, 1, 2, 8, 64, 512)))
        kind = draw.randrange(7)
        if kind == 0 and place < len(made):
            made[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(made):
            made[place] = draw.randrange(256)
        elif kind == 2:
            del made[place : place + span]
        elif kind == 3:
            made[place:place] = draw.choice(AWKWARD)
        elif kind == 4:
            made[place:place] = made[place : place + span]
        elif kind == 5:
            moved = made[place : place + span]
            del made[place : place + span]
            there = draw.randrange(len(made) + 1)
            made[there:there] = moved
        else:
            del made[place:]
    return bytes(made)


def mutated_file(ending: str, content: bytes, draw: random.Random) -> bytes:
    """Return the mutated bytes of a file; of every second compressed one, what is within is mutated instead."""
    import pyarrow as pa

    if ending.endswith((".gz", ".zst")) and draw.randrange(2):
        try:
            if ending.endswith(".gz"):
                return gzip.compress(mutate(gzip.decompress(content), draw), mtime=0)
            with pa.input_stream(pa.BufferReader(content), compression="zstd") as stream:
                within = stream.read()
            packed: bytes = pa.compress(mutate(within, draw), "zstd", asbytes=True)
            return packed
        except (OSError, EOFError, pa.ArrowException):
            pass  # the file is damaged on purpose
    return mutate(content, draw)


def rows_of(path: Path, flags: dict[str, Any]) -> list[Any]:
    """Return (text, labels) of each row."""
    from fullbake import read_dataset

    dataset = read_dataset(path, **flags)
    ids = [] if dataset.labels is None else dataset.problem.label_ids(dataset.labels)
    labels = [[dataset.label_names[one] for one in row] for row in ids]
    return list(zip(dataset.texts.to_pylist(), labels, strict=True))


def outcome(path: Path, before: list[Any] | None, flags: dict[str, Any], said: list[str]) -> str:
    """Read a mutated file and return what came of it in words."""
    from fullbake import Error

    said.clear()
    signal.alarm(SECONDS)
    try:
        now = rows_of(path, flags)
    except Error as error:
        return "refused" if error.remedy else f"NO REMEDY: {type(error).__name__}: {str(error)[:120]}"
    except TimeoutError:
        return "TOO SLOW"
    except BaseException as error:
        return f"RAW: {type(error).__name__}: {str(error)[:120]}"
    finally:
        signal.alarm(0)
    if before is None:
        return "read, where the whole file is refused"
    if now == before:
        return "read as before"
    if len(now) == len(before):
        return "read, other values"
    more = "more" if len(now) > len(before) else "fewer"
    return f"read, {more} rows, {'with a warning' if said else 'in silence'}"


def work(first: int, last: int) -> None:
    """Read the mutated files of these numbers and print (number, outcome) for each."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))

    def too_slow(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_slow)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("fullbake").handlers = [handler]
    logging.getLogger("fullbake").propagate = False
    known = seeds()
    originals: dict[int, list[Any] | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            print(json.dumps([number, None]), flush=True)
            draw = random.Random(number)
            which = draw.randrange(len(known))
            ending, content, flags = known[which]
            path = Path(folder) / f"x{ending}"
            if which not in originals:
                path.write_bytes(content)
                try:
                    originals[which] = rows_of(path, flags)
                except Exception:
                    originals[which] = None
            path.write_bytes(mutated_file(ending, content, draw))
            print(json.dumps([number, outcome(path, originals[which], flags, said), ending]), flush=True)
    print(json.dumps(["peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]), flush=True)


def main(count: int = 40_000) -> None:
    from machine import store_result

    started, peak = time.process_time(), 0
    counts: dict[str, Counter[str]] = {}
    faults: list[str] = []
    for first in range(0, count, ROWS_OF_A_WORKER):
        last = min(count, first + ROWS_OF_A_WORKER)
        command = [sys.executable, __file__, "--work", str(first), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        begun = first
        for number, what, *ending in map(json.loads, done.stdout.splitlines()):
            if number == "peak":
                peak = max(peak, what)
            elif what is None:
                begun = number
            else:
                counts.setdefault(ending[0], Counter())[what.partition(":")[0]] += 1
                faults += [f"{number}: {what}"] if what.isupper() or what[:2].isupper() else []
        if done.returncode:
            faults.append(f"{begun}: CRASHED with {done.returncode}: {done.stderr[-300:]}")
        print(f"{last:,} files, {len(faults)} faults", flush=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    kinds = sorted({kind for by_ending in counts.values() for kind in by_ending})
    rows = [
        {"ending": ending, "files": sum(by_ending.values())} | {kind: by_ending[kind] for kind in kinds}
        for ending, by_ending in sorted(counts.items())
    ]
    whole = sum(counts.values(), Counter())
    rows.append({"ending": "all", "files": sum(whole.values())} | {kind: whole[kind] for kind in kinds})
    cpu = round(spent.ru_utime + spent.ru_stime + time.process_time() - started)
    store_result("mutated_files", rows, faults=faults[:50], number_of_faults=len(faults), peak_MB=peak, CPU_seconds=cpu)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
