"""Batches of token ids as torch tensors: the keyword arguments of a base's forward."""

import torch
from torch import Tensor

from fullbake.config.fields import Padding
from fullbake.models.encoding import Encoded, Ids, pad_rows


def collate(
    encoded: Encoded,
    rows: Ids,
    *,
    pad_id: int,
    padding: Padding = "longest",
    max_length: int | None = None,
) -> dict[str, Tensor]:
    """Build a batch of some rows as `encoding.pad_rows` does, for a network of torch.

    Args:
        encoded: The rows to choose from.
        rows: Which rows, (batch,).
        pad_id: The tokenizer's padding id.
        padding: `longest` pads to the longest row, `max_length` to that length.
        max_length: Read for padding `max_length` only.

    Returns:
        `input_ids`; `attention_mask` (1 on text) unless nothing is padding; `token_type_ids` if the base has segments.
        Each is int64 (batch, tokens).
    """
    batch = pad_rows(encoded, rows, pad_id=pad_id, padding=padding, max_length=max_length)
    if batch["attention_mask"].all():
        del batch["attention_mask"]  # the layers are faster without a mask
    return {name: torch.from_numpy(values) for name, values in batch.items()}
