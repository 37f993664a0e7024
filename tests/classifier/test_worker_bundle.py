"""A worker loads a bundle once, and only the one that was sent."""

import shutil
from pathlib import Path

import pytest
from helpers.served_models import BUNDLE

from fullbake.classifier import worker_bundle
from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.worker_bundle import (
    WorkerBundle,
    check_scoring_versions,
    load_worker_bundle,
    scoring_versions,
)
from fullbake.core.errors import BundleError, Error


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_bundle, "_loaded", {})


def test_a_bundle_is_loaded_once() -> None:
    bundle = WorkerBundle(bundle_digest(BUNDLE), "torch")
    first = load_worker_bundle(bundle, BUNDLE)
    assert load_worker_bundle(bundle, Path("gone")) is first
    assert len(first.predict(["a text"])) == 1


def test_another_or_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    bundle = WorkerBundle("0" * 64)
    with pytest.raises(BundleError, match=r"(?s)cannot see the bundle.*same path"):
        load_worker_bundle(bundle, tmp_path / "gone")
    shutil.copytree(BUNDLE, tmp_path / "other")
    with pytest.raises(BundleError, match=r"(?s)another bundle than the driver.*000000000000"):
        load_worker_bundle(bundle, tmp_path / "other")


def test_another_version_is_refused_and_a_missing_library_is_not() -> None:
    here = scoring_versions()
    assert "fullbake" in here
    check_scoring_versions(here | {"a library that is missing here": "1"})
    with pytest.raises(Error, match=r"(?s)other versions than the driver.*tokenizers 0\.0\.1.*pip install"):
        check_scoring_versions(here | {"tokenizers": "0.0.1"})
