"""Read a bundle for one engine, and check it: format, hashes, shapes, tokenizer, and the logits of the probe texts.

Every check is made for every engine. The probe's logits are those of the engine that will score.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake.classifier import manifest
from fullbake.classifier.bundle_shape import check_int8_probe, is_history
from fullbake.classifier.engines import (
    INT8,
    INT8_FOLDER,
    INT8_PROBE,
    LoadedEngine,
    check_engine_words,
    load_engine,
)
from fullbake.classifier.manifest import TOLERANCE
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.config.sections import TokensConfig
from fullbake.core import storage
from fullbake.core.errors import BundleError
from fullbake.core.json_files import ShapeFault, read_checked_json
from fullbake.core.storage import MANIFEST_FILE
from fullbake.models.encoding import Encoded
from fullbake.models.prediction import Predictor, encode
from fullbake.models.tokenizer_safety import TokenizerFacts

INT8_TOLERANCE: Final = 0.2
"""Largest difference between probe logits of int8, relative to their scale. On one machine they repeat to 1e-6. Where
fp32 sums are added in another order (measured by onnxruntime without its fusions), other values are rounded up or down,
and the logits change by 0.03: as much as int8 differs from fp32. So they do from processor to processor."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was found right."""

    predictor: Predictor
    tokenizer: Any
    tokens: TokensConfig

    facts: dict[str, Any]
    """The entries of fullbake.json but for `format`, `sha256` and `files`."""

    seen: dict[str, np.ndarray]
    """`hashes` of the training texts, uint8 (texts, 16), and the row numbers of each part, int64."""

    history: list[dict[str, Any]]
    """One entry an epoch, as the training loop made them."""


def read_bundle(folder: Path, engine: Engine = "auto", precision: ScoringPrecision = "fp32") -> Bundle:
    """Load a bundle, and check its format, its hashes and the logits of the probe texts.

    Args:
        folder: The bundle.
        engine: What will score it.
        precision: What it will be scored in.

    Raises:
        BundleError: A check failed; the message names the file.
        MissingExtraError: The engine's libraries are not installed.
    """
    check_engine_words(engine, precision)
    facts = manifest.read_manifest(folder)
    files = facts.pop("files")
    manifest.verify_files(folder, files)
    tokenizer_facts = manifest.check_contents(folder, facts, files)
    loaded = load_engine(folder, files, engine, labels=len(facts["label_names"]), precision=precision)
    seen = manifest.read_seen(folder, files)
    tokens = TokensConfig.model_validate(facts["tokens"])
    _check_tokenizer(folder, loaded, tokens, tokenizer_facts, pairs=facts["columns"]["text_pair"] is not None)
    _check_probe(folder, loaded, tokens, labels=len(facts["label_names"]), precision=precision)
    history = _read_history(folder, facts["recipe"]["training"]["metric"])
    return Bundle(loaded.predictor, loaded.tokenizer, tokens, facts, seen, history)


def _check_tokenizer(
    folder: Path, engine: LoadedEngine, tokens: TokensConfig, known: TokenizerFacts, *, pairs: bool
) -> None:
    """Raise BundleError if the tokenizer gives ids, segments or lengths for which the network has no weights."""
    assert tokens.max_length is not None
    with manifest.explain_faults(folder, "tokenizer.json"):
        if tokens.max_length > engine.positions:
            limit = f"at most {engine.positions:,}"
            raise ShapeFault("tokens.max_length of fullbake.json", limit, f"{tokens.max_length:,}")
        # tokenizer_config.json may name tokens that tokenizer.json lacks: transformers then adds them.
        highest = max(known.highest_id, engine.added_id)
        if highest >= engine.rows:
            raise ShapeFault("ids", f"ids below {engine.rows:,}, for which there are weights", f"{highest:,}")
        texts = manifest.probe_texts()
        types = encode(texts, engine.tokenizer, tokens, texts if pairs else None).token_type_ids
        if types is not None and int(types.max(initial=0)) >= engine.segments > 0:
            raise ShapeFault("segments", f"segments below {engine.segments}", str(types.max()))


def _check_probe(
    folder: Path, engine: LoadedEngine, tokens: TokensConfig, *, labels: int, precision: ScoringPrecision
) -> None:
    """Raise BundleError if the probe texts give other token ids or other logits than the stored ones."""
    stored = manifest.read_probe(folder, labels=labels, max_length=engine.positions)
    expected = stored.pop("logits")
    if not manifest.has_same_ids(stored, manifest.encode_probe(engine.tokenizer, tokens)):
        raise BundleError(
            "the tokenizer gives the probe texts other token ids than when this bundle was saved",
            where=str(folder),
            expected="the ids in probe.safetensors",
            remedy="tokenizer.json, tokenizer_config.json or the installed libraries have changed. Compare `versions` "
            f"in {MANIFEST_FILE} with the versions that are installed here.",
        )
    got = _score_probe(folder, engine, Encoded(**stored))
    tolerance = TOLERANCE
    if precision == INT8:
        expected, tolerance = _read_int8_probe(folder, expected.shape), INT8_TOLERANCE
    difference = manifest.relative_difference(expected, got)
    if not difference <= tolerance:  # so written, NaN is refused too
        raise BundleError(
            "the probe texts give other logits than when this bundle was saved",
            where=str(folder),
            expected=f"logits within {tolerance:g} of their scale",
            got=f"a difference of {difference:.2g}",
            remedy="The weights, the tokenizer or the installed libraries have changed. Compare "
            f"`versions` in {MANIFEST_FILE} with the versions that are installed here.",
        )


def _read_int8_probe(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the logits that the probe texts had in int8. shape: (texts, classes)."""
    name = f"{INT8_FOLDER}/{INT8_PROBE}"
    with manifest.explain_faults(folder, name):
        arrays = storage.read_tensors(folder / name)
        check_int8_probe(arrays, shape)
    return arrays["logits"]


def _score_probe(folder: Path, engine: LoadedEngine, probe: Encoded) -> np.ndarray:
    """Return the logits of the probe's rows. Raise BundleError if the network has no weights for one of its tokens."""
    with manifest.explain_faults(folder, "probe.safetensors"):
        if probe.input_ids.min() < 0 or probe.input_ids.max() >= engine.rows:
            raise ShapeFault("input_ids", f"ids from 0 to {engine.rows - 1:,}", f"{probe.input_ids.max():,}")
        try:
            return manifest.probe_logits(engine.predictor, probe)
        except (IndexError, TypeError) as error:  # segments that the network does not take
            raise ShapeFault("", "rows that the network takes", " ".join(str(error).split())[:300]) from error


def _read_history(folder: Path, metric: str) -> list[dict[str, Any]]:
    """Return the history; [] if the user, who may edit it, removed or changed it."""
    try:
        history = read_checked_json(folder / "history.json")
    except (OSError, ValueError):
        return []
    return history if is_history(history, metric) else []
