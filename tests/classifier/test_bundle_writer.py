"""A bundle is written from a predictor of torch; its probe holds the logits of that predictor."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.rows import train

from fullbake.classifier import manifest
from fullbake.classifier.bundle_writer import BundleContents, write_bundle
from fullbake.config.sections import TokensConfig
from fullbake.core import storage


def test_probe_has_the_logits_of_the_predictor(bases: Callable[..., Path], tmp_path: Path) -> None:
    made = train(bases("bert"), tmp_path)
    facts = made.record.facts | {
        "problem_type": made.problem_type,
        "label_names": list(made.label_names),
        "thresholds": None,
        "tokens": made.tokens.model_dump(mode="json"),
    }
    contents = BundleContents(made.predictor, made.tokenizer, facts, made.record.seen)  # type: ignore[arg-type]
    write_bundle(tmp_path / "bundle", contents, overwrite=False)
    probe = storage.read_tensors(tmp_path / "bundle" / "probe.safetensors")
    encoded = manifest.encode_probe(made.tokenizer, TokensConfig.model_validate(facts["tokens"]))
    assert np.array_equal(probe["input_ids"], encoded.input_ids)
    assert np.array_equal(probe["logits"], manifest.probe_logits(made.predictor, encoded))
    assert (tmp_path / "bundle" / "history.json").read_text().strip() == "[]"
    assert not (tmp_path / "bundle" / "history.png").exists()
