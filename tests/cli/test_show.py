"""The commands that look at something: what they print, and that they print it all."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import refusal
from helpers.rows import make_rows, write_csv

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
SHORT = ("--max-length", "48", "--epochs", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", make_rows())


def test_recipes_are_listed_and_read_back(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("recipes")
    assert [line.split()[0] for line in out.splitlines()] == [
        "devlin2019",
        "finetune",
        "frozen",
        "frozen-linear",
        "frozen-mlp",
        "frozen-standard",
        "further-pretrain",
        "sun2019",
        "tapt",
    ]
    code, out, _ = run("recipes", "frozen-mlp")
    assert code == 0
    from fullbake import Recipe

    (tmp_path / "mine.yaml").write_text(out)
    assert Recipe.load(tmp_path / "mine.yaml") == Recipe.load("frozen-mlp", base="demo")


def test_check(run: Run, bases: Bases, tmp_path: Path) -> None:
    code, out, error = run("check", bases("bert"))
    assert (code, error) == (0, "")
    assert "admitted, bert, 2 layers of width 32" in out
    assert out.count("passed") == 7
    code, out, _ = run("check", bases("bert"), "--json")
    assert (code, json.loads(out)["admitted"], json.loads(out)["remembered"]) == (0, True, False)


def test_check_of_a_base_that_is_refused(run: Run, bases: Bases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    code, out, error = run("check", folder)
    assert code == 2
    assert "refused, bert" in out
    assert "not tried" in out
    assert "error: " in error
    assert "does not ask for" in error
    code, out, _ = run("check", folder, "--json")
    assert (code, json.loads(out)["admitted"]) == (2, False)
    assert "absent" in refusal(run, "check", tmp_path / "absent")


def test_summary(run: Run, bases: Bases) -> None:
    code, out, _ = run("summary", bases("bert"), "--way", "frozen", "--head", "mlp", "--num-labels", "3")
    assert code == 0
    assert "Non-trainable params" in out
    assert "(batch, 3)" in out


def test_cache_is_shown_and_cleared(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    where = ("--cache-dir", tmp_path / "cache")
    assert "0 entries" in run("cache", *where)[1]
    run("train", rows, "--base", bases("bert"), "--way", "frozen", "--head", "linear", "--out", tmp_path / "m", *where)
    assert "60 x 32" in run("cache", *where)[1]
    assert run("cache", "--clear", *where)[1].startswith("cleared ")
    assert "0 entries" in run("cache", *where)[1]


def test_inspect_prints_facts_and_draws_them(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", rows, "--base", bases("bert"), "--plot", tmp_path / "facts.png")
    assert code == 0
    assert "60 rows" in out
    assert "tokens" in out
    assert (tmp_path / "facts.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("inspect", rows, "--json")
    facts = json.loads(out)
    assert (facts["rows"], facts["tokens"]) == (60, None)


def test_inspect_lists_suspects(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    run("inspect", rows, "--base", bases("bert"), "--suspects", tmp_path / "suspects.csv", "--cache-dir", tmp_path)
    with (tmp_path / "suspects.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 60
    assert "--base demo" in refusal(run, "inspect", rows, "--suspects", tmp_path / "again.csv")
