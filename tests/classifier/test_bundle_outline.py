"""The outline of a bundle says of its predictions what the loaded classifier does."""

from pathlib import Path

import pytest
from helpers.served_models import BUNDLE

from fullbake import Classifier
from fullbake.classifier.bundle_outline import bundle_digest, read_outline
from fullbake.core.errors import BundleError

MANY = BUNDLE.with_name("bundle_0_1_0_multilabel")


@pytest.mark.parametrize("folder", [BUNDLE, MANY], ids=lambda folder: folder.name)
def test_outline_is_that_of_the_loaded_classifier(folder: Path) -> None:
    outline, classifier = read_outline(folder), Classifier.load(folder)
    assert outline.label_names == classifier.label_names
    assert outline.problem is classifier.problem
    assert outline.columns == classifier.columns
    assert outline.decision == classifier.decision
    assert not outline.cascade


def test_digest_changes_with_the_description(tmp_path: Path) -> None:
    (tmp_path / "fullbake.json").write_bytes((BUNDLE / "fullbake.json").read_bytes())
    assert bundle_digest(tmp_path) == bundle_digest(BUNDLE) == read_outline(BUNDLE).digest
    with (tmp_path / "fullbake.json").open("a") as file:
        file.write("\n")
    assert bundle_digest(tmp_path) != bundle_digest(BUNDLE)


def test_a_folder_without_a_bundle_and_a_missing_int8_graph_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a fullbake bundle"):
        bundle_digest(tmp_path)
    with pytest.raises(BundleError, match=r"(?s)no int8 graph.*--precision"):
        read_outline(BUNDLE, "int8")
