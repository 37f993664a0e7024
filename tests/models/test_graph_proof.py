"""A graph that computes something else than its network, for any shape of batch, is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feature_extraction import encoded as encode_rows

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BundleError
from fullbake.models.graph_export import logits_and_pooled
from fullbake.models.graph_proof import BATCHES, GraphProof, ProofRows, prove_graph, word_ids
from fullbake.models.network import build_network
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]
Change = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], object]


class FakeSession:
    """A graph that is the network itself, up to a change of what it gives for some batches."""

    def __init__(self, network: Any, change: Change) -> None:
        self.network, self.change = network, change
        self.seen: list[tuple[int, ...]] = []

    def get_inputs(self) -> list[Any]:
        return [_Named("input_ids"), _Named("attention_mask"), _Named("token_type_ids")]

    def get_outputs(self) -> list[Any]:
        return [_Named("logits"), _Named("pooled")]

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen.append(inputs["input_ids"].shape)
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        found = {name: tensor.numpy().copy() for name, tensor in logits_and_pooled(self.network, given).items()}
        self.change(inputs, found)
        return [found[name] for name in names]


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture(scope="module")
def network(bases: Bases) -> Any:
    return build_network(bases("bert"), HeadConfig(kind="linear"), ("a", "b"), seed=0)


@pytest.fixture(scope="module")
def rows(bases: Bases) -> ProofRows:
    tokenizer = load_tokenizer(bases("bert"))
    probe = encode_rows([[5, 6, 7, 8], [9, 10]], [[0, 0, 1, 1], [0, 0]])
    return ProofRows(word_ids(tokenizer, 10_000), tokenizer.pad_token_id, True, 50, probe)


def prove(network: Any, rows: ProofRows, change: Change) -> GraphProof:
    return prove_graph(network, FakeSession(network, change), rows)


def test_equal_graph_passes_over_all_batches_and_lengths(network: Any, rows: ProofRows) -> None:
    session = FakeSession(network, lambda *_: None)
    proof = prove_graph(network, session, rows)
    assert proof.difference < 1e-5
    assert proof.alone < 1e-5
    assert {batch for batch, _ in session.seen} >= set(BATCHES)
    assert {length for _, length in session.seen} >= {1, 2, 3, 7, 33, 50}
    assert (33, 33) in session.seen


def test_random_rows_have_padding_words_and_both_segments(network: Any, rows: ProofRows) -> None:
    seen: list[dict[str, np.ndarray]] = []
    prove(network, rows, lambda inputs, _: seen.append(inputs))
    large = next(inputs for inputs in seen if inputs["input_ids"].shape == (33, 33))
    assert 0 < large["attention_mask"].mean() < 1
    assert set(np.unique(large["token_type_ids"])) == {0, 1}
    assert rows.pad_id not in rows.words


def wrong_for(test: Callable[[dict[str, np.ndarray]], Any], name: str = "logits", by: float = 0.1) -> Change:
    def change(inputs: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
        if test(inputs):
            found[name][-1] += by

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_for(lambda inputs: inputs["input_ids"].shape == (7, 33)), "7 rows of up to 33 tokens"),
        (wrong_for(lambda inputs: inputs["input_ids"].shape[1] == 1), "rows of up to 1 tokens"),
        (wrong_for(lambda inputs: not inputs["attention_mask"].all()), "the logits differ from torch's"),
        (wrong_for(lambda inputs: True, "pooled"), "the pooled differ from torch's"),
        (wrong_for(lambda inputs: inputs["input_ids"].shape == (1, 50), by=np.nan), "a difference of inf"),
        (wrong_for(lambda inputs: inputs["input_ids"].shape == (1, 4)), "probe text 1 alone"),
        (lambda inputs, found: found.update(logits=found["logits"][:, :1]), "a difference of inf"),
    ],
)
def test_wrong_graph_is_found(change: Change, words: str, network: Any, rows: ProofRows) -> None:
    with pytest.raises(BundleError, match=r"so the graph is not written") as error:
        prove(network, rows, change)
    assert words in str(error.value)


def test_graph_that_fails_on_a_batch_is_refused(network: Any, rows: ProofRows) -> None:
    def fail(inputs: dict[str, np.ndarray], _: object) -> None:
        if inputs["input_ids"].shape[0] == 7:
            raise RuntimeError("[ONNXRuntimeError] the shapes do not fit")

    with pytest.raises(BundleError, match="the graph fails") as error:
        prove(network, rows, fail)
    assert "7 rows of up to 1 tokens" in str(error.value)


def test_rows_without_segments_have_none(network: Any, rows: ProofRows) -> None:
    plain = replace(rows, segments=False, probe=encode_rows([[5, 6, 7], [8]]))
    session = FakeSession(network, lambda *_: None)
    session.get_inputs = lambda: [_Named("input_ids"), _Named("attention_mask")]  # type: ignore[method-assign]
    assert prove_graph(network, session, plain).batches > 10
