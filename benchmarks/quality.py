"""What fine-tuning gives by each side: scores on rows that no side trained on, over seeds.

    python benchmarks/quality.py FOLDER_OF_DATA [rows] [epochs] [test rows] [side ...]

Sides are fullbake, longest and grouped (the Trainer with dynamic padding, and with texts of like length in a batch);
one that pads all texts to 512 computes what `longest` does. By default 512 rows, 2 epochs, 2,000 test rows and all
three sides, which takes over an hour on two cores; with `fullbake grouped` alone some 20 minutes.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep
from ours import Tuned
from peers import Trained
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from work import comments

from fullbake.config.sections import TrainingConfig
from fullbake.models.inference import encode, logits_over

SEEDS = (0, 1, 2)
NAMES = {"fullbake": "fullbake", "longest": "Trainer, dynamic padding", "grouped": "Trainer, grouped by length"}


def fullbake_logits(train: Any, test: list[str], seed: int, epochs: int) -> np.ndarray:
    work = Tuned(*train, TrainingConfig(batch_size=16, epochs=epochs, warmup=0))
    model, _ = work.fit(seed)
    encoded = encode(test, work.tokenizer, work.tokens)
    return logits_over(model, encoded, tokens=work.tokens, pad_id=work.tokenizer.pad_token_id)


def trainer_logits(train: Any, test: list[str], seed: int, epochs: int, padding: str) -> np.ndarray:
    work = Trained(*train, 16, padding)
    model, _, _ = work.fit(seed, epochs)
    return work.scores(model, test)


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    toxic = logits[:, 1] - logits[:, 0]
    return {
        "ROC-AUC": float(roc_auc_score(labels, toxic)),
        "average precision": float(average_precision_score(labels, toxic)),
        "macro-F1": float(f1_score(labels, toxic > 0, average="macro")),
    }


def main(folder: str, rows: int = 512, epochs: int = 2, tested: int = 2000, *sides: str) -> None:
    texts, labels = comments(folder, rows + tested)
    train, test = (texts[:rows], labels[:rows]), texts[rows:]
    found = []
    for seed in SEEDS:
        for side in sides or NAMES:
            started = time.perf_counter()
            logits = (
                fullbake_logits(train, test, seed, epochs)
                if side == "fullbake"
                else trainer_logits(train, test, seed, epochs, side)
            )
            found.append({"side": NAMES[side], "seed": seed, **score(logits, labels[rows:])})
            print(found[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    work = f"Fine-tuned on {rows} comments for {epochs} epochs, scored on {tested:,} others"
    keep("finetune_quality", found, work=work)


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), *map(int, sys.argv[2:5]), *sys.argv[5:])
