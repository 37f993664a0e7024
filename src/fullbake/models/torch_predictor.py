"""The engine `torch`: a network of transformers with the fast layers, installed once.

The fast layers are put into a copy of the network's modules that shares every weight with it. The network itself stays
as transformers built it, so it may be saved or trained while others score, and nothing is swapped while a text is
scored: any number of threads may call one `TorchPredictor`.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedModel

from fullbake.config.sections import TokensConfig
from fullbake.core.runtime import device
from fullbake.models.encoding import Encoded
from fullbake.models.fast_layers import install_fast_layers
from fullbake.models.inference import NetworkForward, run_batches
from fullbake.models.network import features, reads_first_token
from fullbake.models.prediction import of_texts


class TorchPredictor:
    """A classifier's network behind the `Predictor` protocol.

    Args:
        network: A classifier; it is moved to the device of this machine and set to eval mode.
        pad_id: The tokenizer's padding id.
    """

    engine = "torch"

    def __init__(self, network: PreTrainedModel, pad_id: int) -> None:
        placed: Any = network  # transformers' own types do not know a device as an argument of `to`
        self.network: PreTrainedModel = placed.to(device()).eval()
        self._pad_id = pad_id
        self._fast: Any = copy_for_inference(self.network)

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "scoring") -> np.ndarray:
        """Compute the logits of texts, float32 (texts, classes); see `prediction.Predictor`."""
        return self._run(self._forward, encoded, tokens, title)

    def pooled(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "embedding") -> np.ndarray:
        """Compute what the head reads of texts, float32 (texts, width); see `prediction.Predictor`."""
        return self._run(lambda inputs: features(self._fast, inputs), encoded, tokens, title)

    def _forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self._fast(**inputs).logits
        return logits

    def _run(self, forward: NetworkForward, encoded: Encoded, tokens: TokensConfig, title: str) -> np.ndarray:
        place = next(self._fast.parameters()).device
        rows = run_batches(forward, encoded, tokens=tokens, pad_id=self._pad_id, device=place, title=title)
        return of_texts(rows, encoded, tokens)


def copy_for_inference(network: nn.Module) -> nn.Module:
    """Return a copy of a network's modules that has the fast layers for good, and shares every tensor with `network`.

    Args:
        network: A classifier in eval mode.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    fast = copy.deepcopy(network, shared)
    install_fast_layers(fast, first_token=reads_first_token(network), packed=True)
    return fast
