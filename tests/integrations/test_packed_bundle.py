"""A classifier is carried as the files of its bundle, and only a whole and known form is read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import train

from fullbake import Classifier
from fullbake.core.errors import BundleError
from fullbake.integrations.packed_bundle import pack_bundle, unpack_bundle


@pytest.fixture(scope="module")
def classifier(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def packed(classifier: Classifier) -> dict[str, Any]:
    return pack_bundle(classifier)


def test_the_same_scores_come_back(classifier: Classifier, packed: dict[str, Any]) -> None:
    texts = ["good food and water", "the team play a game"]
    assert np.allclose(unpack_bundle(packed).predict_proba(texts), classifier.predict_proba(texts), atol=1e-6)
    assert all(content.dtype == np.uint8 for content in packed["files"].values())
    assert not any(name.endswith((".png", ".md")) for name in packed["files"])


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a\\b", "C:x", "a/../../b", "a\0b"])
def test_names_outside_the_bundle_are_refused(packed: dict[str, Any], name: str) -> None:
    with pytest.raises(BundleError, match="outside its bundle"):
        unpack_bundle(packed | {"files": packed["files"] | {name: np.zeros(1, np.uint8)}})


def test_another_format_is_refused(packed: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="another version"):
        unpack_bundle(packed | {"format": 2})


def test_a_missing_file_is_refused(packed: dict[str, Any]) -> None:
    files = {name: content for name, content in packed["files"].items() if name != "tokenizer.json"}
    with pytest.raises(BundleError):
        unpack_bundle(packed | {"files": files})
