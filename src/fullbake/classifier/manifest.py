"""Check a bundle's fullbake.json, the hashes of its files, and the shape of what it holds besides the network.

Knows files and arrays, but no model class, so that a bundle is read without torch too.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake.classifier import bundle_shape
from fullbake.config.sections import TokensConfig
from fullbake.core import hashing, storage
from fullbake.core.errors import BaseModelError, BundleError, RecipeError
from fullbake.core.json_files import ShapeFault, read_checked_json
from fullbake.core.mistyped_paths import no_folder_remedy, similar_paths
from fullbake.core.storage import MANIFEST_FILE
from fullbake.models import base_files
from fullbake.models.encoding import Encoded
from fullbake.models.prediction import Predictor, encode
from fullbake.models.tokenizer_safety import TokenizerFacts, check_tokenizer_file

BUNDLE_FORMAT = 1
"""Version of the bundle format."""

UNHASHED_FILES = ("history.json", "history.png", "reliability.png", "labels.png", "README.md")
"""Files that users may edit or remove; they are not hashed."""

TOLERANCE = 1e-3
"""Largest difference between probe logits, relative to their scale, that fp32 rounding explains."""

REQUIRED_FILES: Final = (
    "config.json",
    "probe.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files that every bundle has beside its weights."""

SEEN_FILE: Final = "seen.safetensors"
"""The file with the hashes of the training texts. A bundle that was shared may lack it."""

PROBE_TEXT_TOKENS: Final = 64
"""Probe texts are cut to this many tokens: enough to use every weight, and fast on every load."""

COPY_AGAIN_REMEDY = "Copy the bundle again from an intact copy, or train it again."


def sign_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with the entry `sha256`, computed over all its other entries."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return content | {"sha256": hashing.fingerprint(json.dumps(content, sort_keys=True))}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read fullbake.json, and check its format, its own sha256 and its shape.

    Args:
        folder: The bundle.

    Returns:
        Its entries but for `format` and `sha256`. The entry `files` has the hashes of the other files.

    Raises:
        BundleError: The folder is no bundle, the file is damaged, its format is of another version, or an entry is not
            what the code reads.
    """
    facts = _read_signed(folder)
    entries = {name: value for name, value in facts.items() if name not in ("format", "sha256")}
    with explain_faults(folder, MANIFEST_FILE):
        bundle_shape.check_facts(entries)
        missing = [name for name in REQUIRED_FILES if name not in entries["files"]]
        if missing:
            raise ShapeFault("files", f"an entry for {missing[0]}", "none")
    return entries


def _read_signed(folder: Path) -> dict[str, Any]:
    """Return the content of fullbake.json if its format and its own sha256 are right."""
    path = folder / MANIFEST_FILE
    try:
        facts = read_checked_json(path) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
    if facts is None:
        raise BundleError(
            "this is not a fullbake bundle",
            where=str(folder),
            expected=f"a folder with {MANIFEST_FILE}, as `fullbake train --out` writes it",
            got=_describe_path(folder),
            remedy=_remedy_of_no_bundle(folder),
        )
    if not isinstance(facts, dict) or "format" not in facts:
        raise _damaged(folder, "no entry 'format'" if isinstance(facts, dict) else "no object")
    if type(facts["format"]) is not int or facts["format"] != BUNDLE_FORMAT:
        versions = facts.get("versions")
        writer = versions.get("fullbake") if isinstance(versions, dict) else None
        raise BundleError(
            "this bundle has another format version",
            where=str(path),
            expected=str(BUNDLE_FORMAT),
            got=str(facts["format"])[:40],
            remedy=f"It was written by fullbake {str(writer)[:40]}: install that version.",
        )
    if facts != sign_manifest(facts):
        raise BundleError(
            f"{MANIFEST_FILE} is damaged (its own sha256 differs)", where=str(folder), remedy=COPY_AGAIN_REMEDY
        )
    return facts


def _damaged(folder: Path, got: str) -> BundleError:
    return BundleError(f"{MANIFEST_FILE} is damaged", where=str(folder), got=got[:300], remedy=COPY_AGAIN_REMEDY)


@contextmanager
def explain_faults(folder: Path, name: str) -> Iterator[None]:
    """Turn what is wrong with a bundle's files into a BundleError within the block.

    Args:
        folder: The bundle.
        name: The file that the block checks, for the error.

    Yields:
        Nothing.

    Raises:
        BundleError: A ShapeFault, a BaseModelError or a RecipeError was raised within the block, or a file could not be
            read.
    """
    try:
        yield
    except ShapeFault as fault:
        raise BundleError(
            f"{name} cannot be used",
            where=f"{folder / name}, {fault.where}" if fault.where else str(folder / name),
            expected=fault.expected,
            got=fault.got,
            remedy=COPY_AGAIN_REMEDY,
        ) from fault
    except (BaseModelError, RecipeError) as error:
        raise BundleError(
            error.what,
            where=error.where or str(folder),
            expected=error.expected,
            got=error.got,
            remedy=COPY_AGAIN_REMEDY,
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{name} of the bundle cannot be read", where=str(folder), got=str(error)[:300], remedy=COPY_AGAIN_REMEDY
        ) from error


def check_contents(folder: Path, facts: Mapping[str, Any], files: Mapping[str, Any]) -> TokenizerFacts:
    """Check everything that a bundle holds besides the weights, without a model class.

    Args:
        folder: The bundle, whose hashes were found right.
        facts: The entries of fullbake.json.
        files: Its entry `files`.

    Returns:
        What is known of its tokenizer.

    Raises:
        BundleError: Names the file and what is wrong with it.
    """
    with explain_faults(folder, "config.json"):
        base_files.check_base_files(folder)
        config = base_files.read_settings(folder / "config.json", "config.json")
        bundle_shape.check_labels_of_config(config, facts)
    with explain_faults(folder, "tokenizer.json"):
        return check_tokenizer_file(folder / "tokenizer.json", folder, sha256=files["tokenizer.json"]["sha256"])


def read_seen(folder: Path, files: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of seen.safetensors; none of a bundle that was shared without that file.

    Args:
        folder: The bundle, whose hashes were found right.
        files: The entry `files` of its fullbake.json.

    Raises:
        BundleError: The arrays are not what a bundle has there.
    """
    if SEEN_FILE not in files:
        return {}
    with explain_faults(folder, SEEN_FILE):
        arrays = storage.read_tensors(folder / SEEN_FILE)
        bundle_shape.check_seen(arrays)
    return arrays


def probe_texts() -> list[str]:
    """Return the packaged probe texts. A user's rows are never used for this.

    Bundles hold the token ids of these texts, so the file must stay as it is.
    """
    return (resources.files("fullbake") / "resources" / "samples" / "probe.txt").read_text("utf-8").splitlines()


def probe_settings(tokens: TokensConfig) -> TokensConfig:
    """Return how the probe texts of a bundle are cut. tokens: how its texts are."""
    assert tokens.max_length is not None
    return TokensConfig(max_length=min(PROBE_TEXT_TOKENS, tokens.max_length))


def encode_probe(tokenizer: Any, tokens: TokensConfig) -> Encoded:
    """Return the probe texts as a bundle's tokenizer reads them.

    Args:
        tokenizer: The bundle's.
        tokens: How its texts are cut.
    """
    return encode(probe_texts(), tokenizer, probe_settings(tokens))


def probe_logits(predictor: Predictor, encoded: Encoded) -> np.ndarray:
    """Compute the logits of the probe texts, in batches as in every other run.

    Args:
        predictor: The classifier's engine.
        encoded: The probe texts.

    Returns:
        float32 (texts, classes).
    """
    return predictor.logits(encoded, TokensConfig(max_length=max(4, int(encoded.lengths.max()))), title="checking")


def has_same_ids(stored: Mapping[str, np.ndarray], encoded: Encoded) -> bool:
    """Return True if a bundle's tokenizer gives the ids of the probe texts that were saved with it.

    Args:
        stored: The arrays of probe.safetensors.
        encoded: The probe texts, encoded now.
    """
    types = stored.get("token_type_ids")
    same = np.array_equal(stored["input_ids"], encoded.input_ids) and np.array_equal(stored["offsets"], encoded.offsets)
    if types is None or encoded.token_type_ids is None:
        return same and types is encoded.token_type_ids
    return same and np.array_equal(types, encoded.token_type_ids)


def read_probe(folder: Path, *, labels: int, max_length: int) -> dict[str, np.ndarray]:
    """Return the arrays of probe.safetensors.

    Args:
        folder: The bundle.
        labels: Number of its labels.
        max_length: Longest row in tokens that its network takes.

    Raises:
        BundleError: They are not what a bundle has there.
    """
    with explain_faults(folder, "probe.safetensors"):
        arrays = storage.read_tensors(folder / "probe.safetensors")
        bundle_shape.check_probe(arrays, labels=labels, max_length=max_length)
    return arrays


def _describe_path(folder: Path) -> str:
    """Say what is found in place of a bundle."""
    if folder.is_dir():
        return f"a folder without {MANIFEST_FILE}"
    return "a file" if folder.exists() else "no such folder"


_MARKS = (MANIFEST_FILE, "cascade.json")
"""A bundle, or a cascade of two, is a folder with one of these."""


def _remedy_of_no_bundle(folder: Path) -> str | None:
    """Say what to do about a folder that is no bundle: what has nearly its name, or the order of arguments."""
    if folder.is_file() or " " in folder.name:
        return "The folder of the bundle comes first, the texts or rows after it."
    if folder.exists():
        return None
    near = similar_paths(folder, lambda path: any((path / name).is_file() for name in _MARKS))
    if near:
        return f"Did you mean {near[0]!r}?"
    return None if folder.parent.is_dir() else no_folder_remedy(folder)


def verify_files(folder: Path, recorded: dict[str, Any]) -> None:
    """Check the files of a bundle against their recorded sizes and hashes.

    Args:
        folder: The bundle.
        recorded: Size and sha256 of each file, by name.

    Raises:
        BundleError: A file is missing, damaged or foreign.
    """
    faults = hashing.find_file_faults(folder, recorded, optional=(MANIFEST_FILE, *UNHASHED_FILES))
    if faults:
        raise BundleError(
            f"the bundle differs from what was saved: {'; '.join(faults)}", where=str(folder), remedy=COPY_AGAIN_REMEDY
        )


def relative_difference(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the largest difference between two arrays of probe logits, relative to the largest expected logit."""
    scale = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(got - expected).max()) / scale if got.shape == expected.shape else float("inf")
