"""Run a network over many texts without training: longest texts first, in batches within a token budget.

Logits, validation scores and frozen features all come from here, so a text gets the same numbers wherever it is scored.
Everything is fp32, also where training used bf16: slower on a GPU, but a saved score can be reproduced on any machine.
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
from fullbake.core import runtime, stopping
from fullbake.core.console import bar
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, collate, tokenize
from fullbake.models.fast_layers import fast_layers
from fullbake.models.network import reads_first_token

TextsOrPairs: TypeAlias = Sequence[str] | pa.ChunkedArray
"""Texts in order: a sequence of strings, or an Arrow column."""

NetworkForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs, each (batch, tokens) -> (batch, width)."""


def encode(
    texts: TextsOrPairs, tokenizer: PreTrainedTokenizerFast, tokens: TokensConfig, text_pair: TextsOrPairs | None = None
) -> Encoded:
    """Turn all texts into token ids, with a progress bar.

    Args:
        texts: One text per row.
        tokenizer: As `tokenizer.load_tokenizer` gives it.
        tokens: Truncation, stride, prompt and max_length, which must be a number.
        text_pair: The second text of each row, if rows are pairs.

    Raises:
        RecipeError: max_length leaves no room for text, or the stride is too large.
        DataError: A value is not a text.
    """
    assert tokens.max_length is not None, "the effective recipe has max_length filled in"
    with bar("tokenizing", len(texts), "texts") as advance:
        return tokenize(
            tokenizer,
            texts,
            max_length=tokens.max_length,
            truncation=tokens.truncation,
            stride=tokens.stride or 0,
            text_pair=text_pair,
            prompt=tokens.prompt,
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
    """Run `forward` over all rows, in inference mode.

    Args:
        forward: What to compute of a batch.
        encoded: The rows.
        tokens: Padding, token_budget and max_length, which must be a number.
        pad_id: The tokenizer's padding id.
        device: Where the batches go.
        title: What the progress bar says.
        shared: True if several processes take the batches in turn. Every one of them must call this, and each gets all
            results.
        inputs_of: Builds what `forward` is given for some rows; None is `batch_inputs`.

    Returns:
        float32 (rows, width), in the order of `encoded`.

    Raises:
        DeadlinePassed, Interrupted: see `stopping.check`.
    """
    make = inputs_of or (lambda rows: batch_inputs(encoded, rows, tokens=tokens, pad_id=pad_id, device=device))
    plan = inference_plan(padded_lengths(encoded, tokens), token_budget=tokens.token_budget)
    ranks = runtime.world_size() if shared else 1
    # every process computes the first batch: it gives the width, also to a process without a batch of its own
    mine = plan if ranks == 1 else [*plan[:1], *plan[1:][runtime.rank() :: ranks]]
    rounds = len(plan) if ranks == 1 else 1 + -(-len(plan[1:]) // ranks)
    out: np.ndarray | None = None
    with torch.inference_mode(), bar(title, len(encoded), "texts") as advance:
        for number in range(min(rounds, len(plan))):
            stopping.check(together=shared)  # in every round by all processes, also by one without a batch in it
            if number >= len(mine):
                continue
            rows = mine[number]
            values = forward(make(rows))
            if out is None:
                out = np.zeros((len(encoded), values.shape[1]), dtype=np.float32)
            # results are summed over the processes, so one process alone writes the first batch
            if number or ranks == 1 or runtime.rank() == 0:
                out[rows] = values.float().cpu().numpy()
            advance(len(rows))
    if out is None:
        return np.empty((0, 0), dtype=np.float32)
    return out if ranks == 1 else runtime.sum_over_ranks(torch.from_numpy(out)).numpy()


def batch_inputs(
    encoded: Encoded, rows: np.ndarray, *, tokens: TokensConfig, pad_id: int, device: torch.device
) -> dict[str, Tensor]:
    """Build the model inputs of some rows, on a device.

    Args:
        encoded: The rows to choose from.
        rows: Which rows, int64 (batch,).
        tokens: Padding and max_length.
        pad_id: The tokenizer's padding id.
        device: Where the batch goes.

    Returns:
        What `encoding.collate` returns, each (batch, tokens).
    """
    batch = collate(encoded, rows, pad_id=pad_id, padding=tokens.padding, max_length=tokens.max_length)
    if device.type == "cuda" and runtime.gpu_layers_enabled():
        # pinned memory is copied while the program continues
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
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
    """Compute the logits of a classifier for all texts. The logits of a text's windows are pooled.

    Args:
        network: A classifier in eval mode; it runs on the device where it is.
        encoded: The texts.
        tokens: Padding, token_budget, window_pooling and max_length, which must be a number.
        pad_id: The tokenizer's padding id.
        title: What the progress bar says.
        shared: As in `run_batches`.

    Returns:
        float32 (texts, classes).
    """
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
    """Pool the values of each text's windows, column by column.

    Of logits, mean and max both commute with a temperature.

    Args:
        values: float32 (windows, width).
        documents: Which text each window is of, (windows,), ascending and without gaps.
        how: `mean` or `max`.

    Returns:
        float32 (texts, width).
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
    """Return the tokens that each row takes in a batch, int64 (rows,): its own, or max_length if all are padded to it.

    Args:
        encoded: The rows.
        tokens: Padding and max_length.
    """
    if tokens.padding == "max_length":
        return np.full(len(encoded), tokens.max_length)
    return encoded.lengths
