"""What is stored of trials is read back unchanged, or made again."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fullbake.comparison.artifacts import Artifact, ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "cells")


ARTIFACT = Artifact({"value": 0.5, "history": [{"epoch": 1}]}, {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)})


def test_stored_artifact_is_read_unchanged(store: ArtifactStore) -> None:
    store.write("finetune/5e-05/0", "trained", "one", ARTIFACT)
    found = store.read("finetune/5e-05/0", "trained", "one")
    assert found is not None
    assert found.facts == ARTIFACT.facts
    np.testing.assert_array_equal(found.arrays["logits"], ARTIFACT.arrays["logits"])
    assert store.read("finetune/5e-05/0", "scored", "one") is None
    assert store.read("finetune/5e-05/1", "trained", "one") is None


def test_artifact_of_another_identity_is_ignored_and_replaced(store: ArtifactStore) -> None:
    store.write("a/only/0", "trained", "one", ARTIFACT)
    assert store.read("a/only/0", "trained", "two") is None
    store.write("a/only/0", "trained", "two", Artifact({"value": 1.0}, {}))
    found = store.read("a/only/0", "trained", "two")
    assert found is not None
    assert found.facts == {"value": 1.0}


def test_damaged_artifact_is_reported_and_ignored(store: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    store.write("a/only/0", "trained", "one", ARTIFACT)
    path = store.folder("a/only/0") / "trained" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert store.read("a/only/0", "trained", "one") is None
    assert "trial a/only/0 is damaged on disk and will be run again" in caplog.text


def test_artifact_can_be_removed_twice(store: ArtifactStore) -> None:
    store.write("a/only/0", "weights", "one", ARTIFACT)
    store.remove("a/only/0", "weights")
    store.remove("a/only/0", "weights")
    assert store.read("a/only/0", "weights", "one") is None
