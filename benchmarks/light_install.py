"""The light install against the whole one: size on the disk, and time from a cold start to the scores of one text.

    python benchmarks/light_install.py BUNDLE LIGHT_PYTHON [OLD_SOURCE] [--rounds N]

BUNDLE has a graph (fullbake export). LIGHT_PYTHON is the interpreter of a fresh environment made by `pip install -c
constraints.txt .`; this script runs in the environment with the extras. OLD_SOURCE is the folder src of a commit before
the engine onnx, whose `predict` computed BERT without transformers. Every side runs `fullbake predict BUNDLE TEXT` in a
process of its own, in turn; the smallest of the rounds counts, in seconds of processor time with one thread, and by the
clock. Sizes are those of the files that pip records, without pip itself.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from machine import store_result
from packaging.requirements import Requirement

TEXT = "Wall St. bears claw back into the black as oil prices ease"
PROJECT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("light", type=Path, help="the interpreter of the light environment")
    parser.add_argument("old", type=Path, nargs="?", help="the folder src of an earlier commit")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sides = {
        "light install, onnx": ([str(arguments.light)], None, ["--engine", "onnx"]),
        "whole install, onnx": ([sys.executable], PROJECT / "src", ["--engine", "onnx"]),
        "whole install, torch": ([sys.executable], PROJECT / "src", ["--engine", "torch"]),
    }
    if arguments.old is not None:
        sides["before: BERT without transformers"] = ([sys.executable], arguments.old, [])
    bundles = dict.fromkeys(sides, arguments.bundle)
    rows = _cold_starts(sides, bundles, arguments.rounds)
    store_result("light_install", rows, sizes=_sizes(), rounds=arguments.rounds, text=TEXT)


def _cold_starts(sides: dict[str, Any], bundles: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    """Return the smallest times of each side. The first round fills the caches and does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, (interpreter, source, flags) in sides.items():
            command = [*interpreter, "-m", "fullbake", "predict", str(bundles[name]), TEXT, *flags]
            taken = _run(command, os.environ | {"PYTHONPATH": "" if source is None else str(source)})
            if number:
                found[name].append(taken)
    light = min(cpu for cpu, _ in found["light install, onnx"])
    return [
        {
            "side": name,
            "cpu_seconds": round(min(cpu for cpu, _ in taken), 3),
            "wall_seconds": round(min(wall for _, wall in taken), 3),
            "times_the_light_one": round(min(cpu for cpu, _ in taken) / light, 2),
        }
        for name, taken in found.items()
    ]


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds of processor time and by the clock of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd="/")
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _sizes() -> dict[str, float]:
    """Return megabytes of the packages that each install brings, and their ratios."""
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    light = _closure(project["dependencies"])
    whole = light | _closure(project["optional-dependencies"]["train"])
    before = {name: size for name, size in whole.items() if name not in ("onnxruntime", "flatbuffers", "protobuf")}
    sums = {"light": sum(light.values()), "whole": sum(whole.values()), "before": sum(before.values())}
    without_arrow = sums["light"] - light["pyarrow"]
    return {
        **{f"{name}_mb": round(size / 1e6, 1) for name, size in sums.items()},
        "light_over_before": round(sums["light"] / sums["before"], 3),
        "light_without_pyarrow_over_before": round(without_arrow / sums["before"], 3),
    }


def _closure(requirements: list[str]) -> dict[str, int]:
    """Return the bytes of each package that these requirements bring, by name."""
    found: dict[str, int] = {}
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        places = [Path(str(file.locate())) for file in package.files or []]
        found[name] = sum(place.stat().st_size for place in places if place.is_file())
        waiting += [Requirement(one) for one in package.requires or []]
    return found


if __name__ == "__main__":
    main()
