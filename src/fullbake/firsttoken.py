"""The last layer for the first token alone.

A head that reads the first token's vector needs of the last layer the keys and values of all tokens, but query, output
and feed-forward of one: a seventh of the work of six layers. Known layers get a subclass that overrides `forward` and
nothing else; it gives (rows, 1, width) in place of (rows, tokens, width), the numbers being the same up to rounding,
and so are the gradients. Whatever is not known runs whole.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fullbake import attention

Forward = Callable[..., Tensor]


def first_token_class(network: nn.Module) -> tuple[nn.Module, type[nn.Module]] | None:
    """The last layer of a network's encoder, and the class that computes its first token alone.

    None where the layer is not known, attends in a way that is not, or has its class already.
    """
    found = [(module, plain) for module in network.modules() if (plain := _known_class(module))]
    if not found:
        return None
    layer, plain = found[-1]
    if type(layer) is not plain or _implementation(layer) not in ("sdpa", attention.NAME):
        return None
    return layer, _subclass(plain, _FORWARDS[_family_name(plain)])


def _known_class(module: nn.Module) -> type[nn.Module] | None:
    """The class in transformers of a layer that is known, whether or not it has been given a subclass."""
    return next((cls for cls in type(module).__mro__ if _family_name(cls) in _FORWARDS), None)


def _family_name(cls: type) -> str:
    """As `_FORWARDS` names classes: `bert.BertLayer`."""
    package, _, module = cls.__module__.rpartition(".")
    return f"{package.removeprefix('transformers.models.')}.{cls.__name__}" if module else ""


def _implementation(layer: Any) -> str:
    inner = getattr(layer.attention, "self", layer.attention)
    return str(inner.config._attn_implementation)


def _subclass(plain: type[nn.Module], forward: Forward) -> type[nn.Module]:
    return type(f"FirstToken{plain.__name__}", (plain,), {"forward": forward})


def _bert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **kwargs: Any
) -> Tensor:
    """hidden_states: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention.self, _first(hidden_states)
    queries, keys, values = inner.query(first), inner.key(hidden_states), inner.value(hidden_states)
    context = _context(inner, queries, keys, values, attention_mask, kwargs)
    states: Tensor = self.feed_forward_chunk(self.attention.output(context, first))
    return states


def _distilbert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """hidden_states: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention, _first(hidden_states)
    queries, keys, values = inner.q_lin(first), inner.k_lin(hidden_states), inner.v_lin(hidden_states)
    context = inner.out_lin(_context(inner, queries, keys, values, attention_mask, kwargs))
    attended = self.sa_layer_norm(context + first)
    states: Tensor = self.output_layer_norm(self.ffn(attended) + attended)
    return states


def _first(hidden_states: Tensor) -> Tensor:
    """(rows, tokens, width) -> (rows, 1, width), contiguous: products over strided rows differ in their last bits with
    the place of the weights in memory, and a reloaded classifier has them elsewhere."""
    return hidden_states[:, :1].contiguous()


def _context(
    inner: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
) -> Tensor:
    """What the first token sees, (rows, 1, width), by the attention that the config names."""
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
