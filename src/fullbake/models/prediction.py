"""The seam between texts and an engine: `Predictor`, and what every engine shares.

An engine computes the rows of one batch. Everything around it is here, once for all engines: which rows form a batch
(longest first, within a token budget), the order of the results, and the pooling of a text's windows. Nothing heavy is
imported, so that a bundle is scored without torch where onnxruntime runs its graph.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fullbake.config.fields import WindowPooling
from fullbake.config.sections import TokensConfig
from fullbake.core import ranks, runtime, stopping
from fullbake.core.console import bar
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded, tokenize

if TYPE_CHECKING:
    import pyarrow as pa

TextsOrPairs: TypeAlias = Union[Sequence[str], "pa.ChunkedArray"]
"""Texts in order: a sequence of strings, or an Arrow column."""

BatchFunction = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""The numbers of some rows, (batch,) -> what is computed of them, float32 (batch, width)."""


class Predictor(Protocol):
    """A classifier's encoder and head behind one engine. It may be called by several threads at once."""

    @property
    def engine(self) -> str:
        """What computes: `torch` or `onnx`."""

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "scoring") -> np.ndarray:
        """Compute the logits of texts. Those of a text's windows are pooled.

        Args:
            encoded: The texts.
            tokens: Padding, token_budget, window_pooling and max_length, which must be a number.
            title: What the progress bar says.

        Returns:
            float32 (texts, classes).
        """

    def pooled(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "embedding") -> np.ndarray:
        """Compute what the head reads of texts. That of a text's windows is pooled as their logits are.

        Args:
            encoded: The texts.
            tokens: As for `logits`.
            title: What the progress bar says.

        Returns:
            float32 (texts, width).
        """


def encode(texts: TextsOrPairs, tokenizer: Any, tokens: TokensConfig, text_pair: TextsOrPairs | None = None) -> Encoded:
    """Turn all texts into token ids, with a progress bar.

    Args:
        texts: One text per row.
        tokenizer: As `tokenizer.load_tokenizer` or `light_tokenizer.read_light_tokenizer` gives it.
        tokens: Truncation, stride, prompt and max_length, which must be a number.
        text_pair: The second text of each row, if rows are pairs.

    Raises:
        RecipeError: max_length leaves no room for text, or the stride is too large.
        DataError: A value is not a text.
    """
    assert tokens.max_length is not None, "the effective recipe has max_length filled in"
    with bar("tokenizing", len(texts), "texts") as advance:
        return tokenize(
            tokenizer,
            texts,
            max_length=tokens.max_length,
            truncation=tokens.truncation,
            stride=tokens.stride or 0,
            text_pair=text_pair,
            prompt=tokens.prompt,
            on_progress=advance,
        )


def compute_rows(
    compute: BatchFunction,
    encoded: Encoded,
    tokens: TokensConfig,
    *,
    title: str,
    shared: bool = False,
    most_padding: int | None = None,
) -> np.ndarray:
    """Compute something of all rows, batch by batch.

    Args:
        compute: What is computed of a batch.
        encoded: The rows.
        tokens: Padding, token_budget and max_length, which must be a number.
        title: What the progress bar says.
        shared: True if several processes take the batches in turn. Every one of them must call this, and each gets all
            results.
        most_padding: As in `batching.inference_plan`.

    Returns:
        float32 (rows, width), in the order of `encoded`.

    Raises:
        DeadlinePassed, Interrupted: see `stopping.check`.
    """
    lengths = padded_lengths(encoded, tokens)
    plan = inference_plan(lengths, token_budget=tokens.token_budget, most_padding=most_padding)
    processes = runtime.world_size() if shared else 1
    # every process computes the first batch: it gives the width, also to a process without a batch of its own
    mine = plan if processes == 1 else [*plan[:1], *plan[1:][runtime.rank() :: processes]]
    rounds = len(plan) if processes == 1 else 1 + -(-len(plan[1:]) // processes)
    out: np.ndarray | None = None
    with bar(title, len(encoded), "texts") as advance:
        for number in range(min(rounds, len(plan))):
            stopping.check(together=shared)  # in every round by all processes, also by one without a batch in it
            if number >= len(mine):
                continue
            rows = mine[number]
            values = compute(rows)
            if out is None:
                out = np.zeros((len(encoded), values.shape[1]), dtype=np.float32)
            # results are summed over the processes, so one process alone writes the first batch
            if number or processes == 1 or runtime.rank() == 0:
                out[rows] = values
            advance(len(rows))
    if out is None:
        return np.empty((0, 0), dtype=np.float32)
    return out if processes == 1 else ranks.sum_arrays_over_ranks(out)


def of_texts(rows: np.ndarray, encoded: Encoded, tokens: TokensConfig) -> np.ndarray:
    """Return the values of each text: those of its row, or of its windows pooled.

    Args:
        rows: float32 (rows, width).
        encoded: The rows that they were computed of.
        tokens: Its window_pooling is read.

    Returns:
        float32 (texts, width).
    """
    return rows if encoded.documents is None else pool_windows(rows, encoded.documents, tokens.window_pooling)


def pool_windows(values: np.ndarray, documents: np.ndarray, how: WindowPooling) -> np.ndarray:
    """Pool the values of each text's windows, column by column.

    Of logits, mean and max both commute with a temperature.

    Args:
        values: float32 (windows, width).
        documents: Which text each window is of, (windows,), ascending and without gaps.
        how: `mean` or `max`.

    Returns:
        float32 (texts, width).
    """
    starts = np.searchsorted(documents, np.arange(documents[-1] + 1 if len(documents) else 0))
    if how == "max":
        highest: np.ndarray = np.maximum.reduceat(values, starts, axis=0)
        return highest
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    counts = np.diff(np.append(starts, len(documents)))
    means: np.ndarray = (sums / counts[:, None]).astype(np.float32)
    return means


def padded_lengths(encoded: Encoded, tokens: TokensConfig) -> np.ndarray:
    """Return the tokens that each row takes in a batch, int64 (rows,): its own, or max_length if all are padded to it.

    Args:
        encoded: The rows.
        tokens: Padding and max_length.
    """
    if tokens.padding == "max_length":
        return np.full(len(encoded), tokens.max_length)
    return encoded.lengths
