"""Example leaderboards, made up: what `fullbake compare` writes, of sizes and shapes that a page has to carry.

`python tests/boards.py FOLDER` writes one folder a case with its report, to be looked at.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fullbake

TOPICS = ["cooking", "health", "money", "pets", "politics", "software", "sport", "travel"]
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<svg onload=\"document.title='owned'\"><style>*{display:none}</style></svg>",
    '"><iframe srcdoc="<script>parent.document.title=\'owned\'</script>"></iframe>',
    "<a href=\"javascript:document.title='owned'\">free</a> <meta http-equiv=refresh content='0;url=data:text/html,x'>",
    "{{ cycler.__init__.__globals__ }} {% raw %} ]]> --> <!--",
    "start \u202eevil\u202c, \u2067never closed, \u2066nor this",
    "null \x00 bell \x07 escape \x1b[31m, zero\u200bwidth, lone \ud800, byte order \ufeff",
    "Z̸̡̧̛̺͎̈́̅͊a̵̢̛͖̘̎̓̏l̷̨̛̫̗̍̆g̶̡̛̦̲̈́o̸̢̡̟̾̌ " + "unbreakable" * 60,
)
"""Texts that try to run, to hide, to reorder or to break out."""

STRANGE = (
    "今天的火车又晚点了四十分钟，站台上没有人解释原因，咖啡机也坏了。我在那里认识了后来的丈夫，所以我不抱怨。",
    "הרכבת איחרה בארבעים דקות, ואף אחד לא הסביר למה (אולי בגלל השלג?). The platform was full anyway.",
    "تأخر القطار أربعين دقيقة ولم يشرح أحد السبب، والقهوة كانت باردة.",
    "नई रेसिपी: 200 g flour, थोड़ा नमक 👩‍🍳, और बहुत धैर्य।",
)

_RECIPES: tuple[tuple[str, str, str, bool, float, float, int], ...] = (
    # name, title, way, after further pretraining, quality, training seconds, trained parameters
    ("finetune", "Fine-tuned base", "finetune", False, 0.712, 412, 22_713_216),
    ("frozen-mlp", "Frozen base with MLP head", "frozen", False, 0.671, 21, 597_512),
    ("frozen-linear", "Frozen base with linear head", "frozen", False, 0.704, 9, 3_080),
    ("further-finetune", "Fine-tuned base after further pretraining", "finetune", True, 0.725, 1_530, 22_713_216),
    (
        "further-frozen-linear",
        "Frozen base with linear head after further pretraining",
        "frozen",
        True,
        0.668,
        1_140,
        3_080,
    ),
    ("tfidf", "TF-IDF and logistic regression", "baseline", False, 0.312, 0.8, 61_208),
    ("majority", "Majority class", "baseline", False, 0.031, 0.002, 0),
)


def board(kind: str = "topics") -> dict[str, Any]:
    """A leaderboard: "topics" (8 classes, a failed recipe), "binary" (with threshold curves), "hostile" or "bare"."""
    makers = {"topics": _topics, "binary": _binary, "hostile": _hostile, "bare": _bare}
    return makers[kind]()


def write_board(folder: Path, kind: str = "topics") -> Path:
    """`folder` with that leaderboard in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.json").write_text(json.dumps(board(kind), indent=1), "utf-8")
    return folder


def _topics() -> dict[str, Any]:
    """A leaderboard of an older version: no mistakes, nothing on what did not run or was made smaller."""
    return _board(TOPICS, None, (*_texts()[:14], *STRANGE))


def _binary() -> dict[str, Any]:
    texts = _texts()
    return _board(["0", "toxic"], "toxic", texts[14:26]) | _newer_keys(["0", "toxic"], texts[:5])


def _newer_keys(names: list[str], texts: tuple[str, ...]) -> dict[str, Any]:
    cut = "The training rows were cut to 2,000 of 15,000, stratified by class."
    return {
        "mistakes": [
            {
                "row": 3 + place,
                "text": text,
                "label": names[0],
                "predicted": names[-1],
                "probability": 0.97 - place / 50,
            }
            for place, text in enumerate(texts)
        ],
        "speed": [
            {
                "engine": engine,
                "precision": "fp32",
                "cold_start_s": 2.51,
                "load_s": 0.4,
                "p50_ms": 9.52,
                "p99_ms": 20.1,
                "texts_per_second": 1075.2,
                "texts_per_cpu_second": 80.0,
                "peak_memory": 412_000_000,
                "threads": 2,
            }
            for engine in ("torch", "onnx")
        ],
        "not_run": {"tapt": {"reason": "the budget of 1 h is too short", "seconds_needed": 5400.0}},
        "reduced": {
            "further-finetune": ["Further pretraining was shortened to one pass.", cut],
            "finetune": [cut],
        },
    }


def _hostile() -> dict[str, Any]:
    names = [*HOSTILE[:3], HOSTILE[6], "плохо", "糟糕的评论", "עברית"]
    result = _board(names, names[0], (*HOSTILE, *STRANGE))
    for recipe, text in zip(result["recipes"], HOSTILE, strict=False):
        recipe["title"] = text
    result["data"]["source"] = HOSTILE[0]
    result["data"]["findings"] += HOSTILE
    result["verdict"]["words"] += HOSTILE
    result["stamps"] += HOSTILE
    result["command"] = f"fullbake compare {HOSTILE[1]}"
    result["recipes"][-1]["reason"] = HOSTILE[2]
    result |= _newer_keys(names, HOSTILE)
    result["not_run"]["tapt"]["reason"] = HOSTILE[2]
    result["reduced"]["finetune"] = [*HOSTILE]
    return result


def _bare() -> dict[str, Any]:
    """A leaderboard without finished recipes and without optional entries."""
    result = _board(["no", "yes"], None, ())
    for recipe in result["recipes"]:
        recipe |= {"status": "failed", "reason": "the disk is full", "test": {}, "histories": [], "rates": []}
        recipe |= dict.fromkeys(("rate", "recall", "confusion", "calibration", "threshold_curve", "cost", "forgetting"))
    result |= {"pairs": [], "verdict": {"best": None, "recommended": None, "words": ["Nothing finished."]}}
    return result


def _board(names: list[str], positive: str | None, texts: tuple[str, ...]) -> dict[str, Any]:
    random = np.random.default_rng(7)
    recipes = [_recipe(random, names, positive, *line) for line in _RECIPES]
    return {
        "format": 1,
        "fullbake": "0.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "scikit-learn": "1.9.1"},
        "machine": {"processor": "Intel Xeon 8375C at 2.9 GHz", "cores": 2, "threads": 2, "device": "cpu"},
        "command": "fullbake compare comments.csv --text text --label topic --base demo --seeds 3 --budget 1h",
        "date": "2026-11-24T18:02:11+00:00",
        "seconds": 3324.5,
        "data": _data(names),
        "metric": "f1_macro",
        "label_names": names,
        "problem_type": "single_label_classification",
        "positive": positive,
        "design": {
            "seeds": [0, 1, 2],
            "rates": {recipe["name"]: [entry["rate"] for entry in recipe["rates"]] for recipe in recipes},
            "folds": None,
            "budget_seconds": 3600.0,
            "left_out": ["sun2019: 41 minutes were expected and 9 remained"],
        },
        "recipes": [*recipes, _failed()],
        "pairs": _pairs(random, recipes),
        "verdict": _verdict(),
        "disagreements": _disagreements(random, names, texts),
        "stamps": [
            "Test texts were part of the further pretraining corpus (transductive, as declared by --transductive)."
        ],
    }


def _data(names: list[str]) -> dict[str, Any]:
    shares = np.random.default_rng(1).dirichlet(np.full(len(names), 6.0))
    labels = [
        {"name": name, "train": round(760 * share), "validation": round(190 * share), "test": round(250 * share)}
        for name, share in zip(names, shares, strict=True)
    ]
    return {
        "source": "comments.csv",
        "rows": 1200,
        "train": 760,
        "validation": 190,
        "test": 250,
        "folds": None,
        "max_rows": None,
        "duplicates": {"kept together": 14, "removed": 3},
        "labels": labels,
        "lengths": {"median": 38, "p95": 92, "longest": 611, "max_length": 128, "cut_share": 0.021},
        "fingerprint": "9f2c" * 16,
        "findings": ["3 texts have the same words and different labels.", "12 texts are shorter than 4 words."],
    }


def _recipe(
    random: np.random.Generator,
    names: list[str],
    positive: str | None,
    name: str,
    title: str,
    way: str,
    further: bool,
    quality: float,
    seconds: float,
    parameters: int,
) -> dict[str, Any]:
    quality = quality if positive is None else 0.5 + quality / 2.1
    trained = way != "baseline" and "linear" not in name
    rates = [5e-5, 4e-5, 3e-5, 2e-5] if way == "finetune" else [1e-2, 3e-3, 1e-3] if trained else []
    return {
        "name": name,
        "title": title,
        "way": way,
        "further_pretraining": further,
        "status": "done",
        "reason": None,
        "rates": [_rate(random, rate, quality - 0.01 * place) for place, rate in enumerate(rates)],
        "rate": rates[0] if rates else None,
        "seeds": [0, 1, 2],
        "test": _test(random, quality),
        "recall": [_recall(random, label, quality if name != "majority" else label == names[0]) for label in names],
        "confusion": _confusion(random, len(names), quality) if name != "majority" else _one_class(len(names)),
        "calibration": _calibration(random),
        "threshold_curve": None if positive is None else _curve(positive, quality),
        "histories": [_history(random, 3 if way == "finetune" else 10, quality) for _ in range(3)] if trained else [],
        "cost": {
            "train_seconds": seconds,
            "search_seconds": seconds * max(3 * len(rates), 1),
            "peak_memory_bytes": None if way == "baseline" else 1_400_000_000 if trained else 780_000_000,
            "trained_parameters": parameters,
            "bundle_bytes": 91_000_000 if way != "baseline" else 700_000,
            "rows_per_second": 212.0 if way != "baseline" else 61_000.0,
        },
        "forgetting": _forgetting(random) if way == "finetune" or further else None,
        "restarts": [{"cell": f"{name}/5e-05/1", "reason": "every row was predicted 'sport'"}] if further else [],
        "collapses": [{"cell": f"{name}/2e-05/2", "reason": "the loss never left chance"}] if further else [],
        "cells": [f"{name}/{rate:g}/{seed}" for rate in rates for seed in range(3)],
    }


def _failed() -> dict[str, Any]:
    return {
        "name": "tapt",
        "title": "Task-adaptive pretraining, then fine-tuned",
        "way": "finetune",
        "further_pretraining": True,
        "status": "failed",
        "reason": "the loss was no longer a finite number after step 312, with seeds 0 and 3",
        "rates": [],
        "rate": None,
        "seeds": [],
        "test": {},
        "recall": [],
        "confusion": None,
        "calibration": None,
        "threshold_curve": None,
        "histories": [],
        "cost": None,
        "forgetting": None,
        "restarts": [],
        "cells": [],
    }


def _rate(random: np.random.Generator, rate: float, quality: float) -> dict[str, Any]:
    scores = [float(score) for score in quality + random.normal(0, 0.012, 3)]
    return {"rate": rate, "validation": scores, "mean": float(np.mean(scores))}


def _test(random: np.random.Generator, quality: float) -> dict[str, Any]:
    return {
        "f1_macro": _figure(random, quality, 0.035),
        "accuracy": _figure(random, quality + 0.02, 0.033),
        "log_loss": _figure(random, 1.6 - 1.4 * quality, 0.08),
        "roc_auc": {"mean": None, "low": None, "high": None, "seeds": [], "reason": "a class has no test row"},
    }


def _figure(random: np.random.Generator, mean: float, half: float) -> dict[str, Any]:
    seeds = [float(score) for score in mean + random.normal(0, half / 4, 3)]
    return {"mean": float(np.mean(seeds)), "low": max(0.0, mean - half), "high": mean + half, "seeds": seeds}


def _recall(random: np.random.Generator, label: str, quality: float | bool) -> dict[str, Any]:
    if isinstance(quality, bool):
        return {"label": label, "mean": float(quality), "low": float(quality), "high": float(quality), "support": 31}
    mean = float(np.clip(quality + random.normal(0, 0.1), 0.02, 0.98))
    return {"label": label, "mean": mean, "low": max(0.0, mean - 0.12), "high": min(1.0, mean + 0.1), "support": 31}


def _confusion(random: np.random.Generator, classes: int, quality: float) -> list[list[int]]:
    rows = random.dirichlet(np.full(classes, 0.7), classes) * (1 - quality) * 31 + np.eye(classes) * quality * 31
    return [[round(count) for count in row] for row in rows.tolist()]


def _one_class(classes: int) -> list[list[int]]:
    return [[31, *[0] * (classes - 1)] for _ in range(classes)]


def _calibration(random: np.random.Generator) -> dict[str, Any]:
    middles = np.arange(0.15, 1.0, 0.1)
    held = np.clip(middles + random.normal(0, 0.05, len(middles)), 0, 1)
    counts = random.integers(3, 70, len(middles))
    bins = [
        {"confidence": float(claimed), "accuracy": float(true), "count": int(count)}
        for claimed, true, count in zip(middles, held, counts, strict=True)
    ]
    return {"ece": float(np.abs(held - middles).mean()), "bins": bins}


def _curve(positive: str, quality: float) -> dict[str, Any]:
    thresholds = np.linspace(0, 1, 41)
    recall = 1 - thresholds ** (0.6 + 3 * quality**2)
    precision = [None if share == 0 else float(1 - 0.6 * (1 - quality) * (0.2 + share**2)) for share in recall]
    return {
        "label": positive,
        "thresholds": thresholds.tolist(),
        "recall": recall.tolist(),
        "precision": precision,
        "specificity": [1 - share ** (2 + 8 * quality**2) for share in recall.tolist()],
    }


def _history(random: np.random.Generator, epochs: int, quality: float) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 * float(np.exp(-0.6 * epoch)) + 0.1,
            "validation_loss": 1.2 * float(np.exp(-0.7 * epoch)) + 0.55 + 0.03 * epoch + float(random.normal(0, 0.02)),
            "f1_macro": quality * (1 - float(np.exp(-1.1 * epoch))) + float(random.normal(0, 0.008)),
            "best": epoch == epochs - 1,
        }
        for epoch in range(1, epochs + 1)
    ]


def _forgetting(random: np.random.Generator) -> dict[str, Any]:
    loss = 2.1 + float(random.normal(1.5, 0.5))
    return {
        "before": {"mlm_loss": 2.1, "mlm_accuracy": 0.61},
        "after": {"mlm_loss": loss, "mlm_accuracy": 0.61 - 0.08 * (loss - 2.1)},
    }


def _pairs(random: np.random.Generator, recipes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_pair(random, one, other) for place, one in enumerate(recipes) for other in recipes[place + 1 :]]


def _pair(random: np.random.Generator, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    difference = one["test"]["f1_macro"]["mean"] - other["test"]["f1_macro"]["mean"]
    real = abs(difference) > 0.05
    better, worse = (one, other) if difference > 0 else (other, one)
    words = f"{better['name']} is better than {worse['name']} by {abs(difference):.3f} in macro-F1."
    needed = None if real else int(900 / max(abs(difference), 0.01))
    if not real:
        words = f"No detectable difference between {one['name']} and {other['name']}."
    return {
        "a": one["name"],
        "b": other["name"],
        "difference": difference,
        "low": difference - 0.041,
        "high": difference + 0.041,
        "p": 0.0005 if real else 0.31,
        "p_holm": 0.0105 if real else 1.0,
        "mcnemar_p": 0.00002 if real else float(random.uniform(0.1, 1)),
        "detectable": real,
        "rows_needed": needed,
        "words": words,
    }


def _verdict() -> dict[str, Any]:
    return {
        "best": "further-finetune",
        "recommended": "frozen-linear",
        "words": [
            "Fine-tuned base after further pretraining scored highest: macro-F1 0.729, with no detectable difference "
            "from Fine-tuned base and Frozen base with linear head. 4 are detectably worse.",
            "Recommended: Frozen base with linear head, the cheapest of 3 not detectably worse than the best (9.0 s of "
            "training; Fine-tuned base after further pretraining took 26 min).",
            "Not detectable is not equal: within the 95% intervals Frozen base with linear head may be worse by up to "
            "0.068. To show differences of the sizes seen would take about 34,000 to 46,000 test rows; here are 250.",
        ],
    }


def _disagreements(random: np.random.Generator, names: list[str], texts: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "row": 17 + 23 * place,
            "text": text,
            "label": names[int(random.integers(len(names)))],
            "predictions": {line[0]: names[int(random.integers(len(names)))] for line in _RECIPES},
        }
        for place, text in enumerate(texts)
    ]


def _texts() -> tuple[str, ...]:
    """Comments that ship with the package, one of them long."""
    path = Path(fullbake.__file__).parent / "resources" / "samples" / "comments.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        texts = [row["text"] for _, row in zip(range(40), csv.DictReader(stream), strict=False)]
    return (" ".join(texts[30:40]), *texts[:30])


if __name__ == "__main__":
    from fullbake.comparison.report import write_report

    for case in ("topics", "binary", "hostile", "bare"):
        print(write_report(write_board(Path(sys.argv[1]) / case, case)))
