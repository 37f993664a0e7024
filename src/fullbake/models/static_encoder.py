"""An encoder without attention: the mean of a vector for each token and for each pair of neighboring tokens.

It is what a student (`classifier.distill`) has below its head, a hundred times as fast as a small BERT. Pairs of tokens
share rows of one table by a hash of their ids, computed with integer arithmetic, so that torch and an ONNX graph find
the same rows. The table holds one byte for each number and a scale for each row: a quarter of the size in fp32, which
leaves room for more rows and more width within `STUDENT_BYTES`.

The encoder has one state for each text. It stands where other encoders have the state of their first token, so heads,
pooling `cls`, saving and loading work as for every other encoder.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

STUDENT_BYTES: Final = 20_000_000
"""Most bytes of a student's weights."""

_HASH_FACTOR: Final = 1_000_003
"""Multiplies the first id of a pair before the second is added. With a prime number of rows, pairs spread evenly."""


class StaticEncoderConfig(PreTrainedConfig):
    """Config of a StaticEncoder.

    Args:
        vocab_size: Number of token ids.
        hidden_size: Width of the vectors.
        token_rows: Rows of the table that belong to tokens.
        pair_buckets: Rows after them that pairs of tokens share, best a prime number.
        max_position_embeddings: Longest text in tokens that the teacher reads. The encoder itself has no limit.
        type_vocab_size: Segments that the tokenizer may give; the encoder ignores them.
        **kwargs: What every transformers config holds.
    """

    model_type = "fullbake-static"

    def __init__(
        self,
        *,
        vocab_size: int = 1,
        hidden_size: int = 1,
        token_rows: int = 1,
        pair_buckets: int = 1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.token_rows, self.pair_buckets = token_rows, pair_buckets
        self.max_position_embeddings, self.type_vocab_size = max_position_embeddings, type_vocab_size
        super().__init__(**kwargs)


class TokenRows(nn.Module):
    """The row of the table that each token id has: (vocabulary,)."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab_size, dtype=torch.int32), requires_grad=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the rows of token ids, int64 and of their shape."""
        return self.weight[input_ids].long()


def pair_buckets_of(input_ids: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each token and the one before it; the first token of a text is paired with id 0.

    Args:
        input_ids: (batch, tokens), int64.
        buckets: Number of buckets.

    Returns:
        (batch, tokens), int64 from 0 to buckets - 1.
    """
    before = functional.pad(input_ids[:, :-1], (1, 0))
    return (before * _HASH_FACTOR + input_ids) % buckets


class StaticEncoder(PreTrainedModel):
    """The mean of the rows of a text's tokens and of its pairs of tokens."""

    config_class = StaticEncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _supports_sdpa = True  # it has no attention, so any implementation suits it
    _supports_flash_attn = True

    def __init__(self, config: StaticEncoderConfig) -> None:
        super().__init__(config)
        rows = config.token_rows + config.pair_buckets
        self.token_rows = TokenRows(config.vocab_size)
        self.codes = nn.Parameter(torch.zeros(rows, config.hidden_size, dtype=torch.int8), requires_grad=False)
        self.scales = nn.Parameter(torch.zeros(rows), requires_grad=False)
        self._table: Tensor | None = None
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the part whose `weight` has an entry for each token id."""
        return self.token_rows

    def rows_of(self, input_ids: Tensor) -> Tensor:
        """Return the rows of the table that texts read: (batch, tokens) -> (batch, 2 * tokens)."""
        pairs = pair_buckets_of(input_ids, self.config.pair_buckets) + self.config.token_rows
        return torch.cat([self.token_rows(input_ids), pairs], dim=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,  # noqa: ARG002  (segments change nothing)
        **_: Any,
    ) -> BaseModelOutput:
        """Compute the state of each text.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens), 1 on text, padding on the right; None means that there is no padding.
            token_type_ids: Not read.

        Returns:
            last_hidden_state, (batch, 1, width).
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        present = mask.to(self.scales.dtype)
        sums = self._sums(self.rows_of(input_ids), torch.cat([present, present], dim=1))
        means = sums / present.sum(dim=1, keepdim=True)
        return BaseModelOutput(last_hidden_state=means.unsqueeze(1))

    def _sums(self, rows: Tensor, present: Tensor) -> Tensor:
        """Add up rows of the table, those of padding not counted: (batch, n) -> (batch, width)."""
        if torch.compiler.is_exporting():  # a graph has no operator for bags; this gives the same numbers
            weights = present * self.scales[rows]
            return (weights.unsqueeze(1) @ self.codes[rows].to(weights.dtype)).squeeze(1)
        return functional.embedding_bag(rows, self._decoded(), mode="sum", per_sample_weights=present)

    def _decoded(self) -> Tensor:
        """Return the table in fp32, (rows, width), made when it is first read: that halves the time of a batch."""
        if self._table is None or self._table.device != self.codes.device:
            self._table = self.codes.to(self.scales.dtype) * self.scales[:, None]
        return self._table

    def set_table(self, table: Tensor) -> None:
        """Store vectors as one byte a number and a scale for each row. table: fp32, (rows, width)."""
        scales = table.abs().amax(dim=1) / 127
        codes = torch.round(table / scales.clamp(min=torch.finfo(table.dtype).tiny)[:, None])
        self.scales.data.copy_(scales)
        self.codes.data.copy_(codes.to(torch.int8))
        self._table = None

    def _init_weights(self, module: nn.Module) -> None:
        """Leave everything as it is: the table is set or loaded."""
