"""The engines that score a bundle, and which one is taken.

`torch` runs the network by transformers. It trains, saves and uses a GPU, and takes seconds to import. An engine is
loaded with the tokenizer that goes with it, so that a process imports the libraries of one engine only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullbake.classifier import manifest
from fullbake.core.extras import name_missing_extra
from fullbake.models.prediction import Predictor


@dataclass(frozen=True)
class LoadedEngine:
    """An engine with a bundle's network, and what the network takes."""

    predictor: Predictor

    tokenizer: Any
    """What `prediction.encode` needs of a tokenizer."""

    rows: int
    """Rows of the embedding table: token ids are below."""

    added_id: int
    """The largest id of a token that the tokenizer has beside those of tokenizer.json; -1 if it has none."""

    positions: int
    """Longest row in tokens."""

    segments: int
    """How many segments there are, 0 if unknown."""


def load_engine(folder: Path) -> LoadedEngine:
    """Load the network of a bundle whose files were found right.

    Args:
        folder: The bundle.

    Raises:
        BundleError: The network or the tokenizer cannot be read.
        MissingExtraError: The engine's libraries are not installed.
    """
    return _load_torch(folder)


def _load_torch(folder: Path) -> LoadedEngine:
    with name_missing_extra():
        from fullbake.models.network import load_network
        from fullbake.models.pretrained import max_positions
        from fullbake.models.tokenizer import load_tokenizer
        from fullbake.models.torch_predictor import TorchPredictor

    network: Any = load_network(folder)
    with manifest.explain_faults(folder, "tokenizer.json"):
        tokenizer: Any = load_tokenizer(folder)
        encoder = getattr(network.config, "encoder", network.config)
        return LoadedEngine(
            TorchPredictor(network, tokenizer.pad_token_id),
            tokenizer,
            rows=network.get_input_embeddings().weight.shape[0],
            added_id=max(tokenizer.added_tokens_decoder, default=-1),
            positions=max_positions(encoder),
            segments=getattr(encoder, "type_vocab_size", None) or 0,
        )
