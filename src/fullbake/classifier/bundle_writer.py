"""Write a classifier as a bundle: weights, tokenizer, probe, hashes, figures and the model card.

Only a classifier of the engine `torch` is written. Figures and the model card need libraries that scoring does not, so
they are imported here and not where a bundle is read.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedTokenizerFast

from fullbake.classifier import manifest
from fullbake.classifier.manifest import BUNDLE_FORMAT, sign_manifest
from fullbake.config.sections import TokensConfig
from fullbake.core import hashing, storage
from fullbake.core.storage import MANIFEST_FILE
from fullbake.evaluation import plots
from fullbake.models.pretrained import quiet_transformers
from fullbake.models.tokenizer_safety import remember_written
from fullbake.models.torch_predictor import TorchPredictor


@dataclass(frozen=True)
class BundleContents:
    """What is written into a bundle."""

    predictor: TorchPredictor
    tokenizer: PreTrainedTokenizerFast

    facts: dict[str, Any]
    """The entries of fullbake.json but for `format` and `files`."""

    seen: dict[str, np.ndarray] = field(default_factory=dict)
    """`hashes` of the training texts, uint8 (texts, 16), and the row numbers of each part, int64."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch, as the training loop made them."""


def write_bundle(target: Path, bundle: BundleContents, *, overwrite: bool) -> None:
    """Save a bundle atomically: `target` holds the complete bundle, or what it held before.

    Args:
        target: Folder for the bundle.
        bundle: What to save.
        overwrite: Replace what `target` holds.

    Raises:
        OutputError: `target` holds something, and `overwrite` is False.
        SpaceFault: The disk has too little space.
    """
    network = bundle.predictor.network
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    with storage.staged(target, overwrite=overwrite, needed=weights + 4_000_000) as folder:
        with quiet_transformers():
            network.save_pretrained(folder)
            bundle.tokenizer.save_pretrained(folder)
        remember_written(folder / "tokenizer.json")
        storage.write_tensors(folder / "probe.safetensors", _probe_arrays(bundle))
        if bundle.seen:  # not of a bundle that was shared without it
            storage.write_tensors(folder / manifest.SEEN_FILE, bundle.seen)
        files = hashing.hash_files(folder)
        storage.write_json(
            folder / MANIFEST_FILE, sign_manifest({"format": BUNDLE_FORMAT, **bundle.facts, "files": files})
        )
        _write_unhashed_files(folder, bundle)


def _probe_arrays(bundle: BundleContents) -> dict[str, np.ndarray]:
    """Return the token ids of the probe texts, and the logits that they give now."""
    encoded = manifest.encode_probe(bundle.tokenizer, TokensConfig.model_validate(bundle.facts["tokens"]))
    arrays: dict[str, np.ndarray] = {"input_ids": encoded.input_ids, "offsets": encoded.offsets}
    if encoded.token_type_ids is not None:
        arrays["token_type_ids"] = encoded.token_type_ids
    return arrays | {"logits": manifest.probe_logits(bundle.predictor, encoded)}


def _write_unhashed_files(folder: Path, bundle: BundleContents) -> None:
    """Write the files that users may edit: history, plots and model card."""
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
    storage.write_bytes(folder / "README.md", model_card(bundle.facts).encode("utf-8", "backslashreplace"))


def model_card(facts: dict[str, Any]) -> str:
    """Return the model card, in Markdown, made from the entries of fullbake.json."""
    return render_card("model_card.md", facts)


def render_card(template: str, facts: dict[str, Any]) -> str:
    """Return a part of a model card, in Markdown.

    Args:
        template: Its template, of resources/templates.
        facts: What the template names.
    """
    environment = Environment(
        loader=PackageLoader("fullbake", "resources/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["figure"] = lambda score: "-" if score["value"] is None else f"{score['value']:.4f}"
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template(template).render(**facts)
