"""Faster forward passes for the layers of a transformers network: put in for good, or for a while.

Three changes: dropout and attention made for the CPU (`fast_attention`); the last layer computed for the first token
alone, where a head reads nothing else; and packed batches, in which the texts stand one after another without padding.
Each is a subclass that overrides `forward` and nothing else, so parameters, their names and saved files stay the same.
Outputs and gradients equal the plain ones up to rounding. A class, mask or attention that is not known runs as
transformers has it. The trade-off: `fast_layers` changes the network in place while a block runs, so two threads cannot
share it; for those `torch_predictor` puts the layers into a copy, once.

FULLBAKE_FAST_KERNELS=0 keeps all of this out. The CPU parts are used on Linux only, where they were measured; the GPU
parts were never measured and need FULLBAKE_GPU_PIECES=1.
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
from fullbake.models.families import FAMILIES
from fullbake.models.fast_attention import WordDropout
from fullbake.models.pretrained import quiet_transformers

LayerForward = Callable[..., Any]

Undo = Callable[[], object]
"""Takes one change out of a network again."""

# Turning the fast layers on


@contextmanager
def fast_layers(network: nn.Module, *, first_token: bool = False, packed: bool = False) -> Iterator[None]:
    """Let `network` compute with the fast layers within the block. Blocks may be nested.

    Gradients of embedding tables are sparse within the block; `training.loop` makes them dense.

    Args:
        network: Any module that holds a transformers encoder.
        first_token: True if only the first token's last hidden state is read. The last layer then computes nothing
            else, and `last_hidden_state` is (rows, 1, width).
        packed: True if the layers may see a batch without its padding, as (1, all tokens, width) in place of
            (rows, tokens, width).

    Yields:
        Nothing; the network itself is changed.
    """
    with ExitStack() as undone:
        if runtime.fast_layers_enabled():
            for undo in _install(network, first_token, packed):
                undone.callback(undo)
        yield


def install_fast_layers(network: nn.Module, *, first_token: bool, packed: bool) -> None:
    """Put the fast layers into `network` for good.

    Args:
        network: As for `fast_layers`; `first_token` and `packed` too.
    """
    if runtime.fast_layers_enabled():
        list(_install(network, first_token, packed))


@contextmanager
def compiled_encoder(network: nn.Module) -> Iterator[None]:
    """Let torch compile the network's encoder within the block, on a GPU and with FULLBAKE_GPU_PIECES=1 only.

    Compiled on the CPU the encoder was slower than without.

    Args:
        network: A model; its encoder is compiled for batches of any shape.

    Yields:
        Nothing; the network itself is changed.
    """
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
    """Put the changes in one by one, and yield what takes each of them out again."""
    for module in network.modules() if runtime.on_linux() else ():
        if type(module) is nn.Dropout:
            yield _change_class(module, WordDropout)
        if type(module) is nn.Embedding and module.weight.device.type == "cpu" and not module.sparse:
            yield _make_sparse(module)
        if isinstance(module, PreTrainedModel):
            yield from _redirect_attention(module)
    found = first_token_class(network) if first_token else None
    if found is not None:
        yield _change_class(*found)
    for stack, fast in packed_classes(network) if packed else ():
        yield _change_class(stack, fast)


def _change_class(module: nn.Module, fast: type[nn.Module]) -> Undo:
    plain = type(module)
    module.__class__ = fast
    return lambda: setattr(module, "__class__", plain)


def _make_sparse(table: nn.Embedding) -> Undo:
    """Let the table's gradient hold only the rows that occur, in place of a table of zeros for every micro-batch."""
    table.sparse = True
    return lambda: setattr(table, "sparse", False)


def _redirect_attention(model: PreTrainedModel) -> Iterator[Undo]:
    """Make a model that uses transformers' `sdpa` attention use `fast_attention`."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        fast_attention.register_attention()
        _set_attention(model, fast_attention.ATTENTION_NAME)
        yield lambda: _set_attention(model, "sdpa")


def _set_attention(model: PreTrainedModel, name: str) -> None:
    with quiet_transformers():  # it warns of an encoder inside that has an attention of its own (Longformer)
        model.set_attn_implementation(name)


# Known classes


def family_name(cls: type) -> str:
    """Return a transformers class as package.Class below transformers.models, such as `bert.BertLayer`."""
    package = cls.__module__.rpartition(".")[0]
    return f"{package.removeprefix('transformers.models.')}.{cls.__name__}"


def known_class(module: nn.Module, known: Collection[str]) -> type[nn.Module] | None:
    """Return the transformers class of a module if `known` names it, also where the module has a subclass of it.

    Args:
        module: Any module.
        known: Names as `family_name` gives them.
    """
    return next((cls for cls in type(module).__mro__ if family_name(cls) in known), None)


def is_subclassed(module: nn.Module, known: Collection[str]) -> bool:
    """Return True if the module's class is a subclass of one that `known` names, not that class itself."""
    plain = known_class(module, known)
    return plain is not None and type(module) is not plain


def subclass_with_forward(plain: type[nn.Module], prefix: str, forward: LayerForward) -> type[nn.Module]:
    """Return a subclass of `plain`, named `prefix` + its name, that differs in `forward` alone."""
    return type(f"{prefix}{plain.__name__}", (plain,), {"forward": forward})


def attention_of(layer: Any) -> Any:
    """Return the part of a known layer that calls the attention. It has `config`, `dropout` and `scaling`."""
    return getattr(layer.attention, "self", layer.attention)


# The last layer for the first token alone: keys and values of all tokens, query and feed-forward of one. In a model of
# six layers that saves a seventh of the work.


def first_token_class(network: nn.Module) -> tuple[nn.Module, type[nn.Module]] | None:
    """Return the last known layer of a network and the class that computes its first token alone.

    Returns:
        (layer, class), or None where no layer is known, where its attention is not known, or where it has the class
        already.
    """
    found = [(module, plain) for module in network.modules() if (plain := known_class(module, _LAYER_FORWARDS))]
    if not found:
        return None
    layer, plain = found[-1]
    known_attentions = ("sdpa", fast_attention.ATTENTION_NAME)
    if type(layer) is not plain or attention_of(layer).config._attn_implementation not in known_attentions:
        return None
    return layer, subclass_with_forward(plain, "FirstToken", _LAYER_FORWARDS[family_name(plain)])


def gives_first_token(layer: nn.Module) -> bool:
    """Return True if the layer computes its first token alone now."""
    return is_subclassed(layer, _LAYER_FORWARDS)


def _bert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **kwargs: Any
) -> Tensor:
    """Compute a BERT layer: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention.self, _first_tokens(hidden_states, kwargs)
    queries, keys, values = inner.query(first), inner.key(hidden_states), inner.value(hidden_states)
    context = _attend(inner, queries, keys, values, attention_mask, kwargs)
    states: Tensor = self.feed_forward_chunk(self.attention.output(context, first))
    return states


def _distilbert_forward(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """Compute a DistilBERT layer: (rows, tokens, width) -> (rows, 1, width)."""
    inner, first = self.attention, _first_tokens(hidden_states, kwargs)
    queries, keys, values = inner.q_lin(first), inner.k_lin(hidden_states), inner.v_lin(hidden_states)
    context = inner.out_lin(_attend(inner, queries, keys, values, attention_mask, kwargs))
    attended = self.sa_layer_norm(context + first)
    states: Tensor = self.output_layer_norm(self.ffn(attended) + attended)
    return states


def _first_tokens(hidden_states: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Return each row's first token: (rows, tokens, width) -> (rows, 1, width), or (1, rows, width) of packed rows."""
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is not None:
        return hidden_states[:, bounds[:-1]]
    # Contiguous: products over strided rows differ in their last bits with the place of the weights in memory, and a
    # reloaded classifier has its weights in another place.
    return hidden_states[:, :1].contiguous()


def _attend(
    inner: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
) -> Tensor:
    """Run the attention that the config names, with one query per row.

    Args:
        inner: The layer's attention, see `attention_of`.
        queries: (rows, 1, width), or (1, rows, width) of packed rows.
        keys: (rows, tokens, width), or (1, all tokens, width) of packed rows.
        values: As `keys`.
        mask: (rows, 1, tokens, tokens) or None.
        kwargs: What the stack hands on; `cu_seq_lens_q` and the like of packed rows.

    Returns:
        What the queries see, of the shape of `queries`.
    """
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


_FORWARDS_BY_PARTS: dict[str, LayerForward] = {"bert": _bert_forward, "distilbert": _distilbert_forward}

_LAYER_FORWARDS = {
    family.fast.layer: _FORWARDS_BY_PARTS[family.fast.parts] for family in FAMILIES.values() if family.fast
}
"""Name of a layer's class -> its forward for the first token."""

_STACKS = frozenset(family.fast.stack for family in FAMILIES.values() if family.fast)


# Packed batches: the texts of a batch one after another in a single row, so that the layers compute no padding.


def packed_classes(network: nn.Module) -> list[tuple[nn.Module, type[nn.Module]]]:
    """Return the known stacks of layers in a network that do not run packed yet, each with the class that does."""
    found = [(module, known_class(module, _STACKS)) for module in network.modules()]
    return [(module, _packed_class(plain)) for module, plain in found if plain is not None and type(module) is plain]


def _packed_class(plain: type[nn.Module]) -> type[nn.Module]:
    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        lengths = _lengths_of_right_padding(attention_mask) if _attends_packed(self, hidden_states) else None
        if lengths is None:
            return plain.forward(self, hidden_states, attention_mask, *args, **kwargs)
        rows, tokens, _ = hidden_states.shape
        is_text = torch.arange(tokens, device=lengths.device) < lengths[:, None]
        places = is_text.flatten().nonzero()[:, 0]
        packed = hidden_states.flatten(0, 1)[places][None]
        output = plain.forward(self, packed, None, *args, **kwargs, **_sequence_bounds(lengths))
        states = output.last_hidden_state[0]
        if gives_first_token(self.layer[-1]):
            output.last_hidden_state = states[:, None]
        else:
            padded = states.new_zeros(rows * tokens, states.shape[1])
            output.last_hidden_state = padded.index_copy(0, places, states).view(hidden_states.shape)
        return output

    return subclass_with_forward(plain, "Packed", forward)


def _attends_packed(stack: Any, states: Tensor) -> bool:
    """Return True if the stack uses `fast_attention`, and that can keep packed rows apart on this device."""
    inner = attention_of(stack.layer[0])
    if inner.config._attn_implementation != fast_attention.ATTENTION_NAME:
        return False
    dropout = inner.dropout.p if inner.training else 0.0
    return states.device.type == "cpu" or fast_attention.attends_varlen(states.device, dropout)


def _lengths_of_right_padding(mask: Tensor | None) -> Tensor | None:
    """Return the rows' lengths, int64 (rows,), or None where the mask is not plain right padding.

    Args:
        mask: bool (rows, 1 or heads, queries, tokens), the same for all queries; or any other mask, or None.
    """
    if mask is None or mask.dtype != torch.bool or mask.ndim != 4:
        return None
    lengths = mask[:, 0, 0].sum(1)
    plain = torch.arange(mask.shape[3], device=mask.device) < lengths[:, None]
    return lengths if torch.equal(mask, plain[:, None, None].expand_as(mask)) and bool(lengths.all()) else None


def _sequence_bounds(lengths: Tensor) -> dict[str, Any]:
    """Build the cu_seq_lens_* and max_length_* arguments of packed attention from the rows' lengths, (rows,)."""
    bounds = nn.functional.pad(lengths.cumsum(0), (1, 0))
    longest = int(lengths.max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
