"""Layers that stay fixed: what they give is computed once, kept on disk, and each step runs the layers above alone.

A fixed layer is a fixed function of the text: it runs without dropout, whether its output is kept or not. (Noise there
would teach layers that cannot learn nothing, and would have to be drawn anew each epoch; what the layers above drop is
untouched.) So nothing but time hangs on whether a base can be cut.

Bases are cut by structure: embeddings and all that comes before the list of layers, then the layers in turn. While the
upper part runs, the parts below stand in their places and hand the kept states through, so masks, positions and
whatever else a family's own code does around its layers are its own. A probe compares the cut base with the whole one;
a family whose code does more between its layers than hand states on (a convolution after the first, in DeBERTa v2) runs
whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fullbake.config.fields import CachePrecision
from fullbake.config.sections import TokensConfig
from fullbake.core.cache import Cache
from fullbake.core.runtime import device
from fullbake.models.encoder import evaluating, lowest_parts, probe_inputs
from fullbake.models.encoding import Encoded
from fullbake.models.fast_layers import fast_kernels
from fullbake.passes import Pass, Stored, stored_output


@dataclass(frozen=True)
class Cut:
    """Where a base is cut. layers: how many of them are below. values: how many a layer gives in a tuple that begins
    with its states, as some families' do; 0 where it gives the states alone."""

    layers: int
    values: int


class _Reached(Exception):  # noqa: N818  (nothing went wrong)
    """The states were taken: the layers above need not run."""


@contextmanager
def held_still(model: nn.Module, layers: int | None) -> Iterator[None]:
    """Within the block, embeddings and the lowest `layers` layers run without dropout also where the model trains.
    None: all train as ever."""
    if layers is None:
        yield
        return
    below, lowest = lowest_parts(model, layers)

    def quieten(*_: object) -> None:
        for part in (*below, *lowest):
            if part.training:
                part.eval()

    encoder: Any = model.base_model
    hook = encoder.register_forward_pre_hook(quieten)
    try:
        yield
    finally:
        hook.remove()


def find_cut(model: nn.Module, layers: int) -> Cut | None:
    """Where `model` can be cut above its lowest `layers` layers (0: above the embeddings), None where it has to run
    whole. Raises BaseModelError for more layers than there are, and for a base whose layers are one."""
    lowest = lowest_parts(model, layers)[1]
    encoder: Any = model.base_model
    inputs, values = probe_inputs(encoder), [0]

    def note(_: nn.Module, __: object, output: object) -> None:
        values[0] = len(output) if isinstance(output, tuple) else 0

    with evaluating(encoder), torch.no_grad(), ExitStack() as stack:
        if lowest:
            stack.callback(lowest[0].register_forward_hook(note).remove)
        whole = encoder(**inputs).last_hidden_state
        cut = Cut(layers, values[0])
        try:
            with given_states(model, cut, lower_states(model, layers, inputs)):
                above = encoder(**inputs).last_hidden_state
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return None
    seen = inputs["attention_mask"].bool()
    return cut if torch.allclose(above[seen], whole[seen], rtol=1e-4, atol=1e-5) else None


def lower_states(model: nn.Module, layers: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """What goes into the layer above the lowest `layers`: (batch, tokens) inputs -> (batch, tokens, width)."""
    encoder: Any = model.base_model
    taken: list[Tensor] = []

    def take(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        taken.append(given[0] if given else named["hidden_states"])
        raise _Reached

    def take_last(_: nn.Module, __: object, output: Any) -> None:
        taken.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    whole = lowest_parts(model, None)[1]
    if layers < len(whole):
        hook = whole[layers].register_forward_pre_hook(take, with_kwargs=True)
    else:
        hook = whole[-1].register_forward_hook(take_last)
    try:
        encoder(**inputs)
    except _Reached:
        pass
    finally:
        hook.remove()
    return taken[0]


@contextmanager
def given_states(model: nn.Module, cut: Cut, states: Tensor) -> Iterator[None]:
    """Within the block `model` does not run what is below the cut: `states` (batch, tokens, width) stand for it.

    Its inputs are as ever; of them the token ids are looked at for their shape alone.
    """
    below, lowest = lowest_parts(model, cut.layers)
    output = (states, *[None] * (cut.values - 1)) if cut.values else states
    with ExitStack() as stack:
        for part in below:
            stack.callback(_stand_in(part, states))
        for part in lowest:
            stack.callback(_stand_in(part, output))
        yield


def _stand_in(part: nn.Module, output: object) -> Callable[[], object]:
    """Let a part give `output`, whatever it is given. Returns what takes that back."""
    vars(part)["forward"] = lambda *_, **__: output
    return lambda: vars(part).pop("forward", None)


def kept_states(
    model: nn.Module,
    cut: Cut,
    encode: Callable[[], Encoded],
    *,
    key: str,
    cache: Cache,
    tokens: TokensConfig,
    pad_id: int,
    precision: CachePrecision,
) -> Stored | None:
    """The states of all tokens below the cut, from the cache or by one pass in eval mode; None where the cache cannot
    hold them, or several processes train and it does not know them.

    encode: gives the tokenized texts; called only where the cache does not know `key`.
    """
    model.to(device()).eval()
    whole: Any = model
    asked = Pass(
        lambda inputs: lower_states(model, cut.layers, inputs),
        whole.base_model.config.hidden_size,
        key,
        f"states below layer {cut.layers + 1}",
        tokens,
        pad_id,
        every_token=True,
        precision=precision,
    )
    with fast_kernels(model):
        return stored_output(asked, encode, cache)
