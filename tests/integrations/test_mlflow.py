"""A bundle as an MLflow model: loaded by MLflow, served over HTTP by its own app, and loaded back as a classifier."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.rows import train

from fullbake import Classifier
from fullbake.core import extras
from fullbake.core.errors import BundleError, MissingExtraError
from fullbake.integrations import mlflow as bridge

TEXTS = ["food and water", "a game with a team", "the bank"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's own imports


@pytest.fixture(scope="module")
def bundle(graph_bundles: Callable[..., Path]) -> Path:
    return graph_bundles("bert")


@pytest.fixture(scope="module")
def model(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the saved model."""
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    bridge.save_model(bundle, folder)
    return folder


def test_the_model_predicts_what_the_classifier_does(bundle: Path, model: Path) -> None:
    from mlflow import pyfunc

    classifier = Classifier.load(bundle)
    loaded = pyfunc.load_model(str(model))
    found = loaded.predict(pd.DataFrame({"text": TEXTS}))
    assert found["predicted"].tolist() == list(classifier.predict(TEXTS))
    np.testing.assert_allclose(found["score"], classifier.predict_proba(TEXTS).max(axis=1), rtol=1e-6)
    scored = loaded.predict(pd.DataFrame({"text": TEXTS}), params={"scores": True})
    assert list(scored)[2:] == ["score:food", "score:game", "score:money"]


def test_nothing_is_pickled_and_hashes_stay_behind(model: Path) -> None:
    names = {path.name for path in model.rglob("*")}
    assert "seen.safetensors" not in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin"))]
    requirements = (model / "requirements.txt").read_text()
    assert "fullbake==" in requirements
    assert "onnxruntime==" in requirements
    assert "torch" not in requirements


def test_the_signature_names_columns_and_predictions(model: Path) -> None:
    from mlflow.models import Model

    signature: Any = Model.load(str(model)).signature
    assert signature.inputs.input_names() == ["text"]
    assert signature.outputs.input_names() == ["predicted", "score"]


def test_it_is_served_over_http(bundle: Path, model: Path) -> None:
    from mlflow import pyfunc
    from mlflow.pyfunc.scoring_server import invocations

    answer = invocations(
        json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}),
        "application/json",
        pyfunc.load_model(str(model)),
        None,
    )
    assert answer.status == 200
    rows = json.loads(answer.response)["predictions"]
    assert [row["predicted"] for row in rows] == list(Classifier.load(bundle).predict(TEXTS))


def test_a_logged_model_is_loaded_back(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"file://{tmp_path / 'store'}")
    try:
        with mlflow.start_run():
            logged = bridge.log_model(bundle, "reviews")
        loaded = bridge.load_model(logged.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert np.array_equal(loaded.logits(TEXTS), Classifier.load(bundle).logits(TEXTS))


def test_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "MLmodel").write_text((model / "MLmodel").read_text().replace(bridge.LOADER, "mlflow.sklearn"))
    with pytest.raises(BundleError, match=r"(?s)not one of fullbake.*mlflow\.sklearn"):
        bridge.load_model(other)


def test_many_labels_are_columns(bases: Callable[..., Path], tmp_path: Path) -> None:
    facts = {"columns": {"text": "a", "text_pair": "b"}, "problem_type": "multi_label_classification"}
    signature = bridge.signature_of(facts | {"label_names": ["x", "y"]})
    assert signature.inputs.input_names() == ["a", "b"]
    assert signature.outputs.input_names() == ["predicted:x", "predicted:y"]
    train(bases("bert"), tmp_path).save(tmp_path / "bundle")
    bridge.save_model(tmp_path / "bundle", tmp_path / "model")
    requirements = (tmp_path / "model" / "requirements.txt").read_text()
    assert "fullbake[train]==" in requirements
    assert "+" not in requirements


def test_a_missing_library_is_named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "is_installed", lambda name: name != "mlflow" and extras.is_installed(name))
    with pytest.raises(MissingExtraError, match="pip install mlflow"):
        bridge.save_model(bundle, tmp_path / "model")
