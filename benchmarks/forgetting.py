"""What a small BERT learns and forgets in task-adaptive pretraining and in fine-tuning, at four learning rates.

    python benchmarks/forgetting.py FOLDER_OF_DATA FOLDER_TO_WORK_IN [steps from random weights]

The base has 4 layers, hidden size 256 and a WordPiece vocabulary of 8,192; it is pretrained from random weights by
masked LM on imdb_unlabelled and wikitext103_valid. Then follow TAPT (masked LM, 1 epoch of ag_news_train_10k, batch 64)
at each rate, and fine-tuning of the same base on 2,000 rows of it at the same rates. The general text is
wikitext103_test, which is in no training. After a stop the same command resumes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from further_pretraining import corpus, read_or_make
from machine import store_result

from fullbake import Recipe, adapt, evaluate, further_pretrain
from fullbake.config.pretraining import PretrainingConfig
from fullbake.data.labeled_files import read_labeled
from fullbake.data.partition import split
from fullbake.pretraining.forgetting import probe

RATES = (2e-5, 5e-5, 1e-4, 4e-4)
TEXT = "description"
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 8192,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def pretrain_from_scratch(data: Path, work: Path, steps: int) -> dict[str, Any]:
    seed = work / "config-only"
    seed.mkdir(exist_ok=True, parents=True)
    (seed / "config.json").write_text(json.dumps(CONFIG))
    stage = PretrainingConfig(
        objective="mlm",
        init="random",
        steps=steps,
        batch_tokens=4096,
        learning_rate=5e-4,
        evaluations=6,
        precision="bf16",
        probe_text=str(data / "wikitext103_test.txt"),
    )
    texts = [corpus(data, work), data / "wikitext103_valid.txt"]
    out = work / "small"
    return read_or_make(out, lambda: further_pretrain(seed, texts, out, stage=stage, cache_dir=work / "cache"))


def tapt(data: Path, work: Path, rate: float) -> dict[str, Any]:
    stage = PretrainingConfig(
        objective="mlm",
        epochs=1,
        batch_size=64,
        learning_rate=rate,
        beta2=0.98,
        warmup=0.06,
        evaluations=4,
        precision="bf16",
        probe_text=str(data / "wikitext103_test.txt"),
    )
    out = work / f"tapt-{rate:g}"
    return read_or_make(
        out,
        lambda: further_pretrain(
            work / "small",
            data / "ag_news_train_10k.csv",
            out,
            stage=stage,
            text=TEXT,
            cache_dir=work / "cache",
            keep_out=[data / "ag_news_test.csv"],
        ),
    )


def fine_tune(data: Path, work: Path, rate: float) -> dict[str, Any]:
    out = work / f"tuned-{rate:g}"
    small = str(work / "small")
    recipe = Recipe.load("finetune", base=small, text=TEXT, learning_rate=(rate,), batch_size=16, max_length=128)
    rows = read_labeled(data / "ag_news_train_10k.csv", recipe.data)
    train = rows.take(split(np.arange(len(rows)), rows.labels, 0.2, 0)[1])
    classifier = adapt(recipe, train, out=out, overwrite=True, cache_dir=work / "cache")
    test = read_labeled(data / "ag_news_test.csv", recipe.data, label_names=classifier.label_names)
    accuracy = evaluate(classifier, test)["overall"]["accuracy"]
    found = probe(out, base=work / "small", text=str(data / "wikitext103_test.txt"), cache_dir=work / "cache")
    best = next(entry for entry in classifier.record.history if entry["best"])
    return {
        "accuracy": accuracy["value"],
        "interval": [accuracy["low"], accuracy["high"]],
        "train_loss": best["train_loss"],
        "general": [found["before"]["mlm_loss"], found["after"]["mlm_loss"]],
    }


def row(work: str, rate: float, domain: list[float], general: list[float], accuracy: str) -> dict[str, Any]:
    result = {
        "what": work,
        "rate": f"{rate:g}",
        "in-domain loss before": round(domain[0], 3) if domain else None,
        "after": round(domain[1], 3) if domain else None,
        "general loss before": round(general[0], 3),
        "general loss after": round(general[1], 3),
        "forgotten": round(general[1] - general[0], 3),
        "test accuracy": accuracy,
    }
    print(result, flush=True)
    return result


def main(data: Path, work: Path, steps: int = 2400) -> None:
    small = pretrain_from_scratch(data, work, steps)
    rows = []
    for rate in RATES:
        about = tapt(data, work, rate)
        end = next(entry for entry in about["history"] if entry["best"])
        diverged = next((entry["diverged"] for entry in about["history"] if "diverged" in entry), "")
        losses = [[about["start"][name], end[name]] for name in ("mlm_loss", "general_mlm_loss")]
        rows.append(row("TAPT", rate, *losses, diverged))
    for rate in RATES:
        found = fine_tune(data, work, rate)
        accuracy = f"{found['accuracy']:.4f} ({found['interval'][0]:.3f} to {found['interval'][1]:.3f})"
        rows.append(row("fine-tuning", rate, [], found["general"], accuracy))
    store_result(
        "forgetting",
        rows,
        from_nothing={
            "steps": small["steps"],
            "tokens a step": 4096,
            "corpus": small["corpus"],
            "history": small["history"],
            "start": small["start"],
        },
        precision="bf16 in pretraining, fp32 in fine-tuning",
        training_seconds=round(sum(entry["seconds"] for entry in small["history"])),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
