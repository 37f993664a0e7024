"""The first token of a Longformer sees the whole text under `cls`: two texts that differ at the end alone differ."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bases import make_other_base
from helpers.rows import train

from fullbake import Classifier
from fullbake.config.sections import HeadConfig
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model
from fullbake.models.network import build_network, extract_head, features
from fullbake.training.finetuning import find_split_point

FILLING = "the people work and play at home with their money and a phone in the city " * 3
TEXTS = [FILLING + end for end in ("very good food", "very bad food")]


@pytest.fixture(scope="module")
def longformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_other_base("longformer", tmp_path_factory.mktemp("base"), attention_window=8, type_vocab_size=1)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("frozen-linear", {"pooling": "cls"}),
        ("frozen-mlp", {"pooling": "cls+mean"}),
        ("frozen-standard", {}),
        ("finetune", {"head": "linear", "pooling": "cls"}),
        ("finetune", {"head": "linear", "pooling": "cls", "freeze_layers": 1}),
    ],
)
def test_end_of_a_text_changes_its_logits(
    name: str, fields: dict[str, object], longformer: Path, tmp_path: Path
) -> None:
    classifier = train(longformer, tmp_path, name, max_length=96, **fields)
    first, second = classifier.logits(TEXTS)
    assert np.abs(first - second).max() > 1e-6  # without it they are equal, bit by bit
    classifier.save(tmp_path / "bundle")
    assert np.allclose(Classifier.load(tmp_path / "bundle").logits(TEXTS), [first, second], atol=1e-3)
    alone = np.concatenate([classifier.logits([text]) for text in (*TEXTS, "good")])
    assert np.allclose(alone, classifier.logits([*TEXTS, "good"]), atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "mlp", "standard"])
def test_head_on_features_gives_the_logits_of_the_whole_model(kind: str, longformer: Path) -> None:
    model = build_network(longformer, HeadConfig.model_validate(kind), ["a", "b"], seed=0)
    inputs = {"input_ids": torch.arange(5, 45).reshape(2, 20), "attention_mask": torch.ones(2, 20, dtype=torch.long)}
    inputs["attention_mask"][1, 12:] = 0
    with torch.no_grad():
        torch.testing.assert_close(extract_head(model)(features(model, inputs)), model(**inputs).logits)


def test_other_poolings_and_the_masked_lm_attend_locally_as_before(longformer: Path) -> None:
    ids = torch.arange(5, 45)[None]
    model = build_network(longformer, HeadConfig(kind="linear", pooling="mean"), ["a", "b"], seed=0)
    language_model = load_language_model(longformer, pairs=False, seed=0).network
    with torch.no_grad():
        plain = load_encoder(longformer)(ids).last_hidden_state
        assert torch.equal(features(model, {"input_ids": ids}), plain.mean(1))
        assert torch.equal(language_model.hidden({"input_ids": ids}), plain)


def test_base_is_not_split_above_frozen_layers(longformer: Path) -> None:
    model = build_network(longformer, HeadConfig(kind="linear", pooling="cls"), ["a", "b"], seed=0)
    assert find_split_point(model, 1) is None
