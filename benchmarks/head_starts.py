"""Where a new masked-LM head starts: at random weights, or at a head that was trained on the frozen encoder.

    python benchmarks/head_starts.py FOLDER_OF_DATA FOLDER_TO_WORK_IN

`demo` has no masked-LM head. It is further pretrained for 300 steps of 512 tokens (masked words only) on news and on
reviews, once from each start; all else is the same. Then a linear head is trained on 1,000 labeled texts over each
frozen base and tested on 2,000 others. General words are measured under one head, the trained one.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import store_result

from fullbake import Recipe, adapt, evaluate
from fullbake.config.pretraining import PretrainingConfig
from fullbake.data.labeled_files import read_labeled
from fullbake.data.partition import split
from fullbake.models.masked_lm import load_language_model
from fullbake.pretraining.documents import text_source
from fullbake.pretraining.run import prepare_run, run_pretraining, write_base

STAGE = PretrainingConfig(objective="mlm", steps=300, max_length=64, batch_tokens=512, evaluations=10)
SHOWN_STEPS = (30, 90, 300)
STARTS = ("random weights", "trained head")


def reviews(data: Path) -> list[str]:
    texts = pq.read_table(data / "imdb_unlabelled.parquet")["text"].to_pylist()[:4000]
    return [text.replace("<br />", "\n") for text in texts]


def news(data: Path) -> list[str]:
    with (data / "ag_news_train_10k.csv").open(newline="", encoding="utf-8") as file:
        return [row["description"] for row in csv.DictReader(file)]


LABELED = {
    "reviews": ("imdb_train.parquet", "imdb_test.parquet", {"max_length": 64, "truncation": "head+tail"}),
    "news": ("ag_news_train_10k.csv", "ag_news_test.csv", {"max_length": 64, "text": "description"}),
}


def further_pretrain_from(start: str, texts: list[str], name: str, work: Path) -> dict[str, Any]:
    """Further pretrain `demo`, write the new base, and return what its training measured."""
    run = prepare_run("demo", [text_source(texts, name, f"head starts: {name}")], STAGE, cache_dir=work / "cache")
    if start == "random weights":
        run = replace(run, loaded=load_language_model("demo", pairs=False, seed=STAGE.seed))
    result = run_pretraining(run)
    out = work / f"{name}-{start.replace(' ', '-')}"
    out.mkdir(parents=True)
    write_base(out, run, result, {})
    at = {entry["step"]: entry for entry in result.history}
    right = [result.start, *(at[step] for step in SHOWN_STEPS)]
    return {
        "first held-out loss": round(result.start["mlm_loss"], 3),
        **{f"after {step} steps": round(at[step]["mlm_loss"], 3) for step in SHOWN_STEPS},
        f"general words right at 0, {', '.join(map(str, SHOWN_STEPS))}": ", ".join(
            f"{scores['general_mlm_accuracy']:.3f}" for scores in right
        ),
        "forgotten (nats)": round(result.end["general_mlm_loss"] - result.start["general_mlm_loss"], 3),
    }


def score_linear_head(base: str, name: str, data: Path, work: Path) -> str:
    """Return the accuracy of a linear head over a frozen base, with its interval."""
    train_file, test_file, fields = LABELED[name]
    recipe = Recipe.load("frozen-linear", base=base, folds=0, **fields)
    train = read_labeled(data / train_file, recipe.data)
    train = train.take(split(np.arange(len(train)), train.labels, 1000 / len(train), 0)[1])
    test = read_labeled(data / test_file, recipe.data, label_names=train.label_names)
    test = test.take(split(np.arange(len(test)), test.labels, 2000 / len(test), 0)[1])
    accuracy = evaluate(adapt(recipe, train, cache_dir=work / "cache"), test)["overall"]["accuracy"]
    return f"{accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})"


def main(data: Path, work: Path) -> None:
    rows: list[dict[str, Any]] = []
    for name, texts in (("news", news(data)), ("reviews", reviews(data))):
        plain = score_linear_head("demo", name, data, work)
        for start in STARTS:
            measured = further_pretrain_from(start, texts, name, work)
            base = str(work / f"{name}-{start.replace(' ', '-')}")
            scores = {"linear head, accuracy": score_linear_head(base, name, data, work), "without": plain}
            rows.append({"text": name, "head starts at": start} | measured | scores)
            print(rows[-1], flush=True)
    store_result("head_starts", rows, steps=STAGE.steps, tokens_a_step=STAGE.batch_tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
