"""An X-MOD base of two languages that names none of them is refused before work; with a name it trains."""

import json
from collections.abc import Callable
from pathlib import Path

from helpers.bases import make_other_base
from helpers.rows import dataset, make_rows, recipe, write_csv

from fullbake import adapt

Run = Callable[..., tuple[int, str, str]]


def test_languages_and_the_field_are_named(tmp_path: Path, run: Run) -> None:
    base = make_other_base("xmod", tmp_path / "base", languages=["en_XX", "de_DE"])
    rows = write_csv(tmp_path / "train.csv", make_rows())
    code, out, err = run("train", rows, "--base", base, "--way", "frozen", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "default_language" in err
    assert "en_XX, de_DE" in err
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"default_language": "de_DE"}))
    adapt(recipe(base), dataset(tmp_path), cache_dir=tmp_path / "cache")
