"""Speed of training with one and two threads, by how long a thread spins before it sleeps, beside busy processes.

    python benchmarks/busy_machine.py

Each setting is measured in a process of its own: fine-tuning `demo` on the bundled comments in tokens a second (batches
of 32), and epochs of an mlp head on 500 rows of features. `alone` runs with real-time priority (this needs root), so
that other processes do not count; `busy` runs beside one loop that never waits, and beside whatever else the machine
does: the mean load is stored with each row.
"""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from machine import busy_processes, store_result
from small_sets import bundled_comments
from torch.nn.functional import cross_entropy

from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.models import network
from fullbake.models.batching import Step, training_plan
from fullbake.models.fast_layers import fast_layers
from fullbake.models.heads import build_head
from fullbake.models.inference import batch_inputs
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.frozen import HeadSettings, LabeledFeatures, fit_head
from fullbake.training.losses import make_training_loss

SECONDS = 3.0
CONDITIONS = ("alone", "busy")

SETTINGS = ((2, None), (2, 10_000), (2, 1_000), (2, 0), (1, None))
"""(threads, GOMP_SPINCOUNT); None leaves the default of the OpenMP library, 300,000 turns of a loop."""

CLASSES, WIDTH, ROWS = 8, 384, 500


def main() -> None:
    rows = [measured(beside, threads, spins) for beside in CONDITIONS for threads, spins in SETTINGS]
    store_result("busy_machine", rows, data="the bundled comments, demo, batches of 32; 500 rows for the head")


def measured(beside: str, threads: int, spins: int | None) -> dict[str, Any]:
    """Return the figures of one setting. The busy processes start when the child has loaded everything."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environment |= {} if spins is None else {"GOMP_SPINCOUNT": str(spins)}
    command = [sys.executable, __file__, "child"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Loading is not measured, so it need not wait for other processes either.
    with subprocess.Popen(command, env=environment, preexec_fn=lambda: schedule(os.SCHED_FIFO), **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with busy_processes(int(beside == "busy"), ["yes"]):
            print(beside, file=child.stdin, flush=True)
            row = {"beside": beside, "threads": threads, "spins": "default" if spins is None else spins} | json.loads(
                child.stdout.readline()
            )
    print(row, flush=True)
    return row


def schedule(policy: int) -> None:
    """Let all threads of this process be scheduled by a policy; under SCHED_FIFO they run before other processes."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setscheduler(int(thread), policy, os.sched_param(int(policy == os.SCHED_FIFO)))


def child() -> None:
    """Load, wait for the parent's word, measure, and print the figures as JSON."""
    step, head_epoch = FineTuning(), HeadTraining()
    for _ in range(3):
        step()
    head_epoch()
    print("ready", flush=True)
    if sys.stdin.readline() != "alone\n":
        schedule(os.SCHED_OTHER)
    tokens, used = rates(step)
    epochs, _ = rates(head_epoch)
    figures = {
        "tokens_per_second": round(sum(done for done, _ in tokens) / sum(seconds for _, seconds in tokens)),
        "fastest": round(max(done / seconds for done, seconds in tokens)),
        "processor_seconds_per_second": round(used, 2),
        "seconds_of_head_epoch": round(sum(seconds for _, seconds in epochs) / sum(done for done, _ in epochs), 3),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures), flush=True)


def rates(work: Any) -> tuple[list[tuple[float, float]], float]:
    """Repeat the work for some seconds. Return (amount, seconds) of each second, and the processor time a second."""
    stretches, begun, used = [], time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < SECONDS:
        done, started = 0.0, time.perf_counter()
        while time.perf_counter() - started < 1.0:
            done += work()
        stretches.append((done, time.perf_counter() - started))
    return stretches, (time.process_time() - used) / (time.perf_counter() - begun)


class FineTuning:
    """Fine-tuning of `demo` on the bundled comments. A call takes one step and returns its tokens."""

    def __init__(self) -> None:
        self.tokens = TokensConfig(max_length=128)
        texts = [row["text"] for row in csv.DictReader(bundled_comments().read_text("utf-8").splitlines())]
        tokenizer = load_tokenizer("demo")
        self.pad_id, self.encoded = tokenizer.pad_token_id, encode(texts, tokenizer, self.tokens)
        self.labels = torch.arange(len(texts)) % CLASSES
        head = HeadConfig(kind="linear", pooling="mean")
        self.model = network.build_network("demo", head, [str(number) for number in range(CLASSES)], seed=0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.steps = self.plan()
        self.fast = fast_layers(self.model, packed=True)
        self.fast.__enter__()
        self.model.train()

    def plan(self) -> Iterator[Step]:
        for epoch in range(1000):
            yield from training_plan(
                self.encoded.lengths, batch_size=32, seed=0, epoch=epoch, token_budget=4096, merge_last_single=False
            )

    def __call__(self) -> float:
        rows, parameters = next(self.steps).rows, list(self.model.parameters())
        inputs = batch_inputs(self.encoded, rows, tokens=self.tokens, pad_id=self.pad_id, device=torch.device("cpu"))
        cross_entropy(self.model(**inputs).logits, self.labels[torch.from_numpy(rows)]).backward()
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(self.encoded.lengths[rows].sum())


class HeadTraining:
    """Training of an mlp head by torch's own number of threads. A call trains a new head for an epoch and returns 1."""

    def __init__(self) -> None:
        random, names = np.random.default_rng(0), [str(number) for number in range(CLASSES)]
        self.rows = LabeledFeatures(
            random.standard_normal((ROWS, WIDTH)).astype(np.float32), random.integers(0, CLASSES, ROWS)
        )
        training = TrainingConfig(
            optimizer="adam", learning_rate=(1e-3,), batch_size=32, epochs=1, metric="neg_log_loss", precision="fp32"
        )
        objective = make_training_loss(training, self.rows.labels, names)
        self.settings = HeadSettings(HeadConfig(kind="mlp", width=WIDTH), training, objective)

    def __call__(self) -> float:
        head = self.settings.head
        module = build_head("mlp", WIDTH, CLASSES, dropout=head.dropout, layers=head.layers, width=WIDTH)
        without_limit = fit_head.__wrapped__  # type: ignore[attr-defined]
        without_limit(module, self.rows, lambda *_: {"validation_loss": 0.0, "neg_log_loss": 0.0}, self.settings)
        return 1.0


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
