"""FNet ignores the attention mask, so that padding changes its states: it is refused before work, with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bases import make_other_base
from helpers.rows import make_rows, write_csv

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("way", ["frozen", "finetune"])
def test_base_that_mixes_padding_into_words_is_refused(way: str, tmp_path: Path, run: Run) -> None:
    base = make_other_base("fnet", tmp_path / "base", tokenizer="bert")
    rows = write_csv(tmp_path / "train.csv", make_rows())
    code, out, err = run("train", rows, "--base", base, "--way", way, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "padding changes the base's states of a text" in err
    assert "model type 'fnet'" in err
    assert not (tmp_path / "out").exists()
