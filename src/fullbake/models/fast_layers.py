"""Parts of transformers' networks that are known by their class, and the subclass that computes one otherwise.

A subclass overrides `forward` and nothing else, so a part that is given it keeps its parameters and their names.

The last layer for the first token alone.

A head that reads the first token's vector needs of the last layer the keys and values of all tokens, but query, output
and feed-forward of one: a seventh of the work of six layers. Known layers get a subclass that overrides `forward` and
nothing else; it gives (rows, 1, width) in place of (rows, tokens, width), the numbers being the same up to rounding,
and so are the gradients. Of rows that are packed one after another (`packing`) it gives (1, rows, width). Whatever is
not known runs whole.

A batch's texts one after another, so that the layers compute no padding.

Where a batch has padding, the stack of layers takes its tokens out of (rows, tokens, width), runs them as a single row
(1, all tokens, width), and puts what comes out back into its place. Dense layers and norms see text alone; attention
is told where the rows begin (`cu_seq_lens_q`, as transformers calls it) and keeps them apart. The numbers are the
padded ones up to rounding, and zero where there is padding.

Stacks that are known get a subclass which overrides `forward`; other stacks, masks that are no right padding, and
whatever wants a stack's layers to see padded states (`lowerlayers`) run as ever.

The fast pieces put into a network, and taken out again: dropout, attention, rows without padding, the
first token alone.

Each piece is another class or another name for a part that stays in its place: parameters, their names and what is
saved do not change, and each piece falls back to the plain way for what it does not know. So they may be put into any
transformers encoder, alone or within a larger module. FULLBAKE_FAST_KERNELS=0 keeps all of them out.

What is made for the CPU is used on Linux alone, where it was measured; the first token alone is less work anywhere.
What is made for a GPU has not been measured, and waits for FULLBAKE_GPU_PIECES=1.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fullbake.core import runtime
from fullbake.models import fast_attention
from fullbake.models.fast_attention import WordDropout

LayerForward = Callable[..., Any]


def known_class(module: nn.Module, known: Collection[str]) -> type[nn.Module] | None:
    """The class in transformers of a module that is among `known`, whether or not it has been given a subclass."""
    return next((cls for cls in type(module).__mro__ if family_name(cls) in known), None)


def family_name(cls: type) -> str:
    """A class of transformers by its family and name, `bert.BertLayer`."""
    package = cls.__module__.rpartition(".")[0]
    return f"{package.removeprefix('transformers.models.')}.{cls.__name__}"


def is_subclassed(module: nn.Module, known: Collection[str]) -> bool:
    """Whether a module of a known class has been given a subclass."""
    plain = known_class(module, known)
    return plain is not None and type(module) is not plain


def subclass_with_forward(plain: type[nn.Module], prefix: str, forward: LayerForward) -> type[nn.Module]:
    """`plain` with another forward."""
    return type(f"{prefix}{plain.__name__}", (plain,), {"forward": forward})


def first_token_class(network: nn.Module) -> tuple[nn.Module, type[nn.Module]] | None:
    """The last layer of a network's encoder, and the class that computes its first token alone.

    None where the layer is not known, attends in a way that is not, or has its class already.
    """
    found = [(module, plain) for module in network.modules() if (plain := known_class(module, _FORWARDS))]
    if not found:
        return None
    layer, plain = found[-1]
    if type(layer) is not plain or attention_of(layer).config._attn_implementation not in (
        "sdpa",
        fast_attention.ATTENTION_NAME,
    ):
        return None
    return layer, subclass_with_forward(plain, "FirstToken", _FORWARDS[family_name(plain)])


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


_FORWARDS: dict[str, LayerForward] = {
    "bert.BertLayer": _bert_forward,
    "roberta.RobertaLayer": _bert_forward,
    "xlm_roberta.XLMRobertaLayer": _bert_forward,
    "camembert.CamembertLayer": _bert_forward,
    "electra.ElectraLayer": _bert_forward,
    "distilbert.TransformerBlock": _distilbert_forward,
}
"""A layer's family and class in transformers -> its forward for the first token. Where it is BERT's, the layer is a
copy of BERT's."""

_STACKS = {
    "bert.BertEncoder",
    "roberta.RobertaEncoder",
    "xlm_roberta.XLMRobertaEncoder",
    "camembert.CamembertEncoder",
    "electra.ElectraEncoder",
    "distilbert.Transformer",
}
"""Family and class in transformers. Each runs `self.layer` in turn over states that know their positions already, and
hands its keyword arguments on to the attention."""


def packed_classes(network: nn.Module) -> list[tuple[nn.Module, type[nn.Module]]]:
    """The stacks of layers in a network that can run packed, and the class that does; not those that have it."""
    found = [(module, known_class(module, _STACKS)) for module in network.modules()]
    return [(module, _packed_class(plain)) for module, plain in found if plain is not None and type(module) is plain]


def _packed_class(plain: type[nn.Module]) -> type[nn.Module]:
    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        lengths = _right_padded(attention_mask) if _attends_packed(self, hidden_states) else None
        if lengths is None:
            return plain.forward(self, hidden_states, attention_mask, *args, **kwargs)
        places = _places(lengths, hidden_states.shape[1])
        packed = hidden_states.flatten(0, 1)[places][None]
        output = plain.forward(self, packed, None, *args, **kwargs, **_bounds(lengths))
        states = output.last_hidden_state[0]
        if gives_first_token(self.layer[-1]):
            output.last_hidden_state = states[:, None]
        else:
            output.last_hidden_state = _padded(states, places, hidden_states.shape)
        return output

    return subclass_with_forward(plain, "Packed", forward)


def _attends_packed(stack: Any, states: Tensor) -> bool:
    """Whether the stack's attention is ours, and has a way of its own for rows one after another on this device."""
    inner = attention_of(stack.layer[0])
    if inner.config._attn_implementation != fast_attention.ATTENTION_NAME:
        return False
    dropout = inner.dropout.p if inner.training else 0.0
    return states.device.type == "cpu" or fast_attention.attends_varlen(states.device, dropout)


def _right_padded(mask: Tensor | None) -> Tensor | None:
    """The rows' lengths, int64 (rows,); None where the mask is another one than right padding.

    mask: bool (rows, 1 or heads, queries, tokens), the same for all queries.
    """
    if mask is None or mask.dtype != torch.bool or mask.ndim != 4:
        return None
    lengths = mask[:, 0, 0].sum(1)
    plain = torch.arange(mask.shape[3], device=mask.device) < lengths[:, None]
    return lengths if torch.equal(mask, plain[:, None, None].expand_as(mask)) and bool(lengths.all()) else None


def _places(lengths: Tensor, tokens: int) -> Tensor:
    """Where in (rows * tokens) the rows' tokens lie, row after row."""
    return (torch.arange(tokens, device=lengths.device) < lengths[:, None]).flatten().nonzero()[:, 0]


def _bounds(lengths: Tensor) -> dict[str, Any]:
    """What transformers tells an attention of rows that lie one after another."""
    bounds = nn.functional.pad(lengths.cumsum(0), (1, 0))
    longest = int(lengths.max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


def _padded(states: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """(all tokens, width) -> (rows, tokens, width), zero where there is padding."""
    padded = states.new_zeros(shape[0] * shape[1], shape[2])
    return padded.index_copy(0, places, states).view(shape)


Undo = Callable[[], object]


@contextmanager
def fast_layers(network: nn.Module, *, first_token: bool = False, packed: bool = False) -> Iterator[None]:
    """Within the block `network` computes with the fast pieces; blocks may be nested.

    first_token: whether nothing but the first token's last hidden state is read of it: then the last layer computes
    no other, and `last_hidden_state` is (rows, 1, width). packed: whether the layers may see the texts of a batch one
    after another, without padding, in place of (rows, tokens, width). What is not known runs whole.
    Gradients of embedding tables are sparse within; `loop` makes them whole.
    """
    with ExitStack() as undone:
        if runtime.fast_layers_enabled():
            for undo in _install(network, first_token, packed):
                undone.callback(undo)
        yield


@contextmanager
def compiled_encoder(network: nn.Module) -> Iterator[None]:
    """Within the block a network's encoder is compiled by torch for batches of any shape, where it stands on a GPU and
    FULLBAKE_GPU_PIECES is 1. (On the CPU it was slower than without.)"""
    if not runtime.gpu_layers_enabled() or next(network.parameters()).device.type != "cuda":
        yield
        return
    encoder: Any = getattr(network, "base_model", network)
    encoder.compile(dynamic=True)
    try:
        yield
    finally:
        encoder._compiled_call_impl = None


def _install(network: nn.Module, first_token: bool, packed: bool) -> Iterator[Undo]:
    """Put the pieces in, one by one. Yields what takes each out again."""
    for module in network.modules() if runtime.on_linux() else ():
        if type(module) is nn.Dropout:
            yield _reclass(module, WordDropout)
        if type(module) is nn.Embedding and module.weight.device.type == "cpu" and not module.sparse:
            yield _make_sparse(module)
        if isinstance(module, PreTrainedModel):
            yield from _redirect(module)
    found = first_token_class(network) if first_token else None
    if found is not None:
        yield _reclass(*found)
    for stack, fast in packed_classes(network) if packed else ():
        yield _reclass(stack, fast)


def _reclass(module: nn.Module, fast: type[nn.Module]) -> Undo:
    """Give a module a subclass of its class, which has the same parts and computes otherwise."""
    plain = type(module)
    module.__class__ = fast
    return lambda: setattr(module, "__class__", plain)


def _make_sparse(table: nn.Embedding) -> Undo:
    """Let a table's gradient name the rows it has, in place of a whole table of zeros for every cut of a step."""
    table.sparse = True
    return lambda: setattr(table, "sparse", False)


def _redirect(model: PreTrainedModel) -> Iterator[Undo]:
    """Let a model that asks transformers for its attention find ours, where it would find torch's."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        fast_attention.register_attention()
        model.set_attn_implementation(fast_attention.ATTENTION_NAME)
        yield lambda: model.set_attn_implementation("sdpa")
