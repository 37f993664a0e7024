"""Add an int8 graph to a bundle, if labeled rows show that it answers as fp32 does (`int8_gate`).

Everything that int8 needs is in the bundle's folder `int8`: graph, weights, and the logits of the probe texts. What the
gate measured, the temperature and the thresholds are the entry `int8` of fullbake.json, and the model card tells it.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake.classifier import manifest
from fullbake.classifier.bundle_update import require_changeable, updated_bundle
from fullbake.classifier.bundle_writer import render_card
from fullbake.classifier.engines import INT8_FOLDER, INT8_PROBE
from fullbake.classifier.evaluate import find_training_texts, read_as_trained
from fullbake.classifier.int8_gate import (
    Int8Verdict,
    PairedLogits,
    check_dependence,
    judge_int8,
    measure_dependence,
    refuse_shortfalls,
    score_in_turn,
)
from fullbake.classifier.model import Classifier
from fullbake.config.sections import DataConfig
from fullbake.core import runtime, storage
from fullbake.core.console import say, warn
from fullbake.core.errors import BundleError, DataError, RecipeError
from fullbake.core.processors import int8_instructions
from fullbake.data.dataset import Dataset
from fullbake.data.label_checks import with_labels_of
from fullbake.data.sources import as_parts
from fullbake.evaluation.fidelity import FidelityPromise
from fullbake.models.encoding import Encoded
from fullbake.models.graph_check import GRAPH_FILE, read_checked_graph
from fullbake.models.int8_graph import INT8_WEIGHTS, Int8Facts, multiply_logits, write_int8_graph
from fullbake.models.onnx_predictor import OnnxPredictor
from fullbake.models.prediction import encode

MODEL_CARD: Final = "README.md"

_SECTION: Final = re.compile(r"<!-- int8 -->.*<!-- end of int8 -->\n?", re.DOTALL)
"""The section of a model card on int8."""


@dataclass(frozen=True)
class WrittenInt8:
    """An int8 graph that was added to a bundle."""

    folder: Path
    facts: dict[str, Any]
    """The entry `int8` of fullbake.json."""


def export_int8(
    bundle: str | Path,
    data: Any,
    promise: FidelityPromise = FidelityPromise(),  # noqa: B008  (frozen)
    *,
    seed: int = 0,
    **given: Any,
) -> WrittenInt8:
    """Add an int8 graph to a bundle that has a graph, or replace the one that is there.

    Args:
        bundle: The bundle.
        data: Labeled rows that the classifier was not trained on, as for `evaluate`. Rows whose text was trained on are
            left out with a warning. One half of them fits, one judges.
        promise: What int8 may lose.
        seed: Of the halves.
        given: Fields of the recipe's `data` section that replace those of training.

    Raises:
        RecipeError: The promise makes no sense.
        BundleError: The folder is no intact bundle, has no graph, or has nothing that int8 would make faster.
        DataError: The rows cannot be read, int8 breaks its promise on them, or they are too few to tell.
        OutputError: The bundle cannot be written.
    """
    folder = Path(bundle)
    check_promise(promise)
    require_changeable(folder)
    classifier = Classifier.load(folder, engine="onnx")
    if "student" in classifier.record.facts:
        raise BundleError(
            "a distilled student has no encoder that int8 would make faster",
            where=str(folder),
            remedy="Use it as it is: its table of vectors is stored in 8 bits already.",
        )
    rows = _untrained_rows(
        classifier, data if isinstance(data, Dataset) else read_as_trained(classifier, data, **given)
    )
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    with updated_bundle(folder, without=(INT8_FOLDER,), needed=weights) as update:
        facts = _add_int8(update.folder, classifier, rows, promise, seed)
        update.entries["int8"] = facts
        _tell_card(update.folder, facts)
    _warn_if_slower(facts["speed"])
    return WrittenInt8(folder / INT8_FOLDER, facts)


def read_validation_rows(classifier: Classifier, data: Any, config: DataConfig) -> Dataset:
    """Return the validation rows of a run, for `export_int8`.

    Args:
        classifier: What the run trained.
        data: Its training rows, as `adapt` took them.
        config: The recipe's `data` section.

    Raises:
        RecipeError: Folds of the training rows took the place of validation rows.
    """
    numbers = classifier.record.seen.get("validation_rows")
    if numbers is None:
        raise RecipeError(
            "int8 needs rows that were not trained on, and this run validated on folds of its training rows",
            expected="validation rows",
            got="folds",
            remedy="Pass --folds 0 or --validation FILE.",
        )
    if "refit" in classifier.record.facts:
        raise RecipeError(
            "int8 needs rows that were not trained on, and this run trained on its validation rows in the end (refit)",
            remedy="Judge int8 by other rows: fullbake export BUNDLE --int8 --data FILE.",
        )
    given = as_parts(data)
    source = config.validation if isinstance(config.validation, str) else given.train
    source = given.others.get("validation", source)
    dialect = {name: own for name, own in asdict(config.dialect).items() if own is not None}
    rows = source if isinstance(source, Dataset) else read_as_trained(classifier, source, **dialect)
    return rows.take(np.flatnonzero(np.isin(rows.rows, numbers)))


def check_promise(promise: FidelityPromise) -> None:
    """Raise RecipeError if a limit of a promise is out of range."""
    for flag, value, most in (("--tolerance", promise.tolerance, 1.0), ("--agreement", promise.agreement, 1.0)):
        if not 0 < value < most:
            raise RecipeError(
                "a limit of int8 is out of range",
                where=flag,
                expected="a number between 0 and 1",
                got=f"{value:g}",
                remedy="The metric may lose --tolerance (0.005), and --agreement (0.98) is the least share of equal "
                "labels. No number of rows shows that nothing at all is lost.",
            )


def _untrained_rows(classifier: Classifier, dataset: Dataset) -> Dataset:
    """Return the rows that were not trained on, with their labels numbered as in training."""
    rows = with_labels_of(dataset, classifier.label_names, classifier.problem, classifier.dropped_labels)
    trained = find_training_texts(classifier, rows)
    if trained.any():
        warn(
            f"{int(trained.sum()):,} of {len(rows):,} rows are left out: their texts were trained on, and there int8 "
            "loses less than elsewhere"
        )
    kept = rows.take(np.flatnonzero(~trained))
    if len(kept) < 2:
        raise DataError(
            "there are no rows to judge int8 by",
            where=dataset.source,
            expected="labeled rows that were not trained on",
            got=f"{len(kept)}",
            remedy="Give rows that are in neither the training nor the test part.",
        )
    return kept


def _add_int8(
    staged: Path, classifier: Classifier, rows: Dataset, promise: FidelityPromise, seed: int
) -> dict[str, Any]:
    """Write the folder of int8 into a staged bundle, judge it, and return the entry of fullbake.json."""
    folder = staged / INT8_FOLDER
    folder.mkdir()
    made = write_int8_graph(staged / GRAPH_FILE, folder)
    encoded = encode(rows.texts, classifier.tokenizer, classifier.tokens, rows.text_pair)
    predictor = open_int8(folder, classifier)
    dependence = _measure_dependence(predictor, encoded, classifier)
    check_dependence(dependence)
    say(f"scoring {len(rows):,} rows in fp32 and in int8")
    logits = score_in_turn(
        lambda part: classifier.predictor.logits(part, classifier.tokens),
        lambda part: predictor.logits(part, classifier.tokens),
        encoded,
        len(rows),
    )
    metric = classifier.record.facts["recipe"]["training"]["metric"]
    verdict = judge_int8(rows, logits, classifier.decision, metric, promise, seed=seed)
    refuse_shortfalls(verdict, rows)
    multiply_logits(folder / GRAPH_FILE, 1 / verdict.temperature)
    final = open_int8(folder, classifier)
    probe = manifest.encode_probe(classifier.tokenizer, classifier.tokens)
    storage.write_tensors(folder / INT8_PROBE, {"logits": manifest.probe_logits(final, probe)})
    return _facts(made, verdict, logits, rows, promise, seed) | {"dependence": dependence}


def open_int8(folder: Path, classifier: Classifier) -> OnnxPredictor:
    """Return the predictor of an int8 folder.

    Args:
        folder: The folder that `int8_graph.write_int8_graph` wrote.
        classifier: The classifier in fp32.

    Raises:
        BundleError: onnxruntime lacks an operator of the graph, or refuses it.
    """
    graph = read_checked_graph(folder, classes=len(classifier.label_names), weights=[INT8_WEIGHTS])
    return OnnxPredictor(graph, folder, int(classifier.tokenizer.pad_token_id))


def _measure_dependence(predictor: OnnxPredictor, encoded: Encoded, classifier: Classifier) -> float:
    return measure_dependence(
        lambda batch: predictor.run_batch(batch)["logits"],
        encoded,
        tokens=classifier.tokens,
        pad_id=int(classifier.tokenizer.pad_token_id),
        ids=int(encoded.input_ids.max()) + 1,
    )


def _facts(
    made: Int8Facts, verdict: Int8Verdict, logits: PairedLogits, rows: Dataset, promise: FidelityPromise, seed: int
) -> dict[str, Any]:
    """Return the entry `int8` of fullbake.json."""
    instructions = int8_instructions()
    return {
        "temperature": verdict.temperature,
        "thresholds": verdict.decision.to_json(),
        "products": made.products,
        "tables": made.tables,
        "bytes": {"fp32": made.bytes_before, "int8": made.bytes_after},
        "data": {"source": Path(rows.source).name, "fitted": verdict.fitted_rows, "seed": seed},
        "promise": {"tolerance": promise.tolerance, "agreement": promise.agreement},
        "fidelity": verdict.fidelity.to_json(),
        "calibration_error": {name: own["ece"] for name, own in verdict.calibration.items()},
        "speed": logits.to_json()
        | {
            "processor": runtime.processor_name(),
            "instructions": None if instructions is None else list(instructions),
        },
        "versions": runtime.versions(),
    }


def _tell_card(staged: Path, facts: dict[str, Any]) -> None:
    """Put the section on int8 at the end of the model card, in place of an earlier one. The rest may be the user's."""
    path = staged / MODEL_CARD
    if not path.is_file():
        return
    text = _SECTION.sub("", path.read_text("utf-8", "surrogateescape")).rstrip()
    path.unlink()  # it is a second name of the old bundle's file
    card = f"{text}\n\n{render_card('int8_card.md', facts)}"
    storage.write_bytes(path, card.encode("utf-8", "surrogateescape"))


def _warn_if_slower(speed: dict[str, Any]) -> None:
    rates = speed["int8_texts_per_cpu_second"], speed["fp32_texts_per_cpu_second"]
    measured = f"measured here: {rates[0]:,.0f} texts a CPU second in int8, {rates[1]:,.0f} in fp32"
    if speed["instructions"] == []:
        warn(f"this processor has no instructions for 8-bit products (VNNI, AMX), so int8 may be slower; {measured}")
    elif rates[0] < rates[1]:
        warn(f"int8 is slower than fp32 on this machine; {measured}")
