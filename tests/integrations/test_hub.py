"""A push sends what it listed, in one commit, with a card that hubs can read; it refuses what could hurt."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.hub import TOKEN, Hub, Repo, serve_hub, use_hub

from fullbake import Classifier
from fullbake.core.errors import OutputError, RecipeError
from fullbake.integrations.hub import (
    CardFacts,
    base_on_hub,
    card_with_metadata,
    model_index,
    prepared_push,
    push_bundle,
    split_card,
)

Bundles = Callable[..., Path]
SCORE = {"value": 0.86, "low": 0.8123, "high": 0.9, "reason": None}
FACTS: dict[str, Any] = {
    "recipe": {"base": "google/bert", "training": {"metric": "recall_macro"}},
    "data": {"source": {"test": "reviews.csv"}},
    "metrics": {
        "validation": {"rows": 10, "overall": {}},
        "test": {
            "rows": 1234,
            "overall": {"recall_macro": SCORE, "accuracy": SCORE | {"low": None}, "f1_macro": SCORE | {"value": None}},
        },
    },
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as running:
        use_hub(running, tmp_path / "cache", monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield running


def test_a_pushed_bundle_is_loaded_again(hub: Hub, graph_bundles: Bundles) -> None:
    bundle = graph_bundles("bert")
    address = push_bundle(bundle, "org/reviews", card=CardFacts("mit", ["en"], ["food"]), message="First")
    repo = hub.repos["org/reviews"]
    assert address == f"{hub.url}/org/reviews"
    assert (repo.private, repo.messages) == (True, ["First"])
    assert set(repo.files) == {path.name for path in bundle.iterdir()} - {"seen.safetensors"}
    assert Classifier.load("org/reviews").label_names == ("food", "game", "money")
    head, body = split_card(repo.files["README.md"].decode())
    assert (head["license"], head["language"], head["tags"]) == ("mit", ["en"], ["fullbake", "food"])
    assert head["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert 'Classifier.load("org/reviews")' in body


def test_a_second_push_replaces_the_first(hub: Hub, graph_bundles: Bundles) -> None:
    push_bundle(graph_bundles("bert"), "org/reviews", private=False, seen=True)
    assert not hub.repos["org/reviews"].private
    with prepared_push(graph_bundles("bert"), "org/reviews") as push:
        assert (push.exists, push.private, push.removed) == (True, False, ("seen.safetensors",))
    push_bundle(graph_bundles("bert"), "org/reviews")
    assert "seen.safetensors" not in hub.repos["org/reviews"].files
    assert len(hub.repos["org/reviews"].messages) == 2


def test_nothing_is_sent_before_it_is_asked_for(hub: Hub, graph_bundles: Bundles) -> None:
    with prepared_push(graph_bundles("bert"), "org/reviews") as push:
        assert push.shared.left_out == ("seen.safetensors",)
        assert "seen.safetensors" not in push.sizes
        assert push.sizes["README.md"] == (push.shared.folder / "README.md").stat().st_size
    assert {request.split()[0] for request in hub.requests} == {"GET"}
    assert hub.repos == {}


def test_another_model_is_not_overwritten(hub: Hub, graph_bundles: Bundles) -> None:
    hub.repos["org/plain"] = Repo({"pytorch_model.bin": b"x", "README.md": b""})
    with pytest.raises(
        OutputError, match=r"(?s)something else than a fullbake bundle.*pytorch_model\.bin.*--overwrite"
    ):
        push_bundle(graph_bundles("bert"), "org/plain")
    push_bundle(graph_bundles("bert"), "org/plain", overwrite=True)
    assert "pytorch_model.bin" in hub.repos["org/plain"].files
    hub.repos["org/empty"] = Repo({".gitattributes": b""})
    push_bundle(graph_bundles("bert"), "org/empty")


@pytest.mark.parametrize("token", [TOKEN, None, "hf_anotheronethanthat"])
def test_without_rights_nothing_is_sent_and_no_token_is_shown(
    hub: Hub, graph_bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch, token=token)
    name = "others/reviews" if token == TOKEN else "org/reviews"
    if token != TOKEN:
        hub.repos[name] = Repo(private=False)
    with pytest.raises(OutputError, match="HF_TOKEN") as caught:
        push_bundle(graph_bundles("bert"), name)
    assert TOKEN not in str(caught.value)
    assert token is None or token not in str(caught.value)


def test_without_network_a_push_says_so(hub: Hub, graph_bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match="the hub cannot be reached"):
        push_bundle(graph_bundles("bert"), "org/reviews")


@pytest.mark.parametrize("repo", ["reviews", "a/b/c", "../x", "/tmp/x", ""])
def test_what_is_no_id_is_refused(graph_bundles: Bundles, repo: str) -> None:
    with pytest.raises(RecipeError, match="not the id of a repository"):
        push_bundle(graph_bundles("bert"), repo)


def test_scores_are_those_of_test_with_interval_and_rows() -> None:
    (model,) = model_index(FACTS, "org/reviews") or ()
    (result,) = model["results"]
    assert model["name"] == "reviews"
    assert result["dataset"] == {"name": "reviews.csv", "type": "reviews.csv", "split": "test"}
    recall, accuracy = result["metrics"]
    assert recall == {
        "type": "recall",
        "name": "recall_macro, 1,234 test rows, 95% interval 0.812 to 0.900",
        "value": 0.86,
        "args": {"rows": 1234, "average": "macro", "interval": [0.8123, 0.9]},
    }
    assert accuracy["args"] == {"rows": 1234}
    assert model_index({"recipe": FACTS["recipe"]}, "org/x") is None


def test_metadata_that_the_author_wrote_stay() -> None:
    text = "---\nlibrary_name: mine\nthumbnail: x.png\ntags: [own]\n---\n# Title\n---\nrest\n"
    made = card_with_metadata(text, FACTS, "org/reviews", CardFacts())
    head, body = split_card(made)
    assert body == "# Title\n---\nrest\n"
    assert (head["library_name"], head["thumbnail"], head["tags"]) == ("mine", "x.png", ["own", "fullbake"])
    assert head["base_model"] == "google/bert"
    assert "license" not in head
    assert yaml.safe_load(made.split("---\n")[1]) == head


@pytest.mark.parametrize("text", ["", "# no metadata", "---\n[1\n---\nx", "---\nonly\n"])
def test_cards_without_metadata_get_some(text: str) -> None:
    head, _ = split_card(card_with_metadata(text, FACTS, "org/reviews", CardFacts()))
    assert head["pipeline_tag"] == "text-classification"


def test_the_base_is_named_where_it_is_on_the_hub() -> None:
    bases = {"demo": "sentence-transformers/all-MiniLM-L6-v2", "org/base": "org/base", "folder": None, "a/b/c": None}
    assert {name: base_on_hub({"recipe": {"base": name}}) for name in bases} == bases
