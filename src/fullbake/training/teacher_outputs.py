"""What a student learns from: its teacher's logits of many texts, and the teacher's mean state of each token.

One pass computes both. It is the long part of a distillation, so what is done is kept in the cache after each part:
the logits, and the sums of the states so far. A killed run continues after the last part, with the same bits, because
the sums grow in the same order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullbake.config.sections import TokensConfig
from fullbake.core import runtime, stopping, storage
from fullbake.core.cache import Cache, made_again
from fullbake.core.console import bar, say
from fullbake.core.hashing import fingerprint
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import Encoded
from fullbake.models.fast_layers import fast_layers
from fullbake.models.inference import batch_inputs
from fullbake.models.prediction import padded_lengths

BATCHES_BETWEEN_SAVES: Final = 64
"""Forward passes after which the results so far are kept; about half a minute on one core."""

_FILE: Final = "outputs.safetensors"


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """The outputs of a teacher for rows of token ids."""

    logits: NDArray[np.float32]
    """(rows, classes)."""

    token_ids: NDArray[np.int64]
    """The ids that occur, ascending, (ids,)."""

    token_counts: NDArray[np.int64]
    """How often each of them occurs, (ids,)."""

    token_states: NDArray[np.float32]
    """The mean of the last hidden states of each of them, (ids, width)."""


def network_fingerprint(network: nn.Module) -> str:
    """Return the sha256, in hex, of all weights of a network by name."""
    return fingerprint({name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()})


def teacher_outputs(
    network: Any, encoded: Encoded, *, tokens: TokensConfig, pad_id: int, teacher: str, cache: Cache
) -> TeacherOutputs:
    """Run a teacher over rows of token ids, or take its outputs from the cache.

    Args:
        network: The teacher, a classifier of transformers in eval mode.
        encoded: The rows; of long texts each window is a row.
        tokens: Padding, token_budget and max_length.
        pad_id: The tokenizer's padding id.
        teacher: Fingerprint of the network.
        cache: Where the outputs are kept.

    Raises:
        Interrupted: A signal asked to stop. What is done is kept for the next attempt.
        SpaceFault: The disk of the cache is full.
    """
    types = encoded.token_type_ids
    ids = fingerprint(encoded.input_ids, encoded.offsets, None if types is None else types)
    settings = tokens.padding, tokens.max_length, tokens.token_budget
    key = f"teacher-{fingerprint(teacher, ids, settings, runtime.threads(), list(runtime.versions().items()))}"
    folder = cache.get(key)
    if folder is not None:
        say(f"teacher's scores: {len(encoded):,} rows found in the cache ({cache.root})")
        return _outputs(storage.read_tensors(folder / _FILE))
    work = _Pass(network, encoded, tokens, pad_id)
    with stopping.interruptible():
        return made_again(lambda: _kept(cache, key, work))


def _kept(cache: Cache, key: str, work: "_Pass") -> TeacherOutputs:
    """Run the pass within the folder of its cache entry."""
    title = f"teacher's scores: {len(work.encoded):,} rows"
    with cache.put_resumable(key, title, work.size) as folder:
        found = None if folder is None else work.run(folder)
    if found is None:  # another process has made the entry meanwhile
        place = cache.get(key)
        assert place is not None
        found = storage.read_tensors(place / _FILE)
    return _outputs(found)


def _outputs(arrays: dict[str, np.ndarray]) -> TeacherOutputs:
    counts = arrays["counts"]
    means = arrays["sums"] / np.maximum(counts, 1)[:, None].astype(np.float32)
    return TeacherOutputs(arrays["logits"], arrays["ids"], counts, means.astype(np.float32, copy=False))


class _Pass:
    """One pass over all rows, in parts that are kept one after another."""

    def __init__(self, network: Any, encoded: Encoded, tokens: TokensConfig, pad_id: int) -> None:
        self.network, self.encoded, self.tokens, self.pad_id = network, encoded, tokens, pad_id
        self.plan = inference_plan(padded_lengths(encoded, tokens), token_budget=tokens.token_budget)
        self.ids, counts = np.unique(encoded.input_ids, return_counts=True)
        self.counts = counts.astype(np.int64)
        self.place = np.zeros(int(self.ids.max(initial=0)) + 1, np.int64)
        self.place[self.ids] = np.arange(len(self.ids))

    @property
    def size(self) -> int:
        """Bytes of the kept results, twice: a new file is written before the old one is replaced."""
        width, classes = self.network.base_model.config.hidden_size, self.network.config.num_labels
        return 2 * 4 * int(len(self.ids) * width + len(self.encoded) * classes)

    def run(self, folder: Path) -> dict[str, np.ndarray]:
        """Compute what the folder does not hold yet, and return everything."""
        arrays = self._start(folder)
        with bar("teacher's scores", len(self.encoded), "texts") as advance, capture_states(self.network) as states:
            for start in range(0, len(self.plan), BATCHES_BETWEEN_SAVES):
                part = self.plan[start : start + BATCHES_BETWEEN_SAVES]
                if start >= int(arrays["done"][0]):
                    for rows in part:
                        self._add(rows, states, arrays)
                    arrays["done"][0] = start + len(part)
                    with storage.staged_file(folder / _FILE, overwrite=True) as fresh:
                        storage.write_tensors(fresh, arrays)
                advance(sum(map(len, part)))
        return arrays

    def _start(self, folder: Path) -> dict[str, np.ndarray]:
        if (folder / _FILE).is_file():
            return {name: array.copy() for name, array in storage.read_tensors(folder / _FILE).items()}
        width, classes = self.network.base_model.config.hidden_size, self.network.config.num_labels
        return {
            "ids": self.ids.astype(np.int64),
            "counts": self.counts,
            "sums": np.zeros((len(self.ids), width), np.float32),
            "logits": np.zeros((len(self.encoded), classes), np.float32),
            "done": np.zeros(1, np.int64),
        }

    @torch.inference_mode()
    def _add(self, rows: np.ndarray, states: list[Tensor], arrays: dict[str, np.ndarray]) -> None:
        """Add one batch to the results."""
        stopping.check()
        device = runtime.device()
        inputs = batch_inputs(self.encoded, rows, tokens=self.tokens, pad_id=self.pad_id, device=device)
        states.clear()
        arrays["logits"][rows] = self.network(**inputs).logits.float().cpu().numpy()
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        places = torch.from_numpy(self.place[inputs["input_ids"][mask].cpu().numpy()])
        torch.from_numpy(arrays["sums"]).index_add_(0, places, states[0][mask].float().cpu())


@contextmanager
def capture_states(network: Any) -> Iterator[list[Tensor]]:
    """Collect the last hidden states (rows, tokens, width) of each forward pass within the block.

    Args:
        network: A classifier of transformers; it computes the states of all tokens within the block.

    Yields:
        A list that grows by one entry a pass; the caller empties it.
    """
    states: list[Tensor] = []

    def note(_: nn.Module, __: object, output: Any) -> None:
        states.append(output.last_hidden_state)

    hook = network.base_model.register_forward_hook(note)
    try:
        with fast_layers(network, first_token=False, packed=True):
            yield states
    finally:
        hook.remove()
