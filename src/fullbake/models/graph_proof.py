"""Prove that a graph computes what its network computes in torch, for many shapes of batches, before it is kept.

An exporter may fix a size that varies, mix up padding, or leave a branch out, and say nothing. So both compute the
packaged probe texts and rows of random tokens, in batches of several sizes and lengths with padding, and each text
alone. Every size and every length is tried; large batches of long rows are not, because on a large base they would take
minutes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fullbake.core.errors import BundleError
from fullbake.models.collation import collate
from fullbake.models.encoder import eval_mode
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.graph_export import logits_and_pooled
from fullbake.models.graph_session import run_graph
from fullbake.models.pretrained import first_line

GRAPH_TOLERANCE: Final = 1e-4
"""Largest difference between a graph and torch, as a share of the largest output, that fp32 rounding explains."""

BATCHES: Final = (1, 2, 7, 33)
LENGTHS: Final = (1, 2, 3, 7, 33, 128)
"""Tokens of the longest row of a batch. The longest row of the classifier is tried too."""

MOST_TOKENS: Final = 1_200
"""Tokens of a batch with padding at most; a single row may have more."""

_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GraphProof:
    """How far a graph is from torch."""

    difference: float
    """Largest difference of logits or pooled vectors between graph and torch, as a share of the largest of them."""

    alone: float
    """Largest difference of logits between a text alone and the same text in a batch, both computed by the graph."""

    batches: int
    """How many batches were compared."""


@dataclass(frozen=True)
class ProofRows:
    """What random rows are made of."""

    words: NDArray[np.int64]
    """Ids of tokens that are no special ones."""

    pad_id: int
    segments: bool
    longest: int
    """Tokens of the longest row that the classifier reads."""

    probe: Encoded
    """The probe texts."""


def prove_graph(network: PreTrainedModel, session: Any, rows: ProofRows) -> GraphProof:
    """Compare a graph with its network.

    Args:
        network: The classifier in fp32 on the CPU, without fast layers.
        session: The graph, as `graph_session.open_graph` gives it.
        rows: What to compute.

    Returns:
        How far they differ.

    Raises:
        BundleError: They differ by more than GRAPH_TOLERANCE, or the graph fails on a batch.
    """
    proof = _Comparison(network, session)
    with eval_mode(network), torch.inference_mode():
        for title, encoded in _batches(rows):
            proof.compare(title, _collate(encoded, np.arange(len(encoded)), rows.pad_id))
        proof.compare_alone(rows.probe, rows.pad_id)
    return proof.judge()


def _batches(rows: ProofRows) -> Iterator[tuple[str, Encoded]]:
    """Yield what each batch is, for errors, and its rows."""
    yield "the probe texts", rows.probe
    random = np.random.default_rng(0)
    for longest in sorted({min(length, rows.longest) for length in (*LENGTHS, rows.longest)}):
        for batch in BATCHES:
            if batch == 1 or batch * longest <= MOST_TOKENS:
                lengths = np.append(longest, random.integers(1, longest + 1, batch - 1))
                yield f"{batch} rows of up to {longest:,} tokens", _random_rows(rows, lengths, random)


def _random_rows(rows: ProofRows, lengths: NDArray[np.int64], random: np.random.Generator) -> Encoded:
    count = int(lengths.sum())
    ids = random.choice(rows.words, count).astype(np.int32)
    # the second half of each row is the second text of a pair
    places = np.concatenate([np.arange(length) >= (length + 1) // 2 for length in lengths])
    return Encoded(ids, row_offsets(lengths), places.astype(np.uint8) if rows.segments else None)


def _collate(encoded: Encoded, chosen: NDArray[np.int64], pad_id: int) -> dict[str, torch.Tensor]:
    return collate(encoded, chosen, pad_id=pad_id, padding="longest", max_length=None)


class _Comparison:
    """What both gave so far."""

    def __init__(self, network: PreTrainedModel, session: Any) -> None:
        self._network, self._session = network, session
        self._apart: dict[str, tuple[float, str]] = {}
        """Output, or `alone` -> the largest difference, and the batch that gave it."""
        self._scale: dict[str, float] = {}
        self._batches = 0

    def compare(self, title: str, inputs: Mapping[str, torch.Tensor]) -> None:
        """Compute a batch by both, and note how far they differ."""
        expected = {name: tensor.numpy() for name, tensor in logits_and_pooled(self._network, inputs).items()}
        found = self._run(title, inputs)
        self._batches += 1
        for name, array in expected.items():
            self._scale[name] = max(self._scale.get(name, 1e-6), float(np.abs(array).max()))
            same = found[name].shape == array.shape
            self._note(name, title, float(np.abs(found[name] - array).max()) if same else np.inf)

    def compare_alone(self, encoded: Encoded, pad_id: int) -> None:
        """Compute rows together and each by itself, all by the graph, and note how far the logits differ."""
        every = np.arange(len(encoded))
        together = self._run("the probe texts", _collate(encoded, every, pad_id))["logits"]
        for row in every:
            title = f"probe text {row + 1} alone"
            alone = self._run(title, _collate(encoded, every[row : row + 1], pad_id))["logits"]
            self._note("alone", title, float(np.abs(alone[0] - together[row]).max()))

    def _run(self, title: str, inputs: Mapping[str, torch.Tensor]) -> _Arrays:
        try:
            whole = {"attention_mask": torch.ones_like(inputs["input_ids"])} | dict(inputs)
            return run_graph(self._session, {name: tensor.numpy() for name, tensor in whole.items()})
        except Exception as error:  # its exceptions have no class in common but this one
            raise _refusal(title, "the graph fails", first_line(error)[:300]) from error

    def _note(self, name: str, title: str, apart: float) -> None:
        apart = math.inf if math.isnan(apart) else apart
        if apart > self._apart.get(name, (-1.0, ""))[0]:
            self._apart[name] = apart, title

    def judge(self) -> GraphProof:
        """Return what was found. Raise BundleError if a difference is too large."""
        shares = {}
        for name, (apart, title) in self._apart.items():
            share = apart / self._scale[name if name in self._scale else "logits"]
            if share > GRAPH_TOLERANCE:
                what = "a text alone gets other logits" if name == "alone" else f"the {name} differ from torch's"
                raise _refusal(title, what, f"a difference of {share:.2g}")
            shares[name] = share
        alone = shares.pop("alone", 0.0)
        return GraphProof(max(shares.values()), alone, self._batches)


def _refusal(title: str, what: str, got: str) -> BundleError:
    return BundleError(
        f"{what}, so the graph is not written",
        where=f"proof of the graph, {title}",
        expected=f"what torch computes, up to {GRAPH_TOLERANCE:g} of its scale",
        got=got,
        remedy="This family cannot be exported as it is. Score with torch: the bundle works without a graph.",
    )


def word_ids(tokenizer: Any, rows: int) -> NDArray[np.int64]:
    """Return the ids of a tokenizer that are no special tokens and have an embedding.

    Args:
        tokenizer: As `tokenizer.load_tokenizer` gives it.
        rows: Number of embeddings.
    """
    special: Sequence[int] = tokenizer.all_special_ids
    words = sorted({number for number in tokenizer.get_vocab().values() if number < rows} - set(special))
    return np.array(words or [tokenizer.pad_token_id], np.int64)
