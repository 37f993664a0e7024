"""Change the JSON files of a bundle or a base at random, and use what comes out as a user would."""

import copy
import json
import random
from pathlib import Path
from typing import Any, Final

from fullbake.classifier.manifest import MANIFEST_FILE, sign_manifest
from fullbake.core.hashing import hash_files

_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "none", "0", "gelu", "../x", "/etc/passwd", "\ud800", "\x1b[31m", "a" * 70_000),
    *([], {}, [[]], [None], ["a", "a"], {"a": 1}, {"": {}}, [0.5, "x"]),
)
"""What a value is replaced by."""

TEXTS: Final = ["good food and water", "", "THE team, again!"]


def mutate(content: Any, rng: random.Random) -> Any:
    """Return a copy of some JSON with one to three changes.

    Args:
        content: An object.
        rng: Where and how.
    """
    changed = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _pick(changed, rng)
        if holder is None:
            return rng.choice(_VALUES)
        _change(holder, key, rng)
    return changed


def _pick(content: Any, rng: random.Random) -> tuple[Any, Any]:
    """Return an object or list within `content` and one of its keys or positions; None twice for `content` itself."""
    holder, key, value = None, None, content
    while isinstance(value, dict | list) and value and (holder is None or rng.random() < 0.7):
        holder = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = holder[key]
    return (None, None) if rng.random() < 0.01 else (holder, key)


def _change(holder: Any, key: Any, rng: random.Random) -> None:
    value = holder[key]
    kind = rng.randrange(10)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif kind == 2 and isinstance(value, list):
        holder[key] = value * 2 if rng.random() < 0.5 else value[::-1]
    elif kind == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = value * rng.choice((-1, 2, 1_000, 10**6, 10**9)) + rng.choice((0, 1))
    elif kind == 4:
        holder[key] = rng.choice(([value], {"a": value}, json.dumps(value)))
    elif kind == 5:
        for _ in range(rng.choice((30, 200, 3_000))):
            value = [value]
        holder[key] = value
    elif kind == 6 and isinstance(holder, dict):
        other = rng.choice(list(holder))
        holder[key], holder[other] = holder[other], holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))


def write_mutated(folder: Path, name: str, rng: random.Random) -> None:
    """Change one JSON file of a bundle or a base at random. A bundle's fullbake.json is then signed anew.

    Args:
        folder: The bundle or the base.
        name: The file to change.
        rng: Where and how.
    """
    path = folder / name
    changed = mutate(json.loads(path.read_bytes()), rng)
    signed = isinstance(changed, dict) and name == MANIFEST_FILE
    try:
        path.write_text(json.dumps(_signed(changed) if signed else changed), "utf-8", "surrogatepass")
    except RecursionError:
        path.write_text("[" * 100_000)
    if name != MANIFEST_FILE and (folder / MANIFEST_FILE).exists():
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        files = {file: facts for file, facts in hash_files(folder).items() if file in manifest["files"]}
        (folder / MANIFEST_FILE).write_text(json.dumps(_signed(manifest | {"files": files})), "utf-8")


def _signed(content: dict[str, Any]) -> dict[str, Any]:
    try:
        return sign_manifest(content)
    except TypeError:  # a key that is no text
        return content


def use_bundle(folder: Path) -> str:
    """Score texts with a bundle by every engine that it has, and save it again beside itself.

    Returns:
        "" or what the engines disagree on.

    Raises:
        BundleError: It is refused.
    """
    from fullbake import Classifier
    from fullbake.classifier.bundle_writer import model_card

    classifier = Classifier.load(folder, engine="torch")
    probabilities = classifier.predict_proba(TEXTS)
    if (folder / "model.onnx").exists():
        other = Classifier.load(folder, engine="onnx")
        if abs(other.predict_proba(TEXTS) - probabilities).max() > 1e-4:
            return "the engines give other probabilities"
        if other.predict(TEXTS).tolist() != classifier.predict(TEXTS).tolist():
            return "the engines give other labels"
    _ = classifier.stamps, classifier.columns, model_card(classifier.record.facts)
    classifier.save(folder.parent / "again", overwrite=True)
    return ""


def use_base(folder: Path) -> str:
    """Read a base's tokenizer and encoder, and compute the states of texts.

    Returns:
        "".

    Raises:
        BaseModelError: It is refused.
    """
    import torch

    from fullbake.config.sections import TokensConfig
    from fullbake.models.encoder import load_encoder
    from fullbake.models.prediction import encode
    from fullbake.models.pretrained import load_config, max_positions
    from fullbake.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    limit = min(max_positions(load_config(folder)), 128)
    encode(TEXTS, tokenizer, TokensConfig(max_length=max(limit, 4)))
    encoder = load_encoder(folder)
    with torch.inference_mode():
        encoder(torch.zeros((1, 2), dtype=torch.long))
    return ""
