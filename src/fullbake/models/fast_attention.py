"""Dropout on the CPU from 16-bit words of a numpy generator.

torch draws a 64-bit number for each element, one thread: in fine-tuning that costs as much as a third of the matrix
products. Here a generator (SFC64) gives four elements a word, and a word below `rate * 65536` drops its element. The
rate is thus a multiple of 1/65536 (0.1 is 0.100006); what is kept is rescaled by that rate, so the mean is exact.

Each call takes its generator's seed from torch's own, so a mask is as repeatable as torch's: `torch.manual_seed` and
gradient checkpointing work as before. The masks are other ones than torch's; their distribution is the same.

Attention with dropout on the CPU, as transformers' attention interface takes it.

With dropout torch leaves its fast attention for separate operations over a (rows, heads, tokens, tokens) array, each
of them a journey to memory. Here the work goes chunk by chunk of heads: scores, softmax in place, dropout and product
while a chunk is in the cache. Backward computes the probabilities anew, which costs less than storing them; of dropout
a byte an element is kept. The numbers are torch's up to rounding.

Rows may come packed, one after another in a single row with their bounds (`packing`): then those of equal length are
attended together. Everything else (other devices and types, a position bias, gradients without dropout) goes to
torch's own `sdpa`.
"""

from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fullbake.core import runtime

DROP_LEVELS = 1 << 16
"""Values of a word."""


def drop_threshold(rate: float) -> int:
    """Words below it drop their element: the rate in 65536ths."""
    return round(rate * DROP_LEVELS)


def word_generator() -> np.random.SFC64:
    """A generator seeded with the next number of torch's."""
    return np.random.SFC64(int(torch.randint(1 << 62, ())))


def draw_keep_mask(source: np.random.SFC64, level: int, kept: npt.NDArray[np.bool_]) -> None:
    """Fill `kept`, C-contiguous, with False where a word of `source` is below `level`."""
    words = np.asarray(source.random_raw(-(-kept.size // 4))).view(np.uint16)[: kept.size]
    np.greater_equal(words, np.uint16(level), out=kept.reshape(-1))


class WordDropout(nn.Dropout):
    """nn.Dropout with masks from words, where it can: on the CPU, in fp32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name for it)
        """Of the input's shape; in training mode elements are zero with chance p, and the rest is rescaled."""
        level = drop_threshold(self.p)
        if not (
            self.training and 0 < level < DROP_LEVELS and input.device.type == "cpu" and input.dtype == torch.float32
        ):
            return super().forward(input)
        dropped: Tensor = _Drop.apply(input, level)  # type: ignore[no-untyped-call]
        return dropped


class _Drop(torch.autograd.Function):
    """Elements kept or zero; what is remembered for the way back is a byte an element, as in torch."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, level: int) -> Tensor:
        kept = np.empty(values.shape, dtype=np.bool_)
        draw_keep_mask(word_generator(), level, kept)
        ctx.save_for_backward(torch.from_numpy(kept))
        ctx.rescale = DROP_LEVELS / (DROP_LEVELS - level)
        return _kept_of(values, kept, ctx.rescale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _kept_of(gradient, kept.numpy(), ctx.rescale), None


def _kept_of(values: Tensor, kept: npt.NDArray[np.bool_], rescale: float) -> Tensor:
    noise = torch.empty(values.shape)
    np.copyto(noise.numpy(), kept)  # several times faster than torch's conversion
    return noise.mul_(values).mul_(rescale)


ATTENTION_NAME = "fullbake"
"""What the implementation is called in transformers' registers."""

CHUNK_ELEMENTS = 1 << 18
"""Scores that are worked on at once: a megabyte, which a core's cache holds."""

SHORT_SEQUENCE = 128
"""Tokens up to which rows without gradients, masks and dropout go through `_attend_short`."""


def attend_with_dropout(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers asks of an attention.

    query: (rows, heads, queries, width). key, value: (rows, heads, tokens, width). attention_mask: None, or bool, true
    where a query may look, or to be added to the scores; (rows, 1, queries, tokens). Returns (rows, queries, heads,
    width), and None for the weights.
    """
    if kwargs.get("cu_seq_lens_q") is not None:
        return _attend_packed(module, query, key, value, dropout, scaling, **kwargs), None
    level, fits = drop_threshold(dropout), _fits(module, query, key, attention_mask, kwargs)
    if fits and not level and attention_mask is None and _is_short(query, key):
        return _attend_short(query, key, value, scaling), None
    if not (fits and 0 < level < DROP_LEVELS):
        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return whole
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    bias = None if attention_mask is None else _bias(attention_mask)
    out: Tensor = _Attention.apply(query, key, value, bias, scale, level)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


def _attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    **kwargs: Any,
) -> Tensor:
    """Rows of equal lengths at a time, or all at once on a GPU.

    query: (1, heads, queries of all rows, width). key, value: likewise. cu_seq_lens_q, cu_seq_lens_k: where the rows
    begin and the last ends, (rows + 1,). Returns (1, queries of all rows, heads, width).
    """
    if attends_varlen(query.device, dropout):
        return _attend_varlen(query, key, value, scaling, cu_seq_lens_q, cu_seq_lens_k, **kwargs)
    groups = _equal_rows(cu_seq_lens_q, cu_seq_lens_k)
    queries = query.split([rows * length for rows, length, _ in groups], 2)
    keys, values = (part.split([rows * length for rows, _, length in groups], 2) for part in (key, value))
    grouped = (
        attend_with_dropout(
            module, _unpacked(q, rows), _unpacked(k, rows), _unpacked(v, rows), None, dropout, scaling, **kwargs
        )[0]
        for (rows, _, _), q, k, v in zip(groups, queries, keys, values, strict=True)
    )
    if torch.is_grad_enabled():
        return torch.cat([seen.flatten(0, 1) for seen in grouped])[None]
    out = torch.empty_like(query.transpose(1, 2))
    for place, seen in zip(out.split([part.shape[2] for part in queries], 1), grouped, strict=True):
        place.view(seen.shape).copy_(seen)
    return out


def attends_varlen(device: torch.device, dropout: float) -> bool:
    """Whether torch's variable-length attention may be used, which knows half precision on a GPU and no dropout. It has
    not been measured here, so it is asked for (`runtime.gpu_pieces`)."""
    half = device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return half and not dropout and runtime.gpu_layers_enabled()


def _attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    bounds_q: Tensor,
    bounds_k: Tensor,
    *,
    max_length_q: int,
    max_length_k: int,
    **_: Any,
) -> Tensor:
    """Of the shapes of `_attend_packed`."""
    from torch.nn.attention.varlen import varlen_attn  # not every build of torch has it

    half = torch.get_autocast_dtype("cuda")
    q, k, v = (part[0].transpose(0, 1).to(half) for part in (query, key, value))
    out: Any = varlen_attn(q, k, v, bounds_q.int(), bounds_k.int(), max_length_q, max_length_k, scale=scaling)
    seen: Tensor = out[None]
    return seen


def _equal_rows(bounds: Tensor, other: Tensor) -> list[tuple[int, int, int]]:
    """(how many rows, their length, their other length) of neighbors of equal lengths. bounds, other: (rows + 1,)."""
    lengths = zip(bounds.diff().tolist(), other.diff().tolist(), strict=True)
    return [(len(list(rows)), *both) for both, rows in groupby(lengths)]


def _unpacked(part: Tensor, rows: int) -> Tensor:
    """(1, heads, rows * tokens, width) -> (rows, heads, tokens, width)."""
    return part.transpose(1, 2).reshape(rows, -1, part.shape[1], part.shape[3]).transpose(1, 2)


def _is_short(query: Tensor, key: Tensor) -> bool:
    """Whether products of our own are faster than torch's attention, which is made for long rows."""
    return not torch.is_grad_enabled() and 1 < query.shape[2] <= SHORT_SEQUENCE and query.shape[2] == key.shape[2]


def _attend_short(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """softmax(scale * Q K') V, without a way back. Shapes as in `attend`."""
    q, k, v = (_flat(tensor) for tensor in (query, key, value))
    out, scale = torch.empty_like(q), query.shape[-1] ** -0.5 if scaling is None else scaling
    for part in _chunks((len(q), q.shape[1], k.shape[1])):
        scores = q.new_empty(part.stop - part.start, q.shape[1], k.shape[1])
        _probabilities(q[part], k[part], None, query.shape[1], part, scale, out=scores)
        torch.bmm(scores, v[part], out=out[part])
    return out.view(query.shape).transpose(1, 2)


def register_attention() -> None:
    """Make the implementation known to transformers, with masks as `sdpa` has them."""
    AttentionInterface.register(ATTENTION_NAME, attend_with_dropout)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def _fits(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Whether it is plain attention of an encoder, on the CPU in fp32."""
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    unusual = causal or any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    plain = query.device.type == "cpu" and query.dtype == torch.float32 and query.shape[1] == key.shape[1]
    shaped = mask is None or (mask.ndim == 4 and mask.shape[1] == 1 and not mask.requires_grad)
    return plain and shaped and not unusual


def _bias(mask: Tensor) -> Tensor:
    """What is added to the scores: (rows, queries, tokens), or (rows, 1, tokens) where all queries see the same."""
    mask = mask[:, 0]
    if mask.stride(1) == 0:
        mask = mask[:, :1]
    if mask.dtype != torch.bool:
        return mask
    # the lowest number and not -inf: a query that may look nowhere (padding) gets numbers, not NaN
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)


class _Attention(torch.autograd.Function):
    """softmax(scale * Q K' + bias), dropped, times V; rows and heads are one axis within."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, level: int
    ) -> Tensor:
        q, k, v = (_flat(tensor) for tensor in (query, key, value))
        kept = np.empty((len(q), q.shape[1], k.shape[1]), dtype=np.bool_)
        source, out = word_generator(), torch.empty_like(q)
        scores, noise = (torch.empty(_chunk(kept.shape), *kept.shape[1:]) for _ in range(2))
        for part in _chunks(kept.shape):
            s, n = scores[: part.stop - part.start], noise[: part.stop - part.start]
            _probabilities(q[part], k[part], bias, query.shape[1], part, scale, out=s)
            draw_keep_mask(source, level, kept[part])
            np.copyto(n.numpy(), kept[part])
            torch.bmm(s.mul_(n), v[part], out=out[part])
        ctx.rescale, ctx.scale, ctx.heads = DROP_LEVELS / (DROP_LEVELS - level), scale, query.shape[1]
        out.mul_(ctx.rescale)
        ctx.save_for_backward(q, k, v, bias, out, torch.from_numpy(kept))
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, kept = ctx.saved_tensors
        flat = _flat(gradient)
        # the softmax's gradient takes off each query's mean; the rest of the formula knows dropout by its rescaling
        means, flat = (flat * out).sum(-1, keepdim=True), flat * ctx.rescale
        grads = [torch.empty_like(tensor) for tensor in (q, k, v)]
        buffers = [torch.empty(_chunk(kept.shape), *kept.shape[1:]) for _ in range(3)]
        for part in _chunks(kept.shape):
            p, g, n = (buffer[: part.stop - part.start] for buffer in buffers)
            _probabilities(q[part], k[part], bias, ctx.heads, part, ctx.scale, out=p)
            np.copyto(n.numpy(), kept[part].numpy())
            torch.bmm(flat[part], v[part].transpose(1, 2), out=g)
            g.mul_(n).sub_(means[part]).mul_(p)
            torch.bmm(p.mul_(n).transpose(1, 2), flat[part], out=grads[2][part])
            torch.bmm(g, k[part], out=grads[0][part])
            torch.bmm(g.transpose(1, 2), q[part], out=grads[1][part])
        grads[0].mul_(ctx.scale), grads[1].mul_(ctx.scale)
        rows = gradient.shape[:2]
        return (*(grad.view(*rows, *grad.shape[1:]) for grad in grads), None, None, None)


def _flat(tensor: Tensor) -> Tensor:
    """(rows, heads, tokens, width) -> (rows * heads, tokens, width), contiguous."""
    return tensor.reshape(-1, *tensor.shape[2:]).contiguous()


def _chunk(shape: tuple[int, ...]) -> int:
    """Heads of one chunk of scores (heads, queries, tokens)."""
    return min(shape[0], max(1, CHUNK_ELEMENTS // (shape[1] * shape[2])))


def _chunks(shape: tuple[int, ...]) -> list[slice]:
    size = _chunk(shape)
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]


def _probabilities(
    q: Tensor, k: Tensor, bias: Tensor | None, heads: int, part: slice, scale: float, *, out: Tensor
) -> None:
    """The softmax of one chunk's scores, into `out` (heads, queries, tokens)."""
    torch.baddbmm(out, q, k.transpose(1, 2), beta=0, alpha=scale, out=out)
    if bias is not None:
        out.add_(bias[torch.arange(part.start, part.stop) // heads])
    torch.softmax(out, -1, out=out)
