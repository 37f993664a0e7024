"""A model's head without its encoder: the family's own forward over a stand-in that hands given states through.

Every family builds its heads differently; so nothing here knows one, and whoever uses a head this way compares it with
the whole model once.
"""

import copy
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


def without_encoder(model: Any) -> Any:
    """The model with its encoder replaced. Call it with `inputs_embeds`, last hidden states (rows, tokens, width), in
    place of `input_ids`. Its parameters are the model's own."""
    shell = copy.copy(model)
    parts = {model.base_model_prefix: _HandThrough(model.base_model)}
    shell._modules = {name: parts.get(name, part) for name, part in model._modules.items()}
    return shell


class _HandThrough(nn.Module):
    """Stands in for an encoder: its last hidden state is what it was given, and its pooler works on that."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.pooler = getattr(encoder, "pooler", None)
        self.activation = getattr(encoder, "pooler_activation", None)
        # some heads read the embedding table; unregistered, since it is the encoder's
        object.__setattr__(self, "embeddings", getattr(encoder, "embeddings", None))

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=self._pool(inputs_embeds))

    def _pool(self, hidden: Tensor) -> Tensor | None:
        if self.pooler is None:
            return None
        pooled: Tensor
        # ALBERT's pooler is a bare dense layer
        pooled = self.pooler(hidden) if self.activation is None else self.activation(self.pooler(hidden[:, 0]))
        return pooled
