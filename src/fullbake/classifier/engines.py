"""The engines that score a bundle, and which one is taken.

`torch` runs the network by transformers. It trains, saves and uses a GPU, and takes seconds to import. `onnx` runs the
bundle's graph by onnxruntime: it starts in some tenths of a second and needs neither library. `auto` takes `onnx` where
the bundle has a graph and onnxruntime is installed, unless torch is too and may find a GPU. An engine comes with the
tokenizer that goes with it, so that a process imports the libraries of one engine only.

The precision int8 is a graph of its own, in the folder `int8` of the bundle (`precision.export_int8`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from fullbake.classifier import manifest
from fullbake.classifier.bundle_shape import INT8_FILES
from fullbake.classifier.cascade_files import MEMBERS, is_cascade
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.core import runtime, storage
from fullbake.core.console import warn
from fullbake.core.errors import BundleError, one_line
from fullbake.core.extras import is_installed, name_missing_extra
from fullbake.core.json_files import ShapeFault
from fullbake.core.processors import int8_instructions
from fullbake.models import base_files
from fullbake.models.graph_check import GRAPH_FILE, CheckedGraph, read_checked_graph
from fullbake.models.prediction import Predictor

TORCH: Final = "torch"
ONNX: Final = "onnx"
INT8: Final = "int8"

INT8_FOLDER: Final = "int8"
"""The folder of a bundle with its int8 graph."""

INT8_PROBE: Final = "probe.safetensors"
"""The file in it with the logits of the probe texts, whose ids are in the bundle's own probe.safetensors."""


@dataclass(frozen=True)
class LoadedEngine:
    """An engine with a bundle's network, and what the network takes."""

    predictor: Predictor

    tokenizer: Any
    """What `prediction.encode` needs of a tokenizer."""

    rows: int
    """Rows of the embedding table: token ids are below."""

    added_id: int
    """The largest id of a token that the tokenizer has beside those of tokenizer.json; -1 if it has none."""

    positions: int
    """Longest row in tokens."""

    segments: int
    """How many segments there are, 0 if unknown."""


def engines_of(folder: Path, wanted: Engine) -> set[str]:
    """Return the engines that a bundle will be scored with, as far as fullbake.json says: of a cascade one or two.

    Nothing is checked: what is wrong with the bundle is said when it is loaded.

    Args:
        folder: The bundle or cascade.
        wanted: The engine that the caller chose.
    """
    bundles = [folder / name for name in MEMBERS] if is_cascade(folder) else [folder]
    return {_choose(_listed_files(bundle), wanted) for bundle in bundles}


def _listed_files(folder: Path) -> dict[str, Any]:
    """Return what fullbake.json says of a bundle's files, {} where it cannot be read."""
    try:
        files = (storage.read_manifest_file(folder) or {}).get("files", {})
    except (OSError, ValueError):
        return {}
    return files if isinstance(files, dict) else {}


def check_engine_words(engine: object, precision: object = "fp32") -> None:
    """Raise BundleError if these are no engine and no precision, or do not go together."""
    for word, known, what in (
        (engine, get_args(Engine), "engine"),
        (precision, get_args(ScoringPrecision), "precision"),
    ):
        if word not in known:
            raise BundleError(f"there is no such {what}", expected=f"one of {', '.join(known)}", got=repr(word)[:40])
    if precision == INT8 and engine == TORCH:
        raise BundleError(
            "int8 is computed by the engine onnx alone",
            expected="--engine onnx or auto with --precision int8",
            got="torch",
            remedy="Leave out --engine (engine), or leave out --precision (precision).",
        )


def load_engine(
    folder: Path, files: Collection[str], wanted: Engine, *, labels: int, precision: ScoringPrecision = "fp32"
) -> LoadedEngine:
    """Load the network of a bundle whose files were found right.

    Args:
        folder: The bundle.
        files: Names of its files.
        wanted: The engine that the caller chose.
        labels: Number of classes.
        precision: The precision that the caller chose.

    Raises:
        BundleError: The network, the graph or the tokenizer cannot be read; or there is no graph for `onnx`, or none
            for `int8`.
        MissingExtraError: The engine's libraries are not installed.
    """
    if precision == INT8:
        return _load_int8(folder, files, labels)
    if _choose(files, wanted) == TORCH:
        return _load_torch(folder)
    if GRAPH_FILE not in files:
        raise BundleError(
            "this bundle has no graph, which the engine onnx needs",
            where=str(folder),
            expected=GRAPH_FILE,
            remedy=f"Add one: fullbake export {folder}. Or score with torch: --engine torch, or engine='torch'.",
        )
    graph = read_checked_graph(folder, classes=labels)
    try:
        with name_missing_extra():
            return _load_onnx(folder, graph)
    except BundleError as error:
        if wanted == ONNX or not is_installed("torch"):
            raise
        warn(f"scoring with torch, which starts more slowly, because the graph cannot be used: {one_line(error)}")
        return _load_torch(folder)


def _load_int8(folder: Path, files: Collection[str], labels: int) -> LoadedEngine:
    if INT8_FILES[0] not in files:
        raise BundleError(
            "this bundle has no int8 graph",
            where=str(folder),
            expected=INT8_FILES[0],
            remedy=f"Make one: fullbake export {folder} --int8 --data FILE. Or leave out --precision (precision).",
        )
    if int8_instructions() == ():
        warn("this processor has no instructions for 8-bit products (VNNI, AMX): int8 may be slower than fp32 here")
    graph = read_checked_graph(folder / INT8_FOLDER, classes=labels, weights=["model.safetensors"])
    try:
        with name_missing_extra():
            return _load_onnx(folder, graph, folder / INT8_FOLDER)
    except BundleError as error:  # fp32 does not take its place: it gives other scores, and has another decision
        advice = f"{error.remedy or ''} Or score in fp32: leave out --precision (precision).".strip()
        raise BundleError(
            error.what, where=error.where, expected=error.expected, got=error.got, remedy=advice
        ) from error


def _choose(files: Collection[str], wanted: Engine) -> str:
    if wanted != "auto":
        return wanted
    if not is_installed("torch"):
        return ONNX if GRAPH_FILE in files else TORCH  # whose error says what to install
    may_run = GRAPH_FILE in files and is_installed("onnxruntime")
    return ONNX if may_run and not runtime.may_have_accelerator() else TORCH


def _load_torch(folder: Path) -> LoadedEngine:
    with name_missing_extra():
        from fullbake.models.network import load_network
        from fullbake.models.pretrained import max_positions
        from fullbake.models.tokenizer import load_tokenizer
        from fullbake.models.torch_predictor import TorchPredictor

    network: Any = load_network(folder)
    with manifest.explain_faults(folder, "tokenizer.json"):
        tokenizer: Any = load_tokenizer(folder)
        encoder = getattr(network.config, "encoder", network.config)
        return LoadedEngine(
            TorchPredictor(network, tokenizer.pad_token_id),
            tokenizer,
            rows=network.get_input_embeddings().weight.shape[0],
            added_id=max(tokenizer.added_tokens_decoder, default=-1),
            positions=max_positions(encoder),
            segments=getattr(encoder, "type_vocab_size", None) or 0,
        )


def _load_onnx(folder: Path, graph: CheckedGraph, weights: Path | None = None) -> LoadedEngine:
    """Load a graph. weights: the folder of its weights, None for the bundle's own."""
    from fullbake.models.light_tokenizer import read_light_tokenizer
    from fullbake.models.onnx_predictor import OnnxPredictor

    tokenizer = read_light_tokenizer(folder)
    with manifest.explain_faults(folder, "config.json"):
        config = base_files.read_settings(folder / "config.json", "config.json")
        encoder = config["encoder"] if isinstance(config.get("encoder"), dict) else config
        return LoadedEngine(
            OnnxPredictor(graph, weights or folder, tokenizer.pad_token_id),
            tokenizer,
            rows=_number(encoder, "vocab_size"),
            added_id=-1,
            positions=_number(encoder, "max_position_embeddings"),
            segments=encoder.get("type_vocab_size") or 0,
        )


def _number(config: dict[str, Any], field: str) -> int:
    """Return a size that config.json states. The graph itself holds its texts to its weights; this is said earlier."""
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise ShapeFault(field, "a number of 1 or more", repr(value)[:40])
    return value
