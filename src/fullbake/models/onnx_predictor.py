"""The engine `onnx`: a bundle's graph in onnxruntime, without torch.

The graph reads its weights from the bundle's own weight files. onnxruntime computes padding too, unlike the packed
batches of torch; batches of texts of similar length keep that small. A session may be called by several threads at
once, and a calculation is divided among its threads in the same way whatever else runs, so its bits repeat.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fullbake.config.sections import TokensConfig
from fullbake.core import runtime
from fullbake.core.errors import BundleError
from fullbake.models.encoding import Encoded, pad_rows
from fullbake.models.graph_check import CheckedGraph
from fullbake.models.graph_session import open_graph, run_graph
from fullbake.models.prediction import compute_rows, of_texts

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_SEGMENTS: Final = "token_type_ids"

_MOST_PADDING: Final = 64
"""Padding of a batch, in tokens. To compute so much takes about as long as to start another batch."""


class OnnxPredictor:
    """A graph behind the `Predictor` protocol.

    Args:
        graph: The graph, as `graph_check` found it right.
        folder: Where its weights lie.
        pad_id: The tokenizer's padding id.
        threads: Threads of one calculation; None takes `runtime.session_threads`.

    Raises:
        BundleError: onnxruntime lacks an operator of the graph, or refuses it.
    """

    engine = "onnx"

    def __init__(self, graph: CheckedGraph, folder: Path, pad_id: int, *, threads: int | None = None) -> None:
        self._folder, self._pad_id, self._takes_segments = folder, pad_id, _SEGMENTS in graph.inputs
        self._session: InferenceSession = open_graph(graph, folder, threads=threads or runtime.session_threads())

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "scoring") -> np.ndarray:
        """Compute the logits of texts, float32 (texts, classes); see `prediction.Predictor`."""
        return self._run("logits", encoded, tokens, title)

    def pooled(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "embedding") -> np.ndarray:
        """Compute what the head reads of texts, float32 (texts, width); see `prediction.Predictor`."""
        return self._run("pooled", encoded, tokens, title)

    def run_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one batch.

        Args:
            batch: `input_ids` and `attention_mask`, and `token_type_ids` where texts have segments; each int64 (batch,
                tokens).

        Returns:
            `logits`, float32 (batch, classes), and `pooled`, float32 (batch, width).

        Raises:
            BundleError: The graph has no weights for an id or a place.
        """
        if self._takes_segments and _SEGMENTS not in batch:
            batch = {**batch, _SEGMENTS: np.zeros_like(batch["input_ids"])}
        try:
            return run_graph(self._session, batch)
        except Exception as error:  # its exceptions have no class in common but this one
            raise BundleError(
                "onnxruntime cannot run the graph on a text",
                where=str(self._folder),
                got=" ".join(str(error).split())[:300],
                remedy="Score with torch: --engine torch, or engine='torch'.",
            ) from error

    def _run(self, output: str, encoded: Encoded, tokens: TokensConfig, title: str) -> np.ndarray:
        def compute(rows: np.ndarray) -> np.ndarray:
            batch = pad_rows(encoded, rows, pad_id=self._pad_id, padding=tokens.padding, max_length=tokens.max_length)
            return self.run_batch(batch)[output]

        rows = compute_rows(compute, encoded, tokens, title=title, most_padding=_MOST_PADDING)
        return of_texts(rows, encoded, tokens)
