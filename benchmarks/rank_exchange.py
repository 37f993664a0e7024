"""A training step by one process and by two, with three ways to add up the gradients: seconds and differences.

    python benchmarks/rank_exchange.py [rounds]

Two gloo processes of one thread on one machine, base demo with its standard head, AdamW, steps of 32 rows of 64 tokens
in two micro-batches. The sides take turns within the same two processes, two steps each in a round. In `one process`
the second one sleeps. `fast` layers are those that training uses on a CPU, `plain` ones are those of transformers.
Seconds are medians over rounds; processor seconds are those of both processes together. `waiting` is the part of a step
after the backward pass, in which a process waits for the sums. Efficiency is the time of one process over twice the
time of two: 1 would be perfect. `difference` is that of the gradients to those of one process, the largest one over the
largest gradient.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Any

from machine import store_result

STEPS, ROWS, TOKENS, MICRO_BATCHES = 2, 32, 64, 2
DDP = "DistributedDataParallel"
SIDES = (
    *(("fast", gradients) for gradients in ("one process", "one message", "buckets")),
    *(("plain", gradients) for gradients in ("one process", "one message", "buckets", DDP)),
)
"""Layers, and how gradients are added up."""


class Worker:
    """One of the two processes."""

    def __init__(self) -> None:
        import torch

        from fullbake import Recipe
        from fullbake.core import ranks, runtime
        from fullbake.models.network import build_network

        torch.set_num_threads(1)
        ranks.join_ranks()
        recipe = Recipe.load("finetune", base="demo")
        self.network = build_network(
            "demo", recipe.head, ("no", "yes"), problem_type="single_label_classification", seed=0
        )
        self.network.eval()  # without dropout, whose draws depend on the number of processes
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.bytes = sum(p.nbytes for p in self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, fused=True)
        draws = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1000, 20_000, (ROWS, TOKENS), generator=draws)
        self.labels = torch.randint(0, 2, (ROWS,), generator=draws)
        self.rank, self.torch, self.ranks = runtime.rank(), torch, ranks

    def parts(self, alone: bool) -> list[Any]:
        """Return the rows of each micro-batch of this process."""
        batches = self.torch.arange(ROWS).chunk(MICRO_BATCHES)
        return list(batches) if alone else [rows[self.rank :: 2] for rows in batches]

    def loss(self, module: Any, rows: Any) -> Any:
        logits = module(input_ids=self.ids[rows], attention_mask=self.torch.ones_like(self.ids[rows])).logits
        return self.torch.nn.functional.cross_entropy(logits, self.labels[rows], reduction="sum") / ROWS

    def step(self, side: str, keep: bool = False) -> tuple[float, Any]:
        """Take a step of one side; return the seconds of waiting, and all gradients if they are asked for."""
        parts = self.parts(side == "one process")
        waited = 0.0
        if side == DDP:
            for number, rows in enumerate(parts, 1):
                with nullcontext() if number == len(parts) else self.wrapped.no_sync():
                    (2 * self.loss(self.wrapped, rows)).backward()
        else:
            for number, rows in enumerate(parts, 1):
                if side == "buckets" and number == len(parts):
                    self.exchange.open()
                self.loss(self.network, rows).backward()
                for parameter in self.parameters:
                    if parameter.grad is not None and parameter.grad.is_sparse:
                        parameter.grad = parameter.grad.to_dense()
            started = time.perf_counter()
            if side == "buckets":
                self.exchange.close()
            elif side == "one message":
                self.sum_in_one_message()
            waited = time.perf_counter() - started
        flat = self.torch.cat([p.grad.ravel() for p in self.parameters]) if keep else None
        self.torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return waited, flat

    def sum_in_one_message(self) -> None:
        gradients = [p.grad for p in self.parameters]
        flat = self.ranks.sum_over_ranks(self.torch.cat([gradient.ravel() for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def prepare(self, side: str) -> None:
        """Put the hooks of a side in place; those of the others must not run."""
        from fullbake.training.gradient_exchange import GradientExchange

        if side == "buckets":
            self.exchange = GradientExchange(list(self.network.parameters()))
        elif side == DDP:
            self.wrapped = self.torch.nn.parallel.DistributedDataParallel(self.network)

    def clear(self, side: str) -> None:
        if side == "buckets":
            self.exchange.remove()
        elif side == DDP:
            del self.wrapped

    def measure(self, layers: str, side: str) -> dict[str, float]:
        """Return wall and processor seconds of a step of one side."""
        from fullbake.models.fast_layers import fast_layers

        with fast_layers(self.network) if layers == "fast" else nullcontext():
            return self._measure(side)

    def _measure(self, side: str) -> dict[str, float]:
        self.prepare(side)
        self.ranks.wait_for_ranks()
        started, used, waited = time.perf_counter(), time.process_time(), 0.0
        if side != "one process" or self.rank == 0:
            for _ in range(STEPS):
                waited += self.step(side)[0]
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        self.ranks.wait_for_ranks()
        self.clear(side)
        return {"wall": wall / STEPS, "cpu": cpu / STEPS, "waiting": waited / STEPS}

    def run(self, rounds: int) -> None:
        from fullbake.models.fast_layers import fast_layers

        difference, references = {}, {}
        for layers, side in SIDES:
            with fast_layers(self.network) if layers == "fast" else nullcontext():
                self.prepare(side)
                _, gradients = self.step(side, keep=True)
                self.clear(side)
            reference = references.setdefault(layers, gradients)
            difference[f"{layers} {side}"] = float((gradients - reference).abs().max() / reference.abs().max())
        found: dict[str, list[dict[str, float]]] = {f"{layers} {side}": [] for layers, side in SIDES}
        for number in range(rounds):
            for layers, side in SIDES if number % 2 else reversed(SIDES):
                found[f"{layers} {side}"].append(self.measure(layers, side))
        everything = self.ranks.gather_json(found)
        if self.rank == 0:
            print(json.dumps({"bytes": self.bytes, "difference": difference, "ranks": everything}), flush=True)
        self.ranks.wait_for_ranks()


def start(rank: int, port: int, rounds: int) -> "subprocess.Popen[str]":
    given = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", str(rounds)],
        env=os.environ | given | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
    )


def main(rounds: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = (start(rank, port, rounds) for rank in range(2))
    output, _ = first.communicate()
    second.communicate()
    measured = json.loads(output.splitlines()[-1])

    def median(side: str, name: str, rank: int) -> float:
        return statistics.median(entry[name] for entry in measured["ranks"][rank][side])

    rows = []
    for layers, gradients in SIDES:
        side, both = f"{layers} {gradients}", gradients != "one process"
        if not both:
            alone = median(side, "wall", 0), median(side, "cpu", 0)
        wall = max(median(side, "wall", rank) for rank in range(2)) if both else alone[0]
        cpu = sum(median(side, "cpu", rank) for rank in range(2)) if both else alone[1]
        rows.append(
            {
                "layers": layers,
                "gradients": gradients,
                "processes": 2 if both else 1,
                "seconds a step": round(wall, 3),
                "processor seconds a step": round(cpu, 3),
                "waiting, s": round(max(median(side, "waiting", rank) for rank in range(2)), 3),
                "efficiency, wall": round(alone[0] / (2 * wall), 3) if both else 1,
                "efficiency, processor": round(alone[1] / cpu, 3) if both else 1,
                "difference": float(f"{measured['difference'][side]:.1e}"),
            }
        )
        print(rows[-1])
    store_result("rank_exchange", rows, message_bytes=measured["bytes"], rounds=rounds, tokens_a_step=ROWS * TOKENS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        Worker().run(int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
