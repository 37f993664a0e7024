"""Buckets give the sum of all gradients, also to a process with fewer micro-batches or none."""

import threading
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fullbake.core import ranks
from fullbake.training.gradient_exchange import GradientExchange

INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


class Sums:
    """Adds up tensors of several threads, each of which stands for a process."""

    def __init__(self, count: int) -> None:
        self.barrier, self.messages = threading.Barrier(count, timeout=20), defaultdict[int, list[Tensor]](list)
        self.sent = threading.local()
        self.lock = threading.Lock()

    def begin(self, message: Tensor) -> Callable[[], None]:
        number = self.sent.number = getattr(self.sent, "number", -1) + 1
        with self.lock:
            self.messages[number].append(message)

        def finish() -> None:
            self.barrier.wait()
            shapes = {message.shape for message in self.messages[number]}
            assert len(shapes) == 1, "processes send their buckets in different orders"
            total = torch.stack(self.messages[number]).sum(0)
            self.barrier.wait()
            message.copy_(total)

        return finish


def network() -> nn.Sequential:
    torch.manual_seed(3)
    unused = nn.Linear(4, 4)  # of a bucket of its own, without a gradient
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    module.add_module("unused", unused)
    return module


def forward(module: nn.Sequential, rows: list[int]) -> Tensor:
    hidden: Tensor = module[2](module[1](module[0](INPUTS[rows])))
    return hidden.square().sum()


def gradients(module: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("bucket_bytes", [1, 100, 10**6])
def test_unequal_shares_give_the_sum_of_all_rows(monkeypatch: pytest.MonkeyPatch, bucket_bytes: int) -> None:
    shares = [[[0, 1], [2], [3, 4, 5]], [[6, 7, 8, 9, 10, 11]], []]
    sums = Sums(len(shares))
    monkeypatch.setattr(ranks, "begin_sum", sums.begin)
    found: dict[int, list[list[Tensor]]] = {}

    modules = [network() for _ in shares]

    def run(rank: int) -> None:
        module = modules[rank]
        exchange = GradientExchange(list(module.parameters()), bucket_bytes)
        found[rank] = []
        for _ in range(2):
            for left, rows in zip(range(len(shares[rank]), 0, -1), shares[rank], strict=True):
                if left == 1:
                    exchange.open()
                forward(module, rows).backward()
            exchange.close()
            found[rank].append(gradients(module))
            module.zero_grad()
        exchange.remove()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = network()
    forward(whole, list(range(12))).backward()
    for rank in range(len(shares)):
        for step in found[rank]:
            torch.testing.assert_close(step, gradients(whole))
        assert all(torch.equal(a, b) for a, b in zip(found[rank][0], found[0][0], strict=True))


def test_a_bucket_is_sent_before_backward_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    module, events = network(), []
    monkeypatch.setattr(ranks, "begin_sum", lambda message: events.append(len(message)) or (lambda: None))
    module[0].weight.register_post_accumulate_grad_hook(lambda _: events.append("first layer"))
    exchange = GradientExchange([p for p in module.parameters() if p is not module[0].bias][:-2], 1)
    exchange.open()
    forward(module, [0, 1]).backward()
    assert events == [3, 15, "first layer", 20]
    exchange.close()
    assert events == [3, 15, "first layer", 20]


def test_sparse_gradients_are_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "begin_sum", lambda message: lambda: None)
    table = nn.Embedding(6, 2, sparse=True)
    exchange = GradientExchange(list(table.parameters()))
    exchange.open()
    table(torch.tensor([1, 1, 4])).sum().backward()
    exchange.close()
    assert table.weight.grad is not None
    assert table.weight.grad.tolist() == [[0, 0], [2, 2], [0, 0], [0, 0], [1, 1], [0, 0]]
