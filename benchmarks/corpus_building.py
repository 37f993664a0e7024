"""Building a corpus from an empty cache: documents a second, and the memory of all processes together.

    python benchmarks/corpus_building.py FOLDER_OF_DATA [bytes of a larger corpus]

The three IMDb files, tokenizer of base demo, each build in a process of its own and into an empty cache. Alone, the
tokenizer uses threads of its own; "one thread" is without them. The larger corpus is the same reviews again and again
as plain text, each numbered, so that no two documents are equal; a quarter of it comes first. Memory: shares of pages
(PSS) added up over the process and its children, looked at ten times a second; "before" is with the libraries loaded,
torch among them.
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
from machine import keep

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

WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "1, one thread": (1, {"TOKENIZERS_PARALLELISM": "false"}),
    "1": (1, {}),
    "2": (2, {}),
}
"""Name -> processes, environment."""


def memory(process: psutil.Process) -> int:
    """Bytes of the process and all below it; pages that they share count once."""
    total = 0
    for part in [process, *process.children(recursive=True)]:
        try:
            total += part.memory_full_info().pss
        except psutil.Error:  # gone meanwhile
            continue
    return total


def build(name: str, way: str, files: list[Path]) -> dict[str, Any]:
    processes, environment = WAYS[way]
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", BUILD, str(processes), cache, *map(str, files)]
        told, peak = _watched(command, environment)
        written = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    row = {
        "corpus": name,
        "processes": way,
        "documents": told["documents"],
        "tokens": told["tokens"],
        "seconds": round(told["seconds"], 1),
        "documents/s": round(told["documents"] / told["seconds"]),
        "tokens/s": round(told["tokens"] / told["seconds"]),
        "MB before": round(told["before"] / 1e6),
        "MB at most": round(peak / 1e6),
        "MB on disk": round(written / 1e6),
        "shards": told["shards"],
    }
    print(row, flush=True)
    return row


def _watched(command: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], int]:
    """(what the process told, the most memory it and its children had)."""
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
    """A text file of about `size` bytes: a numbered review a document, its paragraphs on lines of their own."""
    texts = [text for file in sources for text in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    written = 0
    with target.open("w", encoding="utf-8") as file:
        for turn in count(1):
            for number, text in enumerate(texts, 1):
                lines = text.replace("<br /><br />", "\n")
                written += file.write(f"Review {number} told for the time number {turn}.\n{lines}\n\n")
                if written >= size:
                    return


def main(folder: Path, size: int = 0) -> None:
    files = [folder / name for name in FILES]
    rows = [build("IMDb, 3 files", way, files) for way in WAYS]
    with tempfile.TemporaryDirectory() as made:
        for part in (size // 4, size) if size else ():
            larger = Path(made) / "larger.txt"
            enlarge(files, larger, part)
            rows.append(build(f"text of {larger.stat().st_size / 1e6:,.0f} MB", "2", [larger]))
    keep("corpus_building", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
