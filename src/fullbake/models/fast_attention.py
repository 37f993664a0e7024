"""Dropout and attention for training on the CPU, faster than torch's own, with the same distribution.

Dropout: torch draws a 64-bit number per element on one thread, which costs a third of the matrix products in
fine-tuning. Here a numpy generator (SFC64) gives four elements per word: a 16-bit part below rate * 65536 drops its
element. So a rate is a multiple of 1/65536 (0.1 is 0.100006), and the rest is rescaled by that exact rate.

Attention: with dropout, torch runs separate operations over (rows, heads, tokens, tokens), each through main memory.
Here the work goes chunk by chunk, while a chunk is in the cache; backward computes the probabilities again.

Each call seeds its generator from torch's, so `torch.manual_seed` and gradient checkpointing work as with torch.
"""

from collections.abc import Iterator
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
"""Number of values that a 16-bit word can have."""

ATTENTION_NAME = "fullbake"
"""Name under which transformers knows this attention."""

CHUNK_ELEMENTS = 1 << 18
"""Attention scores that are computed at once: one megabyte, which fits into a core's cache."""

SHORT_SEQUENCE = 128
"""Longest row, in tokens, for which plain matrix products are faster than torch's attention (no gradients, no mask)."""

# Dropout


def drop_threshold(rate: float) -> int:
    """Return the dropout rate in 65536ths. A 16-bit word below it drops its element."""
    return round(rate * DROP_LEVELS)


def word_generator() -> np.random.SFC64:
    """Return a generator seeded with the next number of torch's generator."""
    return np.random.SFC64(int(torch.randint(1 << 62, ())))


def draw_keep_mask(source: np.random.SFC64, level: int, kept: npt.NDArray[np.bool_]) -> None:
    """Fill `kept` with the next draw: False where an element is dropped.

    Args:
        source: The generator, one 64-bit word per four elements.
        level: The rate, as `drop_threshold` gives it.
        kept: C-contiguous array of any shape; it is overwritten.
    """
    words = np.asarray(source.random_raw(-(-kept.size // 4))).view(np.uint16)[: kept.size]
    np.greater_equal(words, np.uint16(level), out=kept.reshape(-1))


class WordDropout(nn.Dropout):
    """nn.Dropout that draws its masks as above on the CPU in fp32, and as torch does elsewhere."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name for it)
        """Drop elements with probability `p` in training mode and rescale the rest.

        Args:
            input: Values of any shape.

        Returns:
            Values of the same shape.
        """
        level = drop_threshold(self.p)
        on_cpu = input.device.type == "cpu" and input.dtype == torch.float32
        if not (self.training and 0 < level < DROP_LEVELS and on_cpu):
            return super().forward(input)
        dropped: Tensor = _Dropout.apply(input, level)  # type: ignore[no-untyped-call]
        return dropped


class _Dropout(torch.autograd.Function):
    """Dropout that keeps one byte per element for backward, as torch does."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, level: int) -> Tensor:
        kept = np.empty(values.shape, dtype=np.bool_)
        draw_keep_mask(word_generator(), level, kept)
        ctx.save_for_backward(torch.from_numpy(kept))
        ctx.rescale = DROP_LEVELS / (DROP_LEVELS - level)
        return _keep_and_rescale(values, kept, ctx.rescale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _keep_and_rescale(gradient, kept.numpy(), ctx.rescale), None


def _keep_and_rescale(values: Tensor, kept: npt.NDArray[np.bool_], rescale: float) -> Tensor:
    noise = torch.empty(values.shape)
    np.copyto(noise.numpy(), kept)  # several times faster than torch's conversion of bool to float
    return noise.mul_(values).mul_(rescale)


# Attention


def register_attention() -> None:
    """Register the attention with transformers under `ATTENTION_NAME`, with the masks of `sdpa`."""
    AttentionInterface.register(ATTENTION_NAME, attend_with_dropout)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def attend_with_dropout(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    chunk_elements: int = CHUNK_ELEMENTS,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention with the interface that transformers asks for.

    What is not plain encoder attention on the CPU in fp32 (other devices and types, a position bias, gradients without
    dropout) goes to torch's own `sdpa`.

    Args:
        module: The attention layer; `is_causal` is read from it.
        query: (rows, heads, queries, width).
        key: (rows, heads, tokens, width).
        value: As `key`.
        attention_mask: (rows, 1, queries, tokens): bool, True where a query may look, or numbers to add to the scores.
            None lets every query see every token.
        dropout: Rate at which attention probabilities are dropped; 0 outside training.
        scaling: Factor on the scores; None is 1 / sqrt(width).
        chunk_elements: Scores computed at once.
        **kwargs: What else the model hands on. With `cu_seq_lens_q` and the like the rows are packed: they lie one
            after another in a single row, and each sees only its own tokens.

    Returns:
        What the queries see, (rows, queries, heads, width), and None in place of the weights.
    """
    if kwargs.get("cu_seq_lens_q") is not None:
        return _attend_packed(module, query, key, value, dropout, scaling, chunk_elements, **kwargs), None
    level, fits = drop_threshold(dropout), _is_plain(module, query, key, attention_mask, kwargs)
    if fits and not level and attention_mask is None and is_short(query, key):
        return _attend_short(query, key, value, scaling, chunk_elements), None
    if not (fits and 0 < level < DROP_LEVELS):
        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return whole
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    bias = None if attention_mask is None else _bias_of_mask(attention_mask)
    out: Tensor = _Attention.apply(query, key, value, bias, scale, level, chunk_elements)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


def _is_plain(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Return True for plain attention of an encoder, on the CPU in fp32."""
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    unusual = causal or any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    plain = query.device.type == "cpu" and query.dtype == torch.float32 and query.shape[1] == key.shape[1]
    shaped = mask is None or (mask.ndim == 4 and mask.shape[1] == 1 and not mask.requires_grad)
    return plain and shaped and not unusual


def is_short(query: Tensor, key: Tensor) -> bool:
    """Return True if plain matrix products are faster than torch's attention, which is made for long rows.

    Args:
        query: (rows, heads, queries, width).
        key: (rows, heads, tokens, width).
    """
    return not torch.is_grad_enabled() and 1 < query.shape[2] <= SHORT_SEQUENCE and query.shape[2] == key.shape[2]


def _attend_short(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, chunk_elements: int) -> Tensor:
    """Compute softmax(scale * Q K') V without gradients. Shapes as in `attend_with_dropout`."""
    q, k, v = (_merge_heads(tensor) for tensor in (query, key, value))
    out, scale = torch.empty_like(q), query.shape[-1] ** -0.5 if scaling is None else scaling
    for part in _chunks((len(q), q.shape[1], k.shape[1]), chunk_elements):
        scores = q.new_empty(part.stop - part.start, q.shape[1], k.shape[1])
        _attention_probabilities(q[part], k[part], None, query.shape[1], part, scale, out=scores)
        torch.bmm(scores, v[part], out=out[part])
    return out.view(query.shape).transpose(1, 2)


# Packed rows


def _attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    chunk_elements: int,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    **kwargs: Any,
) -> Tensor:
    """Attend within packed rows: neighbors of equal length together on the CPU, all at once on a GPU.

    Args:
        query: (1, heads, queries of all rows, width).
        key: (1, heads, tokens of all rows, width). `value` likewise.
        cu_seq_lens_q: Where each row's queries begin and where the last ends, (rows + 1,).
        cu_seq_lens_k: The same of the tokens.

    Returns:
        (1, queries of all rows, heads, width).
    """
    if attends_varlen(query.device, dropout):
        return _attend_varlen(query, key, value, scaling, cu_seq_lens_q, cu_seq_lens_k, **kwargs)
    groups = _groups_of_equal_length(cu_seq_lens_q, cu_seq_lens_k)
    queries = query.split([rows * length for rows, length, _ in groups], 2)
    keys, values = (part.split([rows * length for rows, _, length in groups], 2) for part in (key, value))

    def attended() -> Iterator[Tensor]:
        """Yield (rows, queries, heads, width) of each group."""
        for (rows, _, _), *parts in zip(groups, queries, keys, values, strict=True):
            q, k, v = (_unpack(part, rows) for part in parts)
            yield attend_with_dropout(module, q, k, v, None, dropout, scaling, chunk_elements=chunk_elements, **kwargs)[
                0
            ]

    if torch.is_grad_enabled():
        return torch.cat([seen.flatten(0, 1) for seen in attended()])[None]
    out = torch.empty_like(query.transpose(1, 2))
    for place, seen in zip(out.split([part.shape[2] for part in queries], 1), attended(), strict=True):
        place.view(seen.shape).copy_(seen)
    return out


def attends_varlen(device: torch.device, dropout: float) -> bool:
    """Return True if torch's variable-length attention may be used.

    It needs a GPU, half precision and no dropout. It was never measured here, so it also needs FULLBAKE_GPU_PIECES=1.

    Args:
        device: Where the states are.
        dropout: Rate on the attention probabilities.
    """
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
    """Attend within packed rows by torch's own kernel. Shapes as in `_attend_packed`."""
    from torch.nn.attention.varlen import varlen_attn  # not every build of torch has it

    half = torch.get_autocast_dtype("cuda")
    q, k, v = (part[0].transpose(0, 1).to(half) for part in (query, key, value))
    out: Any = varlen_attn(q, k, v, bounds_q.int(), bounds_k.int(), max_length_q, max_length_k, scale=scaling)
    seen: Tensor = out[None]
    return seen


def _groups_of_equal_length(bounds: Tensor, other: Tensor) -> list[tuple[int, int, int]]:
    """Group neighboring rows of equal lengths: (rows, length, other length). bounds, other: (rows + 1,)."""
    lengths = zip(bounds.diff().tolist(), other.diff().tolist(), strict=True)
    return [(len(list(rows)), *both) for both, rows in groupby(lengths)]


def _unpack(part: Tensor, rows: int) -> Tensor:
    """Reshape (1, heads, rows * tokens, width) -> (rows, heads, tokens, width)."""
    return part.transpose(1, 2).reshape(rows, -1, part.shape[1], part.shape[3]).transpose(1, 2)


# Chunk by chunk


class _Attention(torch.autograd.Function):
    """softmax(scale * Q K' + bias), with dropout, times V. Rows and heads are one axis inside."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        scale: float,
        level: int,
        chunk_elements: int,
    ) -> Tensor:
        q, k, v = (_merge_heads(tensor) for tensor in (query, key, value))
        kept = np.empty((len(q), q.shape[1], k.shape[1]), dtype=np.bool_)
        source, out = word_generator(), torch.empty_like(q)
        size = _chunk_size(kept.shape, chunk_elements)
        scores, noise = (torch.empty(size, *kept.shape[1:]) for _ in range(2))
        for part in _chunks(kept.shape, chunk_elements):
            s, n = scores[: part.stop - part.start], noise[: part.stop - part.start]
            _attention_probabilities(q[part], k[part], bias, query.shape[1], part, scale, out=s)
            draw_keep_mask(source, level, kept[part])
            np.copyto(n.numpy(), kept[part])
            torch.bmm(s.mul_(n), v[part], out=out[part])
        ctx.rescale, ctx.scale, ctx.heads = DROP_LEVELS / (DROP_LEVELS - level), scale, query.shape[1]
        ctx.chunk_elements = chunk_elements
        out.mul_(ctx.rescale)
        ctx.save_for_backward(q, k, v, bias, out, torch.from_numpy(kept))
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, kept = ctx.saved_tensors
        flat = _merge_heads(gradient)
        # the softmax's gradient takes off each query's mean; the rest of the formula knows dropout by its rescaling
        means, flat = (flat * out).sum(-1, keepdim=True), flat * ctx.rescale
        grads = [torch.empty_like(tensor) for tensor in (q, k, v)]
        size = _chunk_size(kept.shape, ctx.chunk_elements)
        buffers = [torch.empty(size, *kept.shape[1:]) for _ in range(3)]
        for part in _chunks(kept.shape, ctx.chunk_elements):
            p, g, n = (buffer[: part.stop - part.start] for buffer in buffers)
            _attention_probabilities(q[part], k[part], bias, ctx.heads, part, ctx.scale, out=p)
            np.copyto(n.numpy(), kept[part].numpy())
            torch.bmm(flat[part], v[part].transpose(1, 2), out=g)
            g.mul_(n).sub_(means[part]).mul_(p)
            torch.bmm(p.mul_(n).transpose(1, 2), flat[part], out=grads[2][part])
            torch.bmm(g, k[part], out=grads[0][part])
            torch.bmm(g.transpose(1, 2), q[part], out=grads[1][part])
        grads[0].mul_(ctx.scale), grads[1].mul_(ctx.scale)
        rows = gradient.shape[:2]
        return (*(grad.view(*rows, *grad.shape[1:]) for grad in grads), None, None, None, None)


def _bias_of_mask(mask: Tensor) -> Tensor:
    """Return what is added to the scores: (rows, queries, tokens), or (rows, 1, tokens) where all queries see alike."""
    mask = mask[:, 0]
    if mask.stride(1) == 0:
        mask = mask[:, :1]
    if mask.dtype != torch.bool:
        return mask
    # the lowest number and not -inf: a query that may look nowhere (padding) gets numbers, not NaN
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)


def _merge_heads(tensor: Tensor) -> Tensor:
    """Reshape (rows, heads, tokens, width) -> (rows * heads, tokens, width), contiguous."""
    return tensor.reshape(-1, *tensor.shape[2:]).contiguous()


def _chunk_size(shape: tuple[int, ...], chunk_elements: int) -> int:
    """Return how many heads one chunk of scores (heads, queries, tokens) takes; at least one."""
    return min(shape[0], max(1, chunk_elements // (shape[1] * shape[2])))


def _chunks(shape: tuple[int, ...], chunk_elements: int) -> list[slice]:
    size = _chunk_size(shape, chunk_elements)
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]


def _attention_probabilities(
    q: Tensor, k: Tensor, bias: Tensor | None, heads: int, part: slice, scale: float, *, out: Tensor
) -> None:
    """Write the softmax of one chunk's scores into `out`, (heads, queries, tokens)."""
    torch.baddbmm(out, q, k.transpose(1, 2), beta=0, alpha=scale, out=out)
    if bias is not None:
        out.add_(bias[torch.arange(part.start, part.stop) // heads])
    torch.softmax(out, -1, out=out)
