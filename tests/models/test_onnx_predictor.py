"""The graph in onnxruntime scores as torch does: alone, in any batch, with any padding, in windows, in many threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import make_rows

from fullbake import Classifier
from fullbake.config.sections import TokensConfig
from fullbake.core.errors import BundleError
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.graph_check import read_checked_graph
from fullbake.models.onnx_predictor import OnnxPredictor
from fullbake.models.prediction import encode

Bundles = Callable[..., Path]
TEXTS = [*(text for text, _ in make_rows(20, seed=5)), "", "game " * 300]
SETTINGS: list[dict[str, Any]] = [{"token_budget": 1}, {"token_budget": 100_000}, {"padding": "max_length"}]


def engines(folder: Path) -> tuple[Classifier, Classifier]:
    return Classifier.load(folder, engine="torch"), Classifier.load(folder, engine="onnx")


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", {"pooling": "mean"}),
        ("roberta", {"pooling": "cls", "truncation": "windows", "max_length": 24, "stride": 4}),
    ],
)
def test_scores_equal_those_of_torch(graph_bundles: Bundles, family: str, fields: dict[str, Any]) -> None:
    torch, onnx = engines(graph_bundles(family, **fields))
    assert (torch.engine, onnx.engine) == ("torch", "onnx")
    expected = torch.predict_proba(TEXTS)
    assert expected.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(onnx.predict_proba(TEXTS), expected, atol=1e-5)
    alone = np.concatenate([onnx.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    encoded = encode(TEXTS, onnx.tokenizer, onnx.tokens)
    logits = torch.predictor.logits(encoded, torch.tokens)
    for changed in SETTINGS:
        tokens = onnx.tokens.model_copy(update=changed)
        np.testing.assert_allclose(onnx.predictor.logits(encoded, tokens), logits, atol=1e-4)
    pooled = torch.predictor.pooled(encoded, torch.tokens)
    np.testing.assert_allclose(onnx.predictor.pooled(encoded, onnx.tokens), pooled, atol=1e-4)
    assert pooled.shape == (len(TEXTS), 32)
    assert onnx.predict(TEXTS).tolist() == torch.predict(TEXTS).tolist()


def test_eight_threads_get_the_bits_of_one(graph_bundles: Bundles) -> None:
    classifier = Classifier.load(graph_bundles("bert", pooling="mean"), engine="onnx")
    parts = [TEXTS[start : start + 5] for start in range(0, len(TEXTS), 5)] * 16
    alone = [classifier.logits(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(classifier.logits, parts))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_one_batch_of_arrays_needs_no_segments(graph_bundles: Bundles) -> None:
    folder = graph_bundles("bert", pooling="mean")
    predictor = OnnxPredictor(read_checked_graph(folder, classes=3), folder, 0, threads=1)
    ids = np.array([[2, 7, 9, 3]], np.int64)
    found = predictor.run_batch({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert found["logits"].shape == (1, 3)
    assert found["pooled"].shape == (1, 32)
    assert found["logits"].dtype == np.float32


@pytest.mark.parametrize(("ids", "length"), [([10**6, 1, 2, 3], 4), ([1] * 600, 600)])
def test_text_for_which_there_are_no_weights_is_refused(graph_bundles: Bundles, ids: list[int], length: int) -> None:
    predictor = Classifier.load(graph_bundles("bert", pooling="mean"), engine="onnx").predictor
    encoded = Encoded(np.array(ids, np.int32), row_offsets(np.array([length])), np.zeros(length, np.uint8))
    with pytest.raises(BundleError, match="cannot run the graph"):
        predictor.logits(encoded, TokensConfig(max_length=length))
