"""The fast pieces put into a network, and taken out again: dropout, attention, rows without padding, the
first token alone.

Each piece is another class or another name for a part that stays in its place: parameters, their names and what is
saved do not change, and each piece falls back to the plain way for what it does not know. So they may be put into any
transformers encoder, alone or within a larger module. FULLBAKE_FAST_KERNELS=0 keeps all of them out.

What is made for the CPU is used on Linux alone, where it was measured; the first token alone is less work anywhere.
What is made for a GPU has not been measured, and waits for FULLBAKE_GPU_PIECES=1.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from fullbake import attention
from fullbake.core import runtime
from fullbake.dropout import WordDropout
from fullbake.firsttoken import first_token_class
from fullbake.packing import packed_classes

Undo = Callable[[], object]


@contextmanager
def fast_kernels(network: nn.Module, *, first_token: bool = False, packed: bool = False) -> Iterator[None]:
    """Within the block `network` computes with the fast pieces; blocks may be nested.

    first_token: whether nothing but the first token's last hidden state is read of it: then the last layer computes
    no other, and `last_hidden_state` is (rows, 1, width). packed: whether the layers may see the texts of a batch one
    after another, without padding, in place of (rows, tokens, width). What is not known runs whole.
    Gradients of embedding tables are sparse within; `loop` makes them whole.
    """
    with ExitStack() as undone:
        if runtime.fast_kernels():
            for undo in _install(network, first_token, packed):
                undone.callback(undo)
        yield


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """Within the block a network's encoder is compiled by torch for batches of any shape, where it stands on a GPU and
    FULLBAKE_GPU_PIECES is 1. (On the CPU it was slower than without.)"""
    if not runtime.gpu_pieces() or next(network.parameters()).device.type != "cuda":
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
        attention.register()
        model.set_attn_implementation(attention.NAME)
        yield lambda: model.set_attn_implementation("sdpa")
