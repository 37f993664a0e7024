"""`to_transformers` gives a model and a tokenizer with which a pipeline scores as the classifier does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.counting import counting_classifier
from helpers.rows import make_rows, train
from transformers import BertForSequenceClassification, pipeline

from fullbake import Classifier
from fullbake.classifier.model import FirstAnswers
from fullbake.core import extras
from fullbake.core.errors import BundleError, MissingExtraError
from fullbake.evaluation.agreement import CascadeThreshold
from fullbake.models.network import EncoderForTextClassification

Bases = Callable[..., Path]
TEXTS = [*(text for text, _ in make_rows(5, seed=4)), "game " * 100]


def parity(classifier: Classifier) -> None:
    model, tokenizer = classifier.to_transformers()
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)
    scored = classify(TEXTS, truncation=True, top_k=None)
    names = classifier.label_names
    rows = [[{entry["label"]: entry["score"] for entry in row}[name] for name in names] for row in scored]
    np.testing.assert_allclose(rows, classifier.predict_proba(TEXTS), atol=1e-5)


@pytest.fixture(scope="module")
def standard(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("standard"), "frozen-standard")


def test_standard_head_is_the_architectures_own_class(standard: Classifier) -> None:
    parity(standard)
    model, _ = standard.to_transformers()
    assert type(model) is BertForSequenceClassification


def test_copies_may_be_changed(standard: Classifier) -> None:
    before = standard.logits(TEXTS)
    model, tokenizer = standard.to_transformers()
    model.train()
    for tensor in model.parameters():
        tensor.data.zero_()
    tokenizer.add_tokens(["goal"])
    np.testing.assert_array_equal(standard.logits(TEXTS), before)


def test_other_heads_are_our_class_and_a_line_says_so(
    graph_bundles: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier.load(graph_bundles("bert"), engine="torch")
    with caplog.at_level("INFO", "fullbake"):
        parity(classifier)
    assert "EncoderForTextClassification" in caplog.text
    assert type(classifier.to_transformers()[0]) is EncoderForTextClassification


def test_engine_without_a_network_is_refused(
    graph_bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"engine='torch'"):
        Classifier.load(graph_bundles("bert"), engine="onnx").to_transformers()


def test_cascade_is_two_models(standard: Classifier) -> None:
    cascade = standard.with_first(FirstAnswers(standard, CascadeThreshold(0.5, 9, 5, 0, 0.1, 0.9)))
    with pytest.raises(BundleError, match=r"with_first\(None\)"):
        cascade.to_transformers()


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    monkeypatch.delitem(sys.modules, "fullbake.classifier.transformers_model", raising=False)
    real = builtins.__import__

    def missing(name: str, *rest: object, **named: object) -> object:
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"fullbake\[train\]"):
        counting_classifier().to_transformers()
    assert extras.EXTRAS["transformers"] == "train"
