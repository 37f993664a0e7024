"""Add up the gradients of all processes in buckets, while the backward pass still runs.

A bucket is sent as soon as its gradients are complete, so that the network works while the layers below compute. The
parameters are in the reverse of their order, which is about the order in which backward reaches them; buckets are sent
in one fixed order by all processes. Only the backward pass of the last micro-batch sends: before it, gradients add up
locally.

torch's DistributedDataParallel does the same for processes with equal shares. Here a process may have fewer
micro-batches than the others, or none, and gradients are sums divided by the rows of the whole step, not means over
processes. `benchmarks/rank_exchange.py` compares both and a single message at the end of the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from fullbake.core import ranks

BUCKET_BYTES: Final = 25 * 1024**2
"""Bytes of a bucket, about: torch's own default."""


@dataclass(eq=False)
class _Bucket:
    parameters: list[nn.Parameter]
    message: Tensor
    missing: int = 0
    finish: Callable[[], None] | None = field(default=None)

    def send(self) -> None:
        """Copy the gradients into one message, zeros where there is none, and begin to add it up."""
        place = 0
        for parameter in self.parameters:
            part = self.message[place : place + parameter.numel()]
            if parameter.grad is None:
                part.zero_()
            else:
                part.view_as(parameter).copy_(parameter.grad)
            parameter.grad = part.view_as(parameter)
            place += parameter.numel()
        self.finish = ranks.begin_sum(self.message)


class GradientExchange:
    """The exchange of one training.

    In each step: `open` before the backward pass of the last micro-batch, if this process has one, and `close` after
    it. All processes have to call `close`, in every step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
        """Divide the parameters into buckets.

        Args:
            parameters: those that train, in the same order in every process.
            bucket_bytes: bytes of a bucket, about; a larger parameter has a bucket of its own.
        """
        self._buckets = [_make_bucket(part) for part in _divide(parameters, bucket_bytes)]
        self._is_open, self._sent = False, 0
        owners = {parameter: bucket for bucket in self._buckets for parameter in bucket.parameters}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(lambda done, bucket=bucket: self._note(done, bucket))
            for parameter, bucket in owners.items()
        ]

    def open(self) -> None:
        """Send each bucket from now on as soon as its gradients are complete."""
        self._is_open, self._sent = True, 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)

    def close(self) -> None:
        """Send what is left, and wait until every gradient is the sum over all processes."""
        if not self._is_open:
            self._sent = 0
        self._is_open = False
        for bucket in self._buckets[self._sent :]:
            bucket.send()
        for bucket in self._buckets:
            assert bucket.finish is not None
            bucket.finish()
            bucket.finish = None

    def remove(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _note(self, parameter: Tensor, bucket: _Bucket) -> None:
        """Count a complete gradient, and send all buckets that are complete up to the first that is not."""
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()
        if not self._is_open:
            return
        bucket.missing -= 1
        while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
            self._buckets[self._sent].send()
            self._sent += 1


def _divide(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Return the parameters of each bucket, the last parameters first. A bucket has one dtype and one device."""
    parts: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        is_like = bool(parts) and (parts[-1][0].dtype, parts[-1][0].device) == (parameter.dtype, parameter.device)
        if not is_like or size + parameter.nbytes > bucket_bytes:
            parts.append([])
            size = 0
        parts[-1].append(parameter)
        size += parameter.nbytes
    return parts


def _make_bucket(parameters: list[nn.Parameter]) -> _Bucket:
    first = parameters[0]
    count = sum(parameter.numel() for parameter in parameters)
    return _Bucket(parameters, torch.empty(count, dtype=first.dtype, device=first.device))
