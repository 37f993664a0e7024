"""A base whose config.json describes quantized weights is refused before work, whatever made them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import make_rows, write_csv

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "nobody-knows-it"},
        {},
    ],
)
def test_quantized_base_is_refused(settings: dict[str, Any], bases: Bases, tmp_path: Path, run: Run) -> None:
    base = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    rows = write_csv(tmp_path / "train.csv", make_rows())
    code, out, err = run("train", rows, "--base", base, "--way", "frozen", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "the base is quantized" in err
