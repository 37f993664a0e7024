"""Test scores of fine-tuning by fullbake and by the Trainer, over seeds.

    python benchmarks/quality.py FOLDER_OF_DATA [rows] [epochs] [test rows] [side ...]

The sides are `fullbake`, `longest` (the Trainer with dynamic padding) and `grouped` (the Trainer with texts of similar
length in a batch). Padding all texts to 512 would give the scores of `longest`. The defaults are 512 rows, 2 epochs,
2,000 test rows and all three sides, which takes over an hour on two cores; `fullbake grouped` takes about 20 minutes.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from ours import FinetuneWork
from peers import TrainerWork
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from work import comments

from fullbake.config.sections import TrainingConfig
from fullbake.models.inference import logits_over
from fullbake.models.prediction import encode

SEEDS = (0, 1, 2)
NAMES = {"fullbake": "fullbake", "longest": "Trainer, dynamic padding", "grouped": "Trainer, grouped by length"}


def fullbake_logits(train: Any, test: list[str], seed: int, epochs: int) -> np.ndarray:
    work = FinetuneWork(*train, TrainingConfig(batch_size=16, epochs=epochs, warmup=0))
    model, _ = work.fit(seed)
    encoded = encode(test, work.tokenizer, work.tokens)
    return logits_over(model, encoded, tokens=work.tokens, pad_id=work.tokenizer.pad_token_id)


def trainer_logits(train: Any, test: list[str], seed: int, epochs: int, padding: str) -> np.ndarray:
    work = TrainerWork(*train, 16, padding)
    model, _, _ = work.fit(seed, epochs)
    return work.scores(model, test)


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    toxic = logits[:, 1] - logits[:, 0]
    return {
        "ROC-AUC": float(roc_auc_score(labels, toxic)),
        "average precision": float(average_precision_score(labels, toxic)),
        "macro-F1": float(f1_score(labels, toxic > 0, average="macro")),
    }


def main(folder: str, rows: int = 512, epochs: int = 2, test_rows: int = 2000, *sides: str) -> None:
    texts, labels = comments(folder, rows + test_rows)
    train, test = (texts[:rows], labels[:rows]), texts[rows:]
    results = []
    for seed in SEEDS:
        for side in sides or NAMES:
            started = time.perf_counter()
            logits = (
                fullbake_logits(train, test, seed, epochs)
                if side == "fullbake"
                else trainer_logits(train, test, seed, epochs, side)
            )
            results.append({"side": NAMES[side], "seed": seed, **score(logits, labels[rows:])})
            print(results[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    work = f"Fine-tuned on {rows} comments for {epochs} epochs, scored on {test_rows:,} others"
    store_result("finetune_quality", results, work=work)


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), *map(int, sys.argv[2:5]), *sys.argv[5:])
