"""A batch's texts one after another, so that the layers compute no padding.

Where a batch has padding, the stack of layers takes its tokens out of (rows, tokens, width), runs them as a single row
(1, all tokens, width), and puts what comes out back into its place. Dense layers and norms see text alone; attention
is told where the rows begin (`cu_seq_lens_q`, as transformers calls it) and keeps them apart. The numbers are the
padded ones up to rounding, and zero where there is padding.

Stacks that are known get a subclass which overrides `forward`; other stacks, masks that are no right padding, and
whatever wants a stack's layers to see padded states (`lowerlayers`) run as ever.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fullbake import attention
from fullbake.families import known_class, subclass
from fullbake.firsttoken import attention_of, gives_first_token

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

    return subclass(plain, "Packed", forward)


def _attends_packed(stack: Any, states: Tensor) -> bool:
    """Whether the stack's attention is ours, and has a way of its own for rows one after another on this device."""
    inner = attention_of(stack.layer[0])
    if inner.config._attn_implementation != attention.NAME:
        return False
    dropout = inner.dropout.p if inner.training else 0.0
    return states.device.type == "cpu" or attention.attends_varlen(states.device, dropout)


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
