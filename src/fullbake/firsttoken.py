"""The last layer for the first token alone.

A head that reads the first token's vector needs of the last layer the keys and values of all tokens, but query, output
and feed-forward of one: a seventh of the work of six layers. Known layers get a subclass that overrides `forward` and
nothing else; it gives (rows, 1, width) in place of (rows, tokens, width), the numbers being the same up to rounding,
and so are the gradients. Of rows that are packed one after another (`packing`) it gives (1, rows, width). Whatever is
not known runs whole.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fullbake import attention
from fullbake.families import Forward, family_name, is_subclassed, known_class, subclass


def first_token_class(network: nn.Module) -> tuple[nn.Module, type[nn.Module]] | None:
    """The last layer of a network's encoder, and the class that computes its first token alone.

    None where the layer is not known, attends in a way that is not, or has its class already.
    """
    found = [(module, plain) for module in network.modules() if (plain := known_class(module, _FORWARDS))]
    if not found:
        return None
    layer, plain = found[-1]
    if type(layer) is not plain or attention_of(layer).config._attn_implementation not in ("sdpa", attention.NAME):
        return None
    return layer, subclass(plain, "FirstToken", _FORWARDS[family_name(plain)])


def gives_first_token(layer: nn.Module) -> bool:
    """Whether a layer has such a class."""
    return is_subclassed(layer, _FORWARDS)


def attention_of(layer: Any) -> Any:
    """The part of a known layer that calls its attention: it has config, dropout and scaling."""
    return getattr(layer.attention, "self", layer.attention)


def _bert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **kwargs: Any
) -> Tensor:
    """hidden_states: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention.self, _first(hidden_states, kwargs)
    queries, keys, values = inner.query(first), inner.key(hidden_states), inner.value(hidden_states)
    context = _context(inner, queries, keys, values, attention_mask, kwargs)
    states: Tensor = self.feed_forward_chunk(self.attention.output(context, first))
    return states


def _distilbert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """hidden_states: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention, _first(hidden_states, kwargs)
    queries, keys, values = inner.q_lin(first), inner.k_lin(hidden_states), inner.v_lin(hidden_states)
    context = inner.out_lin(_context(inner, queries, keys, values, attention_mask, kwargs))
    attended = self.sa_layer_norm(context + first)
    states: Tensor = self.output_layer_norm(self.ffn(attended) + attended)
    return states


def _first(hidden_states: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """(rows, tokens, width) -> (rows, 1, width), contiguous: products over strided rows differ in their last bits with
    the place of the weights in memory, and a reloaded classifier has them elsewhere. Packed: (1, rows, width)."""
    bounds = kwargs.get("cu_seq_lens_q")
    return hidden_states[:, :1].contiguous() if bounds is None else hidden_states[:, bounds[:-1]]


def _context(
    inner: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
) -> Tensor:
    """What the first token sees, of the shape of `queries`, by the attention that the config names."""
    if (bounds := kwargs.get("cu_seq_lens_q")) is not None:
        kwargs = kwargs | {"cu_seq_lens_q": torch.arange(len(bounds), device=bounds.device), "max_length_q": 1}
    heads = (
        part.view(*part.shape[:2], -1, inner.attention_head_size).transpose(1, 2) for part in (queries, keys, values)
    )
    context, _ = ALL_ATTENTION_FUNCTIONS[inner.config._attn_implementation](
        inner,
        *heads,
        None if mask is None else mask[:, :, :1],
        dropout=inner.dropout.p if inner.training else 0.0,
        scaling=inner.scaling,
        **kwargs,
    )
    seen: Tensor = context.reshape(queries.shape)
    return seen


_FORWARDS: dict[str, Forward] = {
    "bert.BertLayer": _bert_forward,
    "roberta.RobertaLayer": _bert_forward,
    "xlm_roberta.XLMRobertaLayer": _bert_forward,
    "camembert.CamembertLayer": _bert_forward,
    "electra.ElectraLayer": _bert_forward,
    "distilbert.TransformerBlock": _distilbert_forward,
}
"""A layer's family and class in transformers -> its forward for the first token. Where it is BERT's, the layer is a
copy of BERT's."""
