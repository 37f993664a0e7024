"""int8 against fp32, by onnxruntime and by torch: CPU seconds in one run, and what the labels and scores lose.

    python benchmarks/int8_speed.py FOLDER_OF_DATA [name ...] [--texts 300] [--rows 1000] [--train 800]

FOLDER_OF_DATA holds the files of benchmarks/comparisons.py. The names are `speed` and those of the data sets; without
names all are measured, and a part that was measured before is replaced in results/int8_speed.json. One thread computes.
`speed` scores the same AG News texts by three engines in turn, piece by piece: with the base `demo` (384 wide) and with
3 layers of random weights that are 768 wide. For each data set a linear head on the frozen base is trained on --train
rows, and of --rows test rows half fit int8 and half judge, as `fullbake export --int8` does.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from comparisons import TASKS
from machine import store_result, stored_rows

from fullbake import Classifier, adapt
from fullbake.classifier.evaluate import read_as_trained
from fullbake.classifier.export import export_graph
from fullbake.classifier.int8_gate import halve_rows, judge_int8, score_in_turn
from fullbake.classifier.precision import open_int8
from fullbake.config.recipe import Recipe
from fullbake.core.processors import int8_instructions
from fullbake.data.dataset import Dataset
from fullbake.data.labeled_files import read_labeled
from fullbake.evaluation.fidelity import FidelityPromise
from fullbake.models.graph_check import GRAPH_FILE
from fullbake.models.int8_graph import write_int8_graph
from fullbake.models.prediction import encode

PIECES = 6
WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 3, "num_attention_heads": 12}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--texts", type=int, default=300, help="texts of `speed`")
    parser.add_argument("--rows", type=int, default=1000, help="test rows of a data set")
    parser.add_argument("--train", type=int, default=800, help="training rows")
    given = parser.parse_args()
    found = {row["name"]: row for row in stored_rows("int8_speed")}
    for name in given.names or ["speed", *TASKS]:
        with tempfile.TemporaryDirectory() as folder:
            if name == "speed":
                parts = [
                    measure_speed(given.data, Path(folder), "demo", given.texts),
                    measure_speed(given.data, Path(folder), wide_base(Path(folder) / "base"), given.texts),
                ]
            else:
                parts = [measure_quality(given.data, Path(folder), name, given.rows, given.train)]
        for part in parts:
            print(part, flush=True)
            found[part["name"]] = part
        store_result("int8_speed", list(found.values()), instructions=int8_instructions(), pieces=PIECES)


def wide_base(folder: Path) -> str:
    """Write a BERT of random weights, 768 wide, with the tokenizer of `demo`, and return its folder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from fullbake.models.pretrained import resolve_base

    demo = resolve_base("demo")
    config = AutoConfig.from_pretrained(demo)
    config.update(WIDE)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo).save_pretrained(folder)
    return str(folder)


def small_classifier(data: Path, folder: Path, base: str, name: str, rows: int) -> tuple[Classifier, Path]:
    """Train a linear head on some rows of a data set, and return the classifier with its graph, and its bundle."""
    task = TASKS[name]
    fields = {"base": base, "way": "frozen", "head": "linear", "validation": 0.2} | task.fields
    fields.pop("drop_overlap", None)
    recipe = Recipe.load(**fields)
    whole = read_labeled(data / task.train, recipe.data)
    chosen = np.random.default_rng(0).permutation(len(whole))[:rows]
    bundle = folder / f"{name}-bundle"
    adapt(recipe, whole.take(np.sort(chosen)), out=bundle, cache_dir=folder / "cache", overwrite=True)
    export_graph(bundle)
    return Classifier.load(bundle, engine="onnx"), bundle


def test_rows_of(data: Path, classifier: Classifier, name: str, rows: int) -> Dataset:
    """Return rows of the test file, or rows that were not trained on."""
    from fullbake.classifier.evaluate import find_training_texts

    task = TASKS[name]
    file = task.test if isinstance(task.test, str) else task.train
    whole = read_as_trained(classifier, data / file)
    free = np.flatnonzero(~find_training_texts(classifier, whole))
    return whole.take(np.sort(np.random.default_rng(1).permutation(free)[:rows]))


def int8_of(classifier: Classifier, bundle: Path, folder: Path) -> tuple[Any, Any]:
    """Return the predictor of a classifier's int8 graph, and what was made of it."""
    folder.mkdir()
    made = write_int8_graph(bundle / GRAPH_FILE, folder)
    return open_int8(folder, classifier), made


def measure_speed(data: Path, folder: Path, base: str, texts: int) -> dict[str, Any]:
    """Score texts by torch and by onnxruntime in fp32 and int8, in turn, and return the CPU seconds of each."""
    name = "demo" if base == "demo" else "768 wide, 3 layers"
    own = folder / name.replace(" ", "")
    classifier, bundle = small_classifier(data, own, base, "ag_news", 200)
    int8, made = int8_of(classifier, bundle, own / "int8")
    rows = test_rows_of(data, classifier, "ag_news", texts)
    encoded = encode(rows.texts, classifier.tokenizer, classifier.tokens)
    torch_side = Classifier.load(bundle, engine="torch").predictor
    sides = {"torch fp32": torch_side, "onnxruntime fp32": classifier.predictor, "onnxruntime int8": int8}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    pieces = np.array_split(np.arange(len(rows)), PIECES)
    for number, piece in enumerate([pieces[0], *pieces]):  # the first piece warms up
        part = encoded.of_documents(piece)
        order = list(sides) if number % 2 else list(sides)[::-1]
        for side in order:
            started = time.process_time()
            sides[side].logits(part, classifier.tokens)
            if number:
                seconds[side].append(time.process_time() - started)
    totals = {side: sum(own) for side, own in seconds.items()}
    ratios = {
        f"int8 over {side}": {
            "ratio": totals[side] / totals["onnxruntime int8"],
            "pieces": [one / two for one, two in zip(seconds[side], seconds["onnxruntime int8"], strict=True)],
        }
        for side in ("torch fp32", "onnxruntime fp32")
    }
    return {
        "name": f"speed, {name}",
        "texts": len(rows),
        "tokens": int(encoded.lengths.sum()),
        "cpu_seconds": totals,
        "ratios": ratios,
        "bytes": {"fp32": made.bytes_before, "int8": made.bytes_after},
    }


def measure_quality(data: Path, folder: Path, name: str, rows: int, train: int) -> dict[str, Any]:
    """Return what int8 changes on a data set, as the gate judges it."""
    classifier, bundle = small_classifier(data, folder, "demo", name, train)
    int8, _ = int8_of(classifier, bundle, folder / "int8")
    chosen = test_rows_of(data, classifier, name, rows)
    encoded = encode(chosen.texts, classifier.tokenizer, classifier.tokens)
    logits = score_in_turn(
        lambda part: classifier.predictor.logits(part, classifier.tokens),
        lambda part: int8.logits(part, classifier.tokens),
        encoded,
        len(chosen),
    )
    judged = {
        metric: judge_int8(chosen, logits, classifier.decision, metric, FidelityPromise(), seed=0)
        for metric in ("accuracy", "f1_macro")
    }
    found = judged["f1_macro"]
    return {
        "name": name,
        "rows": {"fitted": found.fitted_rows, "judged": len(halve_rows(chosen, 0)[1])},
        "temperature": found.temperature,
        "equal_labels": found.fidelity.equal_labels,
        "probabilities_apart": found.fidelity.probabilities_apart,
        "metrics": {metric: own.fidelity.metric for metric, own in judged.items()},
        "calibration_error": {side: own["ece"] for side, own in found.calibration.items()},
        "kept": {metric: not own.shortfalls for metric, own in judged.items()},
        "speed": logits.to_json(),
    }


if __name__ == "__main__":
    main()
