"""Tokens that were added to a tokenizer and not to the model are refused before work, with how to add them."""

import shutil
from collections.abc import Callable
from pathlib import Path

from helpers.bases import make_tokenizer
from helpers.rows import make_rows, write_csv

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


def test_ids_beyond_the_embedding_table_are_named(bases: Bases, tmp_path: Path, run: Run) -> None:
    base = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    tokenizer = make_tokenizer("bert")
    tokenizer.add_tokens(["goodish", "baddish"])
    tokenizer.save_pretrained(base)
    rows = write_csv(tmp_path / "train.csv", [(f"goodish {text}", label) for text, label in make_rows()])
    code, out, err = run("train", rows, "--base", base, "--way", "frozen", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "2 ids beyond the base's embedding table" in err
    assert "resize_token_embeddings" in err
