"""A vocabulary without the unknown token is refused when the base is read, not at the first letter it lacks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from helpers.rows import make_rows, write_csv

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


def test_unknown_token_is_named(bases: Bases, tmp_path: Path, run: Run) -> None:
    base = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    value = json.loads((base / "tokenizer.json").read_text())
    value["model"]["vocab"]["[unused0]"] = value["model"]["vocab"].pop("[UNK]")
    value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] != "[UNK]"]
    (base / "tokenizer.json").write_text(json.dumps(value))
    rows = write_csv(tmp_path / "train.csv", make_rows())  # they have no letter that it lacks
    code, out, err = run("train", rows, "--base", base, "--way", "frozen", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "the unknown token '[UNK]'" in err
