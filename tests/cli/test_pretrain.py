"""The commands of raw text, as they are typed: pretrain, pilot, probe."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.corpora import make_documents

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
SHORT = ("--steps", "4", "--max-length", "32", "--batch-size", "8", "--learning-rate", "1e-3", "--evaluations", "2")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.txt"
    path.write_text("\n\n".join(make_documents(30)))
    return path


def test_pretrain_then_probe(run: Run, bases: Bases, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    code, shown, told = run("pretrain", corpus, "--base", bases("bert"), "--out", out, *SHORT)
    assert code == 0, told
    assert "held-out text: masked-LM loss" in shown
    assert f"fullbake train train.csv --base {out}" in shown
    assert "step 4/4" in told
    code, shown, _ = run("probe", out, "--json")
    found = json.loads(shown)
    assert found["base"] == str(bases("bert"))
    assert found["forgotten"] == found["after"]["mlm_loss"] - found["before"]["mlm_loss"] != 0
    code, shown, _ = run("probe", bases("bert"))
    assert code == 0
    assert "+0.0000" in shown


def test_pilot(run: Run, bases: Bases, corpus: Path) -> None:
    code, shown, told = run("pilot", corpus, "--base", bases("bert"), "--objective", "mlm", *SHORT)
    assert code == 0, told
    assert "tokens per word" in shown
    assert "tokens once takes about" in shown


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--objective", "nsp"), "Did you mean 'mlm"),
        (("--phases", "16:0.9,32:0.2"), "the shares have to add up to 1, not to 1.1"),
        (("--steps", "5", "--epochs", "2"), "exclude each other"),
        (("--recipe", "finetune"), "has no section further_pretraining"),
        (("--mask-probability", "1.5"), "mask_probability"),
        (("--max-length", "100000"), "longer rows than the base can read"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_read(
    run: Run, bases: Bases, corpus: Path, tmp_path: Path, flags: tuple[str, ...], told: str
) -> None:
    code, _, error = run("pretrain", corpus, "--base", bases("bert"), "--out", tmp_path / "new", *flags)
    assert code == 2
    assert told in error
    assert not (tmp_path / "new").exists()


def test_bad_corpora_are_refused(run: Run, bases: Bases, tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("\n\n")
    binary.write_bytes(b"some text\n\xff\xfe\x00 more\n")
    for path, told in ((empty, "there is no text"), (binary, "binary.txt"), (tmp_path / "none.txt", "none.txt")):
        code, _, error = run("pretrain", path, "--base", bases("bert"), "--out", tmp_path / "new", *SHORT)
        assert code == 2
        assert told in error
