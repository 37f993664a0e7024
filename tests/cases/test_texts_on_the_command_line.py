"""An argument is a text where no such file is, and lines that end at CR are lines."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

from fullbake.cli.main import main

Run = Callable[..., tuple[int, str, str]]
MAC = b"good great movie\rbad poor film\rhappy love game\r"


@pytest.fixture(scope="module")
def bundle(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    rows = write_csv(folder / "rows.csv", make_rows())
    words = ("train", rows, "--base", bases("bert"), "--way", "frozen", "--head", "linear", "--max-length", "48")
    with pytest.raises(SystemExit, match="0"):
        main([*map(str, words), "--out", str(folder / "m")])
    return folder / "m"


def test_a_text_that_ends_like_a_file_is_a_text(run: Run, bundle: Path) -> None:
    code, out, error = run("predict", bundle, "please open report.csv")
    assert code == 0, error
    assert "please open report.csv" in out
    assert "there is no file 'please open report.csv': it is scored as a text" in error
    code, out, error = run("predict", bundle, "please open report.csv", "and close notes.jsonl")
    assert code == 0, error
    assert "and close notes.jsonl" in out


def test_the_name_of_a_missing_file_is_no_text(run: Run, bundle: Path, tmp_path: Path) -> None:
    """It is more likely a mistyped name, and nothing wrong passes in silence."""
    for word in ("report.csv", tmp_path / "no such.csv"):
        code, out, error = run("predict", bundle, word)
        assert (code, out) == (2, "") or " " in str(word)
        assert "no such file" in error or "scored as a text" in error


def test_a_text_that_is_the_name_of_a_folder(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    code, out, error = run("predict", bundle, "good")
    assert code == 0, error
    assert "good" in out
    assert "the folder 'good' holds no file of rows: the word is scored as a text" in error
    write_csv(tmp_path / "good" / "rows.csv", make_rows(4))
    code, out, _ = run("predict", bundle, "good")
    assert code == 0
    assert len(list(csv.DictReader(io.StringIO(out)))) == 4


def test_lines_of_stdin_may_end_at_cr(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MAC)))
    code, out, _ = run("predict", bundle)
    assert code == 0
    assert [row["text"] for row in csv.DictReader(io.StringIO(out))] == MAC.decode().split("\r")[:3]


def test_a_corpus_whose_lines_end_at_cr(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    sentences = [f"{text}." for text, _ in make_rows(60)]
    counts = []
    for name, end in (("mac", "\r"), ("unix", "\n")):
        corpus = tmp_path / f"{name}.txt"
        corpus.write_bytes("".join(f"{text}{end}" + end * (n % 5 == 4) for n, text in enumerate(sentences)).encode())
        out = tmp_path / name
        code, _, error = run(
            *("pretrain", corpus, "--base", bases("bert"), "--out", out, "--steps", "2", "--max-length", "32"),
            *("--cache-dir", tmp_path / "cache"),
        )
        assert code == 0, error
        counts.append(json.loads((out / "fullbake.json").read_text("utf-8"))["corpus"])
    assert counts[0]["documents"] == 12
    assert {key: counts[0][key] for key in ("documents", "tokens")} == {
        key: counts[1][key] for key in ("documents", "tokens")
    }


def test_a_closed_stdin_is_said_to_be_closed(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, _, error = run("predict", bundle)
    assert code == 2
    assert error.startswith("error: stdin: it is closed.")
