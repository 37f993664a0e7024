"""A config.json that asks for fewer layers than the weights have is refused, not trained on half of the encoder."""

import json
from collections.abc import Callable
from pathlib import Path

from helpers.bases import make_base
from helpers.rows import make_rows, write_csv

Run = Callable[..., tuple[int, str, str]]


def test_layers_that_the_config_leaves_out_are_named(tmp_path: Path, run: Run) -> None:
    base = make_base("bert", tmp_path / "base", layers=4)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    rows = write_csv(tmp_path / "train.csv", make_rows())
    code, out, err = run("train", rows, "--base", base, "--way", "frozen", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "does not ask for, in 2 layers" in err
    assert "encoder.layer.2." in err
