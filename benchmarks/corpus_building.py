"""Building a corpus from an empty cache: documents per second, and the memory of all processes together.

    python benchmarks/corpus_building.py FOLDER_OF_DATA [bytes of a larger corpus]

The corpus is the three IMDb files, tokenized for base demo. Each build runs in a new process with an empty cache. With
one process the tokenizer uses several threads, except in "one thread". The larger corpus repeats the reviews as plain
text, each with a number, so that no two documents are equal; a quarter of it is measured too. Memory is the
proportional share of pages (PSS), summed over the process and its children ten times a second; "before" is measured
when the libraries are loaded, torch among them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from machine import store_result

FILES = ("imdb_train.parquet", "imdb_test.parquet", "imdb_unlabelled.parquet")

BUILD = """
import json, sys, time
from pathlib import Path
import psutil
from fullbake.core.cache import Cache
from fullbake.pretraining.corpus import build_corpus
from fullbake.pretraining.documents import file_source
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.forgetting import corpus_tokenizer_of
processes, cache, *files = sys.argv[1:]
tokenizer = corpus_tokenizer_of(load_mlm_tokenizer("demo"))
before = psutil.Process().memory_full_info().pss
started = time.perf_counter()
corpus = build_corpus([file_source(file) for file in files], tokenizer, Cache(cache, 1 << 40), processes=int(processes))
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "before": before, "shards": len(corpus.shards), **corpus.facts}))
"""

BUILDS: dict[str, tuple[int, dict[str, str]]] = {
    "1, one thread": (1, {"TOKENIZERS_PARALLELISM": "false"}),
    "1": (1, {}),
    "2": (2, {}),
}
"""Name -> number of processes, environment variables."""


def memory(process: psutil.Process) -> int:
    """Return the bytes that a process and its descendants use; shared pages count once."""
    total = 0
    for part in [process, *process.children(recursive=True)]:
        try:
            total += part.memory_full_info().pss
        except psutil.Error:  # the process has ended
            continue
    return total


def build(name: str, build_name: str, files: list[Path]) -> dict[str, Any]:
    processes, environment = BUILDS[build_name]
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", BUILD, str(processes), cache, *map(str, files)]
        built, peak = _run_and_watch(command, environment)
        written = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    row = {
        "corpus": name,
        "processes": build_name,
        "documents": built["documents"],
        "tokens": built["tokens"],
        "seconds": round(built["seconds"], 1),
        "documents/s": round(built["documents"] / built["seconds"]),
        "tokens/s": round(built["tokens"] / built["seconds"]),
        "MB before": round(built["before"] / 1e6),
        "MB at most": round(peak / 1e6),
        "MB on disk": round(written / 1e6),
        "shards": built["shards"],
    }
    print(row, flush=True)
    return row


def _run_and_watch(command: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Return the JSON that the command prints, and the most memory in bytes that it and its children used."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=os.environ | environment)
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, memory(watched))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"the build ended with {process.returncode}")
        output.seek(0)
        return json.loads(output.read().splitlines()[-1]), peak


def enlarge(sources: list[Path], target: Path, size: int) -> None:
    """Write a text file of about `size` bytes: each document is a review with a number, one line for each paragraph."""
    texts = [text for file in sources for text in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    written = 0
    with target.open("w", encoding="utf-8") as file:
        for copy in count(1):
            for number, text in enumerate(texts, 1):
                lines = text.replace("<br /><br />", "\n")
                written += file.write(f"Review {number}, copy {copy}.\n{lines}\n\n")
                if written >= size:
                    return


def main(folder: Path, size: int = 0) -> None:
    files = [folder / name for name in FILES]
    rows = [build("IMDb, 3 files", build_name, files) for build_name in BUILDS]
    with tempfile.TemporaryDirectory() as made:
        for target_size in (size // 4, size) if size else ():
            larger = Path(made) / "larger.txt"
            enlarge(files, larger, target_size)
            rows.append(build(f"text of {larger.stat().st_size / 1e6:,.0f} MB", "2", [larger]))
    store_result("corpus_building", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
