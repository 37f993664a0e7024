"""fullbake adapts BERT-family encoders to text classification.

    from fullbake import Recipe, adapt

    classifier = adapt(Recipe.load("frozen-linear", base="demo"), "train.csv", out="out/m")
    classifier.predict(["a text"])

Names are loaded when they are first asked for, so `import fullbake` does not load torch.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullbake.classifier.adapt import adapt
    from fullbake.classifier.cascade import make_cascade
    from fullbake.classifier.distill import distill
    from fullbake.classifier.evaluate import evaluate
    from fullbake.classifier.model import Classifier
    from fullbake.classifier.predict import predict_file, predict_frame
    from fullbake.comparison.compare import compare
    from fullbake.config.recipe import Recipe
    from fullbake.core.errors import Error
    from fullbake.data.dataset import Dataset, read_dataset
    from fullbake.pretraining.stage import further_pretrain

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Dataset",
    "Error",
    "Recipe",
    "adapt",
    "compare",
    "distill",
    "evaluate",
    "further_pretrain",
    "make_cascade",
    "predict_file",
    "predict_frame",
    "read_dataset",
]

_HOMES = {
    "Classifier": "classifier.model",
    "Dataset": "data.dataset",
    "Error": "core.errors",
    "Recipe": "config.recipe",
    "adapt": "classifier.adapt",
    "compare": "comparison.compare",
    "distill": "classifier.distill",
    "evaluate": "classifier.evaluate",
    "further_pretrain": "pretraining.stage",
    "make_cascade": "classifier.cascade",
    "predict_file": "classifier.predict",
    "predict_frame": "classifier.predict",
    "read_dataset": "data.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from fullbake.core.attributes import describe_missing_attribute
        from fullbake.core.synonyms import FUNCTION_SYNONYMS

        raise AttributeError(describe_missing_attribute("module 'fullbake'", name, __all__, FUNCTION_SYNONYMS))
    from fullbake.core.extras import name_missing_extra
    from fullbake.core.registration import register_with_transformers

    with name_missing_extra(), warnings.catch_warnings():
        # tqdm says so in every notebook without widgets; fullbake's progress needs none
        warnings.filterwarnings("ignore", message="IProgress not found")
        if name == "Classifier":  # after its import, transformers loads every bundle
            register_with_transformers()
        return getattr(import_module(f"fullbake.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
