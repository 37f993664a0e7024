"""What becomes of bundles and bases whose JSON files were changed at random: refused, used, or a raw exception.

    python benchmarks/mutated_json.py NUMBER NAME=SOURCE_FOLDER ...

Each NAME=SOURCE_FOLDER is a version of fullbake to try, such as `before=../old/src after=src`. A bundle of version
0.1.0 and a small BERT of random weights get changed copies of each JSON file; the bundle's fullbake.json is
signed anew. Copies are used in a process of their own with 8 GB and 300 s each: what ends it counts as "killed".
fullbake.json gets NUMBER copies, each other file half of it. What is stored already is not tried again.
"""

import collections
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

SECONDS: Final = 300.0
MEMORY: Final = 8 * 10**9
OUTCOMES: Final = ("used", "refused", "two answers", "raw exception", "killed")
PLACES: Final = (
    ("bundle", "fullbake.json"),
    ("bundle", "config.json"),
    ("bundle", "tokenizer.json"),
    ("bundle", "tokenizer_config.json"),
    ("base", "config.json"),
    ("base", "tokenizer.json"),
    ("base", "tokenizer_config.json"),
)


def try_all(kind: str, name: str, numbers: range, whole: Path) -> None:
    """Change a copy of `whole` and use it, for each number; print a line of JSON for each."""
    from helpers.json_mutations import use_base, use_bundle, write_mutated

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    use = use_bundle if kind == "bundle" else use_base
    use(whole)
    print("ready", flush=True)
    for number in numbers:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(shutil.copytree(whole, Path(made) / kind))
            write_mutated(folder, name, random.Random(f"{kind} {name} {number}"))
            print(json.dumps(outcome(use, folder)), flush=True)


def outcome(use: Any, folder: Path) -> list[str]:
    """Return a word for what happened, and its details."""
    from fullbake.core.errors import Error

    try:
        fault = use(folder)
    except Error as error:
        return ["refused", type(error).__name__]
    except BaseException as error:  # panics of Rust are no Exception
        return ["raw exception", f"{type(error).__name__}: {str(error)[:80]}"]
    return ["two answers", fault] if fault else ["used", ""]


def collect(source: str, kind: str, name: str, count: int, whole: Path) -> list[list[str]]:
    """Return the outcomes of `count` changed copies, in processes that are started again where one ends."""
    found: list[list[str]] = []
    while len(found) < count:
        command = [sys.executable, __file__, "--child", kind, name, str(len(found)), str(count), str(whole)]
        with tempfile.TemporaryDirectory() as cache:
            env = os.environ | {"PYTHONPATH": source, "FULLBAKE_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
            assert child.stdout is not None
            ready = False
            while True:
                clock = threading.Timer(SECONDS, child.kill)
                clock.start()
                line = child.stdout.readline()
                clock.cancel()
                if line.startswith("["):
                    found.append(json.loads(line))
                elif line == "ready\n":
                    ready = True
                elif not line:
                    break
            child.wait()
            if not ready:
                raise SystemExit(f"the unchanged {kind} cannot be used by {source}")
            if len(found) < count:
                found.append(["killed", f"code {child.returncode}"])
    return found


def make_base(folder: Path) -> Path:
    from helpers.bases import make_base as write_base

    return write_base("bert", folder)


def main(count: int, versions: dict[str, str]) -> None:
    from machine import store_result, stored_rows

    rows = stored_rows("mutated_json")
    with tempfile.TemporaryDirectory() as made:
        wholes = {
            "bundle": Path(shutil.copytree(ROOT / "tests" / "fixtures" / "bundle_0_1_0", Path(made) / "bundle")),
            "base": make_base(Path(made) / "base"),
        }
        for (version, source), (kind, name) in itertools.product(versions.items(), PLACES):
            copies = count if name == PLACES[0][1] else count // 2
            facts = {"version": version, "of": kind, "file": name, "changed copies": copies}
            if any(facts.items() <= row.items() for row in rows):
                continue
            found = collect(str(Path(source).resolve()), kind, name, copies, wholes[kind])
            words = collections.Counter(word for word, _ in found)
            rows.append(facts | {word: words[word] for word in OUTCOMES})
            print(rows[-1], collections.Counter(": ".join(pair) for pair in found).most_common(8), flush=True)
            store_result("mutated_json", rows)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _, _, child_kind, child_name, start, end, child_whole = sys.argv
        try_all(child_kind, child_name, range(int(start), int(end)), Path(child_whole))
    else:
        main(int(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
