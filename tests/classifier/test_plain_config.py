"""Only configs whose every field is known are scored without transformers."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fullbake.classifier.plain_config import is_plain_config

FIXTURES = Path(__file__).parents[1] / "fixtures"
OWN, DISTIL = (
    json.loads((FIXTURES / name / "config.json").read_bytes()) for name in ("bundle_0_1_0", "bundle_0_1_0_multilabel")
)


def test_configs_of_bundles_are_plain() -> None:
    assert is_plain_config(OWN)
    assert is_plain_config(DISTIL)
    assert is_plain_config(DISTIL | {"gradient_checkpointing": False, "position_embedding_type": "absolute"})


@pytest.mark.parametrize(
    "change",
    [
        {"later": 1},
        {"model_type": "roberta"},
        {"activation": "relu"},
        {"dim": True},
        {"dim": 32.0},
        {"n_layers": -1},
        {"dropout": 7},
        {"dropout": None},
        {"dtype": "gelu"},
        {"initializer_range": 1},
        {"pad_token_id": 279},
        {"chunk_size_feed_forward": 7},
        {"is_decoder": True},
        {"id2label": [1]},
        {"label2id": {"a": "b"}},
        {"architectures": [1]},
        {"num_labels": 3},
    ],
)
def test_a_field_of_another_kind_is_not_plain(change: dict[str, Any]) -> None:
    assert not is_plain_config(DISTIL | change)


@pytest.mark.parametrize("change", [{"head": "later"}, {"pooling": 7}, {"layers": -1}, {"encoder": {}}, {"encoder": 7}])
def test_a_head_of_another_kind_is_not_plain(change: dict[str, Any]) -> None:
    assert not is_plain_config(OWN | change)


@pytest.mark.parametrize("name", ["model_type", "encoder", "vocab_size", "activation", "pooling"])
def test_a_field_that_is_left_out_raises_nothing(name: str) -> None:
    for config in (OWN, DISTIL):
        left = {field: value for field, value in config.items() if field != name}
        if name == "model_type" or (name == "encoder" and config is OWN):
            assert not is_plain_config(left)
        else:
            is_plain_config(left)


def test_an_encoder_within_an_encoder_is_not_plain() -> None:
    nested = copy.deepcopy(OWN)
    nested["encoder"] = OWN
    assert not is_plain_config(nested)
