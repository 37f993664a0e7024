"""Run a network over many texts without training: longest first, cut by a token budget, results in the input's order.

Logits, validation scores and frozen features all come from here, so that a text gets the same numbers wherever it is
scored. Always fp32, also where training used bf16: slower on a GPU, but a saved score can be reproduced on any
machine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from fullbake.config.fields import WindowPooling
from fullbake.config.sections import TokensConfig
from fullbake.core import runtime
from fullbake.core.console import bar
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, collate, tokenize
from fullbake.models.fast_layers import fast_layers
from fullbake.models.network import reads_first_token

TextsOrPairs: TypeAlias = Sequence[str] | pa.ChunkedArray
"""Texts in order: a sequence of strings, or an Arrow column."""

NetworkForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs (batch, tokens) -> (batch, width)."""


def encode(
    texts: TextsOrPairs, tokenizer: PreTrainedTokenizerFast, tokens: TokensConfig, text_pair: TextsOrPairs | None = None
) -> Encoded:
    """Token ids of all texts, or of pairs of them, with a bar. tokens: truncation, stride, and max_length as a
    number."""
    assert tokens.max_length is not None, "the effective recipe has max_length filled in"
    with bar("tokenizing", len(texts), "texts") as advance:
        return tokenize(
            tokenizer,
            texts,
            max_length=tokens.max_length,
            truncation=tokens.truncation,
            stride=tokens.stride or 0,
            text_pair=text_pair,
            on_progress=advance,
        )


def run_batches(
    forward: NetworkForward,
    encoded: Encoded,
    *,
    tokens: TokensConfig,
    pad_id: int,
    device: torch.device,
    title: str,
    shared: bool = False,
    inputs_of: Callable[[np.ndarray], dict[str, Tensor]] | None = None,
) -> np.ndarray:
    """`forward` over all texts. Returns float32 (texts, width), in the order of `encoded`.

    tokens: padding, token_budget, and max_length as a number. pad_id: the tokenizer's. title: what the bar says.
    shared: processes take the batches in turn and each gets all results; every one of them must call. inputs_of: rows
    -> what `forward` is given for them, None for `inputs_for`.
    """
    make = inputs_of or (lambda rows: batch_inputs(encoded, rows, tokens=tokens, pad_id=pad_id, device=device))
    plan = inference_plan(padded_lengths(encoded, tokens), token_budget=tokens.token_budget)
    ranks = runtime.world_size() if shared else 1
    # the first batch is everyone's: it tells the width, also to a process that has no batch of its own
    mine = plan if ranks == 1 else [*plan[:1], *plan[1:][runtime.rank() :: ranks]]
    out: np.ndarray | None = None
    with torch.inference_mode(), bar(title, len(encoded), "texts") as advance:
        for number, rows in enumerate(mine):
            values = forward(make(rows))
            if out is None:
                out = np.zeros((len(encoded), values.shape[1]), dtype=np.float32)
            if number or ranks == 1 or runtime.rank() == 0:
                out[rows] = values.float().cpu().numpy()
            advance(len(rows))
    if out is None:
        return np.empty((0, 0), dtype=np.float32)
    return out if ranks == 1 else runtime.sum_over_ranks(torch.from_numpy(out)).numpy()


def batch_inputs(
    encoded: Encoded, rows: np.ndarray, *, tokens: TokensConfig, pad_id: int, device: torch.device
) -> dict[str, Tensor]:
    """One batch on its device: input_ids, attention_mask where there is padding, token_type_ids where the base has
    them."""
    batch = collate(encoded, rows, pad_id=pad_id, padding=tokens.padding, max_length=tokens.max_length)
    if device.type == "cuda" and runtime.gpu_layers_enabled():
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}  # so that a copy need not be waited for
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def logits_over(
    network: nn.Module,
    encoded: Encoded,
    *,
    tokens: TokensConfig,
    pad_id: int,
    title: str = "scoring",
    shared: bool = False,
) -> np.ndarray:
    """Logits float32 (texts, classes) of a classification network in eval mode, on the device it stands on. Those of a
    text's windows are pooled."""
    device = next(network.parameters()).device
    with fast_layers(network, first_token=reads_first_token(network), packed=True):
        rows = run_batches(
            lambda inputs: network(**inputs).logits,
            encoded,
            tokens=tokens,
            pad_id=pad_id,
            device=device,
            title=title,
            shared=shared,
        )
    if encoded.documents is None:
        return rows
    return pool_windows(rows, encoded.documents, tokens.window_pooling)


def pool_windows(values: np.ndarray, documents: np.ndarray, how: WindowPooling) -> np.ndarray:
    """What the windows of each text give together, float32 (texts, width).

    values: float32 (windows, width). documents: (windows,), which text each is of, ascending and without gaps. how:
    mean or max, column by column. Of logits, either one commutes with a temperature.
    """
    starts = np.searchsorted(documents, np.arange(documents[-1] + 1 if len(documents) else 0))
    if how == "max":
        highest: np.ndarray = np.maximum.reduceat(values, starts, axis=0)
        return highest
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    counts = np.diff(np.append(starts, len(documents)))
    means: np.ndarray = (sums / counts[:, None]).astype(np.float32)
    return means


def padded_lengths(encoded: Encoded, tokens: TokensConfig) -> np.ndarray:
    """Tokens that each text takes in a batch, int64 (texts,): its own, or max_length where all are padded to it."""
    if tokens.padding == "max_length":
        return np.full(len(encoded), tokens.max_length)
    return encoded.lengths
