"""A saved classifier on disk: which files it has, and the proof on reload that they are what was saved.

With the standard head the folder is a plain Hugging Face model folder; `fullbake.json` and the files beside it add what
transformers does not keep. Loading hashes every file (0.2 s for 90 MB) and scores packaged probe texts again, so that
wrong or missing weights never pass in silence.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake import manifest
from fullbake.config.sections import TokensConfig
from fullbake.core import hashing, storage
from fullbake.core.errors import BundleError
from fullbake.evaluation import plots
from fullbake.manifest import FORMAT, MANIFEST, TOLERANCE, signed
from fullbake.models.encoding import Encoded
from fullbake.models.inference import encode
from fullbake.models.network import load_network
from fullbake.models.pretrained import quiet
from fullbake.models.tokenizer import load_tokenizer

PROBE_LENGTH = 64
"""Probe texts are cut to this many tokens: enough to touch every weight, quick on every load."""

Score = Callable[[PreTrainedModel, Encoded, int], np.ndarray]
"""(network, encoded texts, pad id) -> logits (texts, classes)."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    facts: `fullbake.json` without its format and files. seen: hashes of the training texts, uint8 (texts, 16), and row
    numbers of each part, int64, by name. history: entries as the loop made them.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: dict[str, Any]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def write(target: Path, bundle: Bundle, score: Score, *, overwrite: bool) -> None:
    """Save atomically: `target` holds a whole bundle or stays as it was.

    Raises OutputError where `target` holds something and `overwrite` is false, SpaceFault where the disk is too small.
    """
    weights = sum(tensor.nbytes for tensor in bundle.network.state_dict().values())
    with storage.staged(target, overwrite=overwrite, needed=weights + 4_000_000) as folder:
        with quiet():
            bundle.network.save_pretrained(folder)
            bundle.tokenizer.save_pretrained(folder)
        storage.write_tensors(folder / "probe.safetensors", _probe(bundle, score))
        storage.write_tensors(folder / "seen.safetensors", bundle.seen)
        files = hashing.hash_files(folder)
        storage.write_json(folder / MANIFEST, signed({"format": FORMAT, **bundle.facts, "files": files}))
        _write_free_files(folder, bundle)


def read(folder: Path, score: Score) -> Bundle:
    """Load a bundle, checking format, hashes and the probe's logits. Raises BundleError that names the file at
    fault."""
    facts = manifest.read_manifest(folder)
    manifest.check_files(folder, facts.pop("files"))
    bundle = Bundle(
        network=load_network(folder),
        tokenizer=load_tokenizer(folder),
        facts=facts,
        seen=storage.read_tensors(folder / "seen.safetensors"),
        history=_read_history(folder),
    )
    _check_probe(folder, bundle, score)
    return bundle


def probe_texts() -> list[str]:
    """The packaged probe texts: never a user's rows."""
    return (resources.files("fullbake") / "samples" / "probe.txt").read_text("utf-8").splitlines()


def _probe(bundle: Bundle, score: Score) -> dict[str, np.ndarray]:
    limit = min(PROBE_LENGTH, bundle.facts["tokens"]["max_length"])
    tokens = TokensConfig(max_length=limit)
    encoded = encode(probe_texts(), bundle.tokenizer, tokens)
    arrays: dict[str, np.ndarray] = {"input_ids": encoded.input_ids, "offsets": encoded.offsets}
    if encoded.token_type_ids is not None:
        arrays["token_type_ids"] = encoded.token_type_ids
    return arrays | {"logits": score(bundle.network, encoded, bundle.tokenizer.pad_token_id)}


def _check_probe(folder: Path, bundle: Bundle, score: Score) -> None:
    stored = storage.read_tensors(folder / "probe.safetensors")
    expected = stored.pop("logits")
    got = score(bundle.network, Encoded(**stored), bundle.tokenizer.pad_token_id)
    apart = manifest.difference(expected, got)
    if not apart <= TOLERANCE:
        raise BundleError(
            "the probe texts score otherwise than when this bundle was saved",
            where=str(folder),
            expected=f"logits within {TOLERANCE:g} of their scale",
            got=f"a difference of {apart:.2g}",
            remedy="The weights, the tokenizer or the installed libraries are not those it was saved with; compare "
            f"`versions` in {MANIFEST} with what is installed here.",
        )


def _read_history(folder: Path) -> list[dict[str, Any]]:
    """The history, [] where the user removed it or made something else of it: it is theirs to edit."""
    try:
        history = storage.read_json(folder / "history.json")
    except (OSError, ValueError):
        return []
    return history if isinstance(history, list) else []


def _write_free_files(folder: Path, bundle: Bundle) -> None:
    storage.write_json(folder / "history.json", bundle.history)
    if bundle.history:
        metric = bundle.facts["recipe"]["training"]["metric"]
        storage.write_bytes(folder / "history.png", plots.history_figure(bundle.history, metric))
    calibration, validation = bundle.facts.get("calibration"), bundle.facts.get("metrics", {}).get("validation")
    if calibration:
        figure = plots.reliability_figure(calibration["before"], calibration["after"])
        storage.write_bytes(folder / "reliability.png", figure)
    if validation and validation["confusion_matrix"] is None:
        storage.write_bytes(folder / "labels.png", plots.labels_figure(validation["per_class"]))
    storage.write_bytes(folder / "README.md", model_card(bundle.facts).encode())


def model_card(facts: dict[str, Any]) -> str:
    """The model card, Markdown, from what `fullbake.json` says."""
    environment = Environment(
        loader=PackageLoader("fullbake"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["figure"] = lambda score: "-" if score["value"] is None else f"{score['value']:.4f}"
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template("model_card.md").render(**facts)
