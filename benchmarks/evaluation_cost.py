"""CPU seconds of the steps and of the evaluations of a short further pretraining.

    python benchmarks/evaluation_cost.py FOLDER_OF_DATA FOLDER_TO_WORK_IN

Base `demo`, masked words of news, 32 rows of at most 64 tokens a step.
"""

import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from head_starts import news
from machine import store_result

from fullbake.config.pretraining import PretrainingConfig
from fullbake.pretraining.documents import text_source
from fullbake.pretraining.run import PretrainingRun, prepare_run, run_pretraining

STEPS = (20, 40)


def measure(texts: list[str], steps: int, work: Path) -> dict[str, Any]:
    stage = PretrainingConfig(objective="mlm", steps=steps, max_length=64)
    run = prepare_run("demo", [text_source(texts, "news", "evaluation cost: news")], stage, cache_dir=work / "cache")
    spent: list[float] = []
    evaluate = PretrainingRun.evaluate

    def timed(self: PretrainingRun) -> dict[str, float]:
        started = time.process_time()
        scores = evaluate(self)
        spent.append(time.process_time() - started)
        return scores

    started = time.process_time()
    with patch.object(PretrainingRun, "evaluate", timed):
        run_pretraining(run)
    whole = time.process_time() - started
    assert run.general_set is not None
    row = {
        "steps": steps,
        "evaluations, with the one before": len(spent),
        "words of held-out text": run.held_out_set.masked_tokens,
        "words of general text": run.general_set.masked_tokens,
        "CPU s of evaluations": round(sum(spent), 1),
        "CPU s of the rest": round(whole - sum(spent), 1),
        "share": f"{sum(spent) / (whole - sum(spent)):.1%}",
    }
    print(row, flush=True)
    return row


def main(data: Path, work: Path) -> None:
    texts = news(data)
    store_result("evaluation_cost", [measure(texts, steps, work) for steps in STEPS])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
