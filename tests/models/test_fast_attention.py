"""Dropout has the rate and gradient of torch's, and attention equals the plain formula, chunked or packed."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fullbake.models import fast_attention
from fullbake.models.fast_attention import (
    DROP_LEVELS,
    SHORT_SEQUENCE,
    WordDropout,
    attend_with_dropout,
    draw_keep_mask,
    drop_threshold,
    is_short,
)

Gradients = tuple[Tensor, ...]
COUNT = 1 << 20
RATE = 0.25

# Dropout


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.5, 0.9])
def test_rate_and_mean_are_exact(rate: float) -> None:
    """The share of dropped elements is within five standard deviations of the rate."""
    torch.manual_seed(0)
    dropped = WordDropout(rate)(torch.ones(COUNT))
    exact = drop_threshold(rate) / DROP_LEVELS
    assert abs(exact - rate) <= 0.5 / DROP_LEVELS
    share = (dropped == 0).float().mean().item()
    assert abs(share - exact) < 5 * math.sqrt(rate * (1 - rate) / COUNT)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / (1 - exact)]))


def test_neighbors_are_dropped_independently() -> None:
    """This holds also for the four elements that share one number of the generator."""
    torch.manual_seed(0)
    gone = (WordDropout(0.5)(torch.ones(COUNT)) == 0).double() - 0.5
    for distance in (1, 2, 3, 4, 384):
        correlation = (gone[:-distance] * gone[distance:]).mean().item() / 0.25
        assert abs(correlation) < 5 / math.sqrt(COUNT), distance


def test_gradient_is_dropped_where_the_value_was() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 5, 3, requires_grad=True)
    dropped = WordDropout(0.3)(values)
    dropped.backward(torch.full_like(dropped, 2.0))
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach() / 2, dropped.detach())


def test_torchs_seed_determines_the_mask() -> None:
    def drop(seed: int) -> Tensor:
        torch.manual_seed(seed)
        layer = WordDropout(0.1)
        return torch.stack([layer(torch.ones(1000)) for _ in range(2)])

    first, again, other = drop(0), drop(0), drop(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("layer", "values"),
    [
        (WordDropout(0.1).eval(), torch.ones(100)),
        (WordDropout(0.0), torch.ones(100)),
        (WordDropout(1.0), torch.ones(100)),
        (WordDropout(0.1), torch.ones(100, dtype=torch.bfloat16)),
        (WordDropout(0.1), torch.ones(100, dtype=torch.float64)),
    ],
    ids=["eval", "rate 0", "rate 1", "bf16", "fp64"],
)
def test_other_modes_and_types_use_torchs_dropout(layer: WordDropout, values: torch.Tensor) -> None:
    torch.manual_seed(0)
    ours = layer(values)
    torch.manual_seed(0)
    assert torch.equal(ours, nn.functional.dropout(values, layer.p, layer.training))


def test_mask_does_not_depend_on_strides() -> None:
    values = torch.arange(1.0, 25.0).view(4, 6)
    torch.manual_seed(0)
    plain = WordDropout(0.5)(values)
    torch.manual_seed(0)
    assert torch.equal(WordDropout(0.5)(values.t().contiguous().t()), plain)


def test_mask_can_have_any_number_of_elements() -> None:
    for size in (1, 3, 4, 5):
        kept = np.zeros(size, dtype=np.bool_)
        draw_keep_mask(np.random.SFC64(0), 1, kept)
        assert kept.all()


# Attention


class Encoder(nn.Module):
    """As much of an attention layer as `attend_with_dropout` reads."""

    is_causal = False


def inputs(rows: int, heads: int, queries: int, tokens: int, width: int) -> list[Tensor]:
    """Return query, key and value as transformers' layers give them: (rows, tokens, heads, width), transposed."""
    torch.manual_seed(0)
    lengths = (queries, tokens, tokens)
    return [torch.randn(rows, length, heads, width).transpose(1, 2).requires_grad_() for length in lengths]


def next_dropout_mask(shape: tuple[int, ...], rate: float, chunk_elements: int) -> Tensor:
    """Return the rescaled dropout mask (rows, heads, queries, tokens) that `attend_with_dropout` draws next."""
    kept = np.empty(shape, dtype=np.bool_)
    source = np.random.SFC64(int(torch.randint(1 << 62, ())))
    flat = kept.reshape(-1, *shape[2:])
    size = min(len(flat), max(1, chunk_elements // (shape[2] * shape[3])))
    for start in range(0, len(flat), size):
        draw_keep_mask(source, drop_threshold(rate), flat[start : start + size])
    return torch.from_numpy(kept).float() * (DROP_LEVELS / (DROP_LEVELS - drop_threshold(rate)))


def reference_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, noise: Tensor) -> Tensor:
    """Compute attention by its formula: (rows, queries, heads, width). noise: the dropout mask."""
    scores = q @ k.transpose(2, 3) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return ((scores.softmax(-1) * noise) @ v).transpose(1, 2)


def padding_mask(rows: int, queries: int, tokens: int) -> Tensor:
    """Return a bool mask (rows, 1, queries, tokens) in which each row is two tokens shorter than the one before."""
    mask = torch.arange(tokens) < torch.tensor([tokens - 2 * row for row in range(rows)])[:, None]
    return mask[:, None, None, :].expand(rows, 1, queries, tokens)


def gradients(out: Tensor, tensors: list[Tensor]) -> Gradients:
    """Return the gradients of a random weighted sum of `out`."""
    torch.manual_seed(2)
    return torch.autograd.grad((out * torch.randn(out.shape)).sum(), tensors)


@pytest.mark.parametrize("masked", ["no", "padding", "local", "added"])
@pytest.mark.parametrize("chunk", [1, 200, 1 << 18])
@pytest.mark.parametrize("queries", [9, 1])
def test_outputs_and_gradients_equal_the_formula(masked: str, chunk: int, queries: int) -> None:
    rows, heads, tokens = 3, 4, 9
    mask = None if masked == "no" else padding_mask(rows, queries, tokens)
    if masked == "local" and mask is not None:
        mask = mask & ((torch.arange(queries)[:, None] - torch.arange(tokens)).abs() < 6)
    if masked == "added" and mask is not None:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -1e30)
    ours, theirs = (inputs(rows, heads, queries, tokens, 8) for _ in range(2))
    torch.manual_seed(1)
    got, weights = attend_with_dropout(Encoder(), *ours, mask, dropout=RATE, scaling=0.3, chunk_elements=chunk)
    torch.manual_seed(1)
    noise = next_dropout_mask((rows, heads, queries, tokens), RATE, chunk)
    expected = reference_attention(*theirs, mask, 0.3, noise)
    assert weights is None
    torch.testing.assert_close(got, expected)
    for one, other in zip(gradients(got, ours), gradients(expected, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_mean_over_masks_is_attention_without_dropout() -> None:
    query, key, value = (tensor.detach() for tensor in inputs(1, 2, 5, 5, 4))
    torch.manual_seed(0)
    mean = torch.stack(
        [attend_with_dropout(Encoder(), query, key, value, None, dropout=RATE)[0] for _ in range(3000)]
    ).mean(0)
    whole = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    torch.testing.assert_close(mean, whole, rtol=0, atol=0.05)


def test_query_that_may_look_nowhere_gives_finite_numbers() -> None:
    tensors = inputs(2, 2, 3, 3, 4)
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    mask[0, 0, 1] = False
    got, _ = attend_with_dropout(Encoder(), *tensors, mask, dropout=RATE)
    assert got.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(got, tensors))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda t: t, {"dropout": 0.0}),
        (lambda t: t.double(), {"dropout": RATE}),
        (lambda t: t, {"dropout": RATE, "is_causal": True}),
        (lambda t: t, {"dropout": RATE, "position_bias": torch.ones(1, 2, 4, 4)}),
    ],
    ids=["no dropout", "fp64", "causal", "position bias"],
)
def test_other_attention_uses_torchs_sdpa(change: Any, options: dict[str, Any]) -> None:
    tensors = [change(tensor.detach()) for tensor in inputs(2, 2, 4, 4, 8)]
    torch.manual_seed(0)
    ours, _ = attend_with_dropout(Encoder(), *tensors, None, **options)
    torch.manual_seed(0)
    theirs, _ = fast_attention.sdpa_attention_forward(Encoder(), *tensors, None, **options)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tokens", [2, 9, SHORT_SEQUENCE])
@pytest.mark.parametrize("chunk", [1, 200, 1 << 18])
def test_short_rows_without_gradients_equal_torchs_attention(tokens: int, chunk: int) -> None:
    query, key, value = inputs(3, 4, tokens, tokens, 8)
    expected = functional.scaled_dot_product_attention(query, key, value, scale=0.3).transpose(1, 2)
    with torch.no_grad():
        assert is_short(query, key)
        got, _ = attend_with_dropout(Encoder(), query, key, value, None, scaling=0.3, chunk_elements=chunk)
    torch.testing.assert_close(got, expected)


def test_short_rows_with_gradients_use_torchs_sdpa() -> None:
    query, key, value = inputs(3, 4, 9, 9, 8)
    assert not is_short(query, key)
    got, _ = attend_with_dropout(Encoder(), query, key, value, None)
    assert got.requires_grad


# Packed rows


def packed_rows(lengths: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Return query, key, value and bounds of packed rows with these (queries, tokens)."""
    queries, tokens = (torch.tensor([0, *counts]).cumsum(0) for counts in zip(*lengths, strict=True))
    query, key, value = inputs(1, 2, int(queries[-1]), int(tokens[-1]), 8)[:3]
    longest = {"max_length_q": max(q for q, _ in lengths), "max_length_k": max(k for _, k in lengths)}
    return query, key, value, {"cu_seq_lens_q": queries, "cu_seq_lens_k": tokens} | longest


def row_by_row(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_lens_q: Tensor, cu_seq_lens_k: Tensor, **_: Any
) -> Tensor:
    """Compute packed attention row by row: (1, queries of all rows, heads, width)."""
    rows = zip(cu_seq_lens_q.tolist(), cu_seq_lens_k.tolist(), strict=True)
    seen = [
        functional.scaled_dot_product_attention(query[:, :, q:end_q], key[:, :, k:end_k], value[:, :, k:end_k])
        for (q, k), (end_q, end_k) in pairwise(rows)
    ]
    return torch.cat(seen, 2).transpose(1, 2)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=7), st.booleans())
def test_packed_rows_see_only_themselves(lengths: list[tuple[int, int]], with_gradients: bool) -> None:
    query, key, value, bounds = packed_rows(lengths)
    with torch.set_grad_enabled(with_gradients):
        got, _ = attend_with_dropout(Encoder(), query, key, value, None, **bounds)
    torch.testing.assert_close(got, row_by_row(query, key, value, **bounds))


def test_packed_rows_on_a_gpu_use_torchs_variable_length_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here, so a function of ours stands for torch's and checks what it is given."""

    def varlen_attn(q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, *longest: int, scale: Any) -> Any:
        assert (ends_q.dtype, ends_k.dtype, longest, scale) == (torch.int32, torch.int32, (4, 9), None)
        heads_first = (part.transpose(0, 1)[None].float() for part in (q, k, v))
        return row_by_row(*heads_first, ends_q, ends_k)[0]

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(fast_attention, "attends_varlen", lambda *_: True)
    query, key, value, bounds = packed_rows([(4, 4), (1, 9), (2, 2)])
    got, _ = attend_with_dropout(Encoder(), query, key, value, None, **bounds)
    torch.testing.assert_close(got, row_by_row(query, key, value, **bounds), rtol=0, atol=1e-2)


def test_variable_length_attention_needs_a_gpu_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.is_autocast_enabled", lambda device: device == "cuda")
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert not fast_attention.attends_varlen(gpu, 0.0)
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", "1")
    assert fast_attention.attends_varlen(gpu, 0.0)
    assert not fast_attention.attends_varlen(gpu, 0.1)
    assert not fast_attention.attends_varlen(cpu, 0.0)
