"""Run a network of torch over many texts without training: longest texts first, in batches within a token budget.

Logits, validation scores and frozen features all come from here, so a text gets the same numbers wherever it is scored.
Everything is fp32, also where training used bf16: slower on a GPU, but a saved score can be reproduced on any machine.
The batches, their order and the pooling of windows are those of `prediction`, as for every other engine.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.config.sections import TokensConfig
from fullbake.core import runtime
from fullbake.models.collation import collate
from fullbake.models.encoding import Encoded
from fullbake.models.fast_layers import fast_layers
from fullbake.models.network import reads_first_token
from fullbake.models.prediction import compute_rows, of_texts

NetworkForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Model inputs, each (batch, tokens) -> (batch, width)."""


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
        shared: As in `prediction.compute_rows`.
        inputs_of: Builds what `forward` is given for some rows; None is `batch_inputs`.

    Returns:
        float32 (rows, width), in the order of `encoded`.

    Raises:
        DeadlinePassed, Interrupted: see `stopping.check`.
    """
    make = inputs_of or (lambda rows: batch_inputs(encoded, rows, tokens=tokens, pad_id=pad_id, device=device))
    with torch.inference_mode():
        return compute_rows(
            lambda rows: forward(make(rows)).float().cpu().numpy(), encoded, tokens, title=title, shared=shared
        )


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
        What `collation.collate` returns, each (batch, tokens).
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

    The network has the fast layers while this runs, so two threads must not share it; `torch_predictor` is for them.

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
    return of_texts(rows, encoded, tokens)
