"""Bundles are loaded from a hub by their id: only the listed files, checked, from the cache without network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.hub import TOKEN, Hub, Repo, serve_hub, use_hub

from fullbake import Classifier
from fullbake.classifier.hub_bundles import is_hub_id, local_bundle
from fullbake.classifier.sharing import copy_for_sharing
from fullbake.core.errors import BundleError


@pytest.fixture(scope="module")
def files(graph_bundles: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a shared bundle, by name."""
    folder = tmp_path_factory.mktemp("shared")
    shared = copy_for_sharing(graph_bundles("bert"), folder)
    return {name: (folder / name).read_bytes() for name in shared.files}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the bundle as `org/reviews`, among files that are none of its own."""
    with serve_hub() as running:
        running.repos["org/reviews"] = Repo(files | {".gitattributes": b"*", "evil.py": b"raise SystemExit"})
        use_hub(running, tmp_path / "cache", monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield running


def test_a_bundle_is_loaded_by_its_id_and_then_from_the_cache(
    hub: Hub, graph_bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["food and water", "a game"]
    loaded = Classifier.load("org/reviews")
    assert np.array_equal(loaded.logits(texts), Classifier.load(graph_bundles("bert")).logits(texts))
    assert not [request for request in hub.requests if "evil.py" in request or "gitattributes" in request]
    commit = hub.repos["org/reviews"].commit
    assert Classifier.load("org/reviews", revision=commit).label_names == loaded.label_names
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert Classifier.load("org/reviews").label_names == loaded.label_names
    assert len(hub.requests) == asked


def test_without_network_the_cache_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local_bundle("org/reviews")
    from huggingface_hub import constants

    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name).replace(hub.url, "http://127.0.0.1:9"))
    assert local_bundle("org/reviews") == folder
    with pytest.raises(BundleError, match=r"(?s)nor in the cache, and the hub cannot be reached.*HF_ENDPOINT"):
        local_bundle("org/other")


def test_a_local_folder_of_that_name_wins(hub: Hub, graph_bundles: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "reviews").symlink_to(graph_bundles("bert"))
    assert Classifier.load("org/reviews").record.seen
    assert hub.requests == []


def test_a_file_that_was_changed_is_refused(hub: Hub) -> None:
    hub.repos["org/reviews"].files["model.safetensors"] += b"x"
    with pytest.raises(BundleError, match=r"(?s)org/reviews on the hub, fetched to.*model\.safetensors.*Delete"):
        Classifier.load("org/reviews")


def test_a_manifest_that_was_changed_is_refused_before_any_other_file_is_fetched(hub: Hub) -> None:
    repo = hub.repos["org/reviews"]
    facts = json.loads(repo.files["fullbake.json"])
    facts["files"]["../../evil"] = facts["files"]["config.json"]
    repo.files["fullbake.json"] = json.dumps(facts).encode()
    with pytest.raises(BundleError, match="its own sha256 differs"):
        Classifier.load("org/reviews")
    assert not [request for request in hub.requests if "evil" in request or "config.json" in request]


def test_a_listed_file_that_is_missing_is_named(hub: Hub) -> None:
    del hub.repos["org/reviews"].files["probe.safetensors"]
    with pytest.raises(BundleError, match="a file that the bundle lists is missing in the repository"):
        Classifier.load("org/reviews")


def test_a_repository_that_holds_no_bundle_is_refused(hub: Hub) -> None:
    hub.repos["org/plain"] = Repo({"config.json": b"{}"})
    with pytest.raises(BundleError, match=r"(?s)holds no fullbake bundle.*--base org/plain"):
        Classifier.load("org/plain")


@pytest.mark.parametrize("revision", [None, "v2"])
def test_no_such_repository_or_revision(hub: Hub, revision: str | None) -> None:
    name = "org/reviews" if revision else "org/other"
    with pytest.raises(
        BundleError, match="no such revision" if revision else "neither such a folder here nor"
    ) as caught:
        Classifier.load(name, revision=revision)
    assert TOKEN not in str(caught.value)


def test_a_private_repository_needs_a_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch, token=None)
    with pytest.raises(BundleError, match="HF_TOKEN"):
        Classifier.load("org/reviews")


def test_a_revision_is_of_a_repository(graph_bundles: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="a revision belongs to a repository"):
        Classifier.load(graph_bundles("bert"), revision="main")


@pytest.mark.parametrize(
    ("word", "is_id"),
    [
        ("org/name", True),
        ("org/na.me-1_x", True),
        ("name", False),
        ("a/b/c", False),
        ("/org/name", False),
        ("../name", False),
        ("./name", False),
        ("org/", False),
        (Path("org/name"), False),
        ("org name/x", False),
    ],
)
def test_ids_differ_from_paths(word: str | Path, is_id: bool) -> None:
    assert is_hub_id(word) is is_id
