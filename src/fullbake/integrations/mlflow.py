"""MLflow models: a bundle as a model of the flavor `python_function`, which `mlflow models serve` and Spark load.

The model is this module's name (`loader_module`) and a copy of the bundle, so nothing is pickled. The copy lacks the
hashes of the training texts, as everything that leaves a machine (`classifier.sharing`). A bundle with a graph is
scored by onnxruntime, and its environment needs no torch.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from fullbake import __version__
from fullbake.classifier.hub_bundles import local_bundle
from fullbake.classifier.model import Classifier
from fullbake.classifier.sharing import copy_for_sharing
from fullbake.config.fields import Engine
from fullbake.core.errors import BundleError, MissingExtraError
from fullbake.core.extras import is_installed
from fullbake.core.storage import MANIFEST_FILE

LOADER: Final = "fullbake.integrations.mlflow"
"""The module that MLflow imports to load a model: this one."""

DATA_FOLDER: Final = "bundle"
"""The folder of the bundle within the model."""

EXAMPLE_TEXT: Final = "A text to classify."
"""The text of the model's example of an input."""

_PINNED: Final = {
    "onnx": ("onnxruntime", "tokenizers", "numpy", "pandas"),
    "torch": ("torch", "transformers", "tokenizers", "numpy", "pandas"),
}
"""Libraries that decide the scores or that MLflow itself needs, by engine."""


class BundleModel:
    """What MLflow calls to score rows."""

    def __init__(self, classifier: Classifier) -> None:
        """Hold the classifier.

        Args:
            classifier: It scores the rows.
        """
        self.classifier = classifier

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Classify texts.

        Args:
            model_input: A data frame with the text columns of training, or texts.
            params: `scores`: True adds the column `score:<class>` for each class.

        Returns:
            A data frame with `predicted` and `score`; of a multi-label classifier with `predicted:<label>`, 0 or 1.
        """
        pandas: Any = import_module("pandas")
        classifier = self.classifier
        probabilities = classifier.predict_proba(model_input)
        decided = classifier.decision.decide(probabilities)
        scores = probabilities.astype(np.float32)
        names = classifier.problem.prediction_columns(classifier.label_names)
        values = classifier.problem.prediction_values(decided, scores, classifier.classes_)
        columns = dict(zip(names, values, strict=True))
        if (params or {}).get("scores"):
            columns |= {f"score:{name}": scores[:, number] for number, name in enumerate(classifier.label_names)}
        return pandas.DataFrame(columns)


def _load_pyfunc(path: str) -> BundleModel:
    """Load a model for MLflow, which asks for this name. path: the bundle within the model."""
    return BundleModel(Classifier.load(path))


def save_model(bundle: str | Path, path: str | Path, **options: Any) -> None:
    """Write a bundle as an MLflow model into a folder.

    Args:
        bundle: The folder of the bundle, or its id on the hub.
        path: A folder that does not exist yet.
        **options: Further arguments of `mlflow.pyfunc.save_model`, such as `metadata`.

    Raises:
        BundleError: It is no bundle.
        MissingExtraError: MLflow is not installed.
    """
    pyfunc = _pyfunc()
    with TemporaryDirectory(prefix="fullbake-mlflow-") as folder:
        pyfunc.save_model(path=str(path), **(_arguments(local_bundle(bundle), Path(folder) / DATA_FOLDER) | options))


def log_model(
    bundle: str | Path, name: str = "classifier", *, registered_model_name: str | None = None, **options: Any
) -> Any:
    """Log a bundle as an MLflow model, in the active run or in a new one.

    Args:
        bundle: The folder of the bundle, or its id on the hub.
        name: The model's name within the run.
        registered_model_name: Register it under this name too.
        **options: Further arguments of `mlflow.pyfunc.log_model`, such as `metadata`.

    Returns:
        What MLflow says of the model; its `model_uri` is what `load_model` and `mlflow models serve -m` take.

    Raises:
        BundleError: It is no bundle.
        MissingExtraError: MLflow is not installed.
    """
    pyfunc = _pyfunc()
    with TemporaryDirectory(prefix="fullbake-mlflow-") as folder:
        arguments = _arguments(local_bundle(bundle), Path(folder) / DATA_FOLDER) | options
        return pyfunc.log_model(name=name, registered_model_name=registered_model_name, **arguments)


def load_model(model_uri: str | Path, *, engine: Engine = "auto") -> Classifier:
    """Load the classifier of an MLflow model, with all its methods. `mlflow.pyfunc.load_model` gives one that predicts.

    Args:
        model_uri: Such as `runs:/<run>/classifier`, `models:/<name>/1`, or a folder.
        engine: As for `Classifier.load`.

    Raises:
        BundleError: It is no model of fullbake, or is damaged.
        MissingExtraError: MLflow is not installed.
    """
    _pyfunc()
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    folder = Path(download_artifacts(artifact_uri=str(model_uri)))
    flavor = Model.load(str(folder)).flavors.get("python_function") or {}
    if flavor.get("loader_module") != LOADER:
        raise BundleError(
            "this MLflow model is not one of fullbake",
            where=str(model_uri),
            expected=f"a model that {LOADER}.log_model made",
            got=f"one of {flavor.get('loader_module')}",
        )
    return Classifier.load(folder / str(flavor["data"]), engine=engine)


def _pyfunc() -> Any:
    for library, name in (("mlflow", "mlflow"), ("pandas", "pandas")):
        if not is_installed(library):
            raise MissingExtraError(
                f"MLflow models need the library {name}, which is not installed",
                remedy=f"Run: pip install {name}.",
                module=library,
            )
    from mlflow import pyfunc

    return pyfunc


def _arguments(bundle: Path, folder: Path) -> dict[str, Any]:
    """Return the arguments of MLflow's functions for a bundle, of which a copy is made in a folder."""
    shared = copy_for_sharing(bundle, folder)
    graphs = [name for name in shared.files if name.split("/")[-1] == "model.onnx" and "int8" not in name]
    manifests = [name for name in shared.files if name.split("/")[-1] == MANIFEST_FILE]  # a cascade has two
    engine = "onnx" if len(graphs) == len(manifests) else "torch"
    pandas: Any = import_module("pandas")
    signature = signature_of(shared.facts)
    return {
        "loader_module": LOADER,
        "data_path": str(folder),
        "signature": signature,
        # MLflow warns without one. It is no row of the user's.
        "input_example": pandas.DataFrame({name: [EXAMPLE_TEXT] for name in signature.inputs.input_names()}),
        "pip_requirements": requirements_of(engine),
    }


def signature_of(facts: Mapping[str, Any]) -> Any:
    """Return MLflow's signature of a bundle: text columns in, predictions out.

    Args:
        facts: The entries of its fullbake.json.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from fullbake.config.problems import problem_named

    kinds = {str: DataType.string, np.float32: DataType.float, np.uint8: DataType.integer}
    texts = [facts["columns"][name] for name in ("text", "text_pair") if facts["columns"].get(name)]
    predicted = problem_named(facts["problem_type"]).prediction_columns(facts["label_names"])
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, name) for name in texts]),
        outputs=Schema([ColSpec(kinds[kind], name) for name, kind in predicted.items()]),
        params=ParamSchema([ParamSpec("scores", DataType.boolean, False)]),
    )


def requirements_of(engine: str) -> list[str]:
    """Return what an environment must install to score a bundle as it is scored here.

    Args:
        engine: `onnx`, or `torch` for a bundle without a graph.
    """
    own = f"fullbake=={__version__}" if engine == "onnx" else f"fullbake[train]=={__version__}"
    return [own, *(f"{name}=={found}" for name in _PINNED[engine] if (found := _installed(name)) is not None)]


def _installed(name: str) -> str | None:
    """Return the installed version without what marks a build, such as `+cpu`, which no index has."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
