"""A file whose name is not UTF-8, as old systems wrote it, is trained on, and its bundle loads."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

from fullbake import Classifier


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_file_is_inspected_trained_on_and_scored(
    run: Callable[..., tuple[int, str, str]], bases: Callable[..., Path], tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows(30)).rename(tmp_path / os.fsdecode(b"r\xe9ponses.csv"))
    code, _, error = run("inspect", rows)
    assert (code, "Traceback" in error) == (0, False), error
    short = ("--way", "frozen", "--head", "linear", "--max-length", "16", "--folds", "0")
    code, _, error = run("train", rows, "--base", bases("bert"), *short, "--out", tmp_path / "m")
    assert code == 0, error
    assert "ponses.csv" in json.dumps(json.loads((tmp_path / "m" / "fullbake.json").read_text("utf-8")))
    assert Classifier.load(tmp_path / "m").label_names == ("food", "game", "money")
    code, _, error = run("evaluate", tmp_path / "m", rows)
    assert code == 0, error
