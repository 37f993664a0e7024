"""The commands `distill` and `cascade`: what they print, what they write, and how they refuse."""

import csv
import json
from pathlib import Path

import pytest
from helpers.rows import make_rows, train, write_csv

SHORT = ("--width", "16", "--pair-buckets", "61", "--epochs", "4")


@pytest.fixture(scope="module")
def teacher(bases, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    train(bases("bert"), folder).save(folder / "teacher")
    return folder / "teacher"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    return {
        "seen": write_csv(folder / "seen.csv", make_rows(150, seed=5)),
        "unlabeled": write_csv(folder / "plain.csv", [(text,) for text, _ in make_rows(50, seed=8)], ("text",)),
        "new": write_csv(folder / "new.csv", make_rows(120, seed=6)),
        "test": write_csv(folder / "test.csv", make_rows(30, seed=7)),
    }


def test_distill_and_cascade_from_files_to_scored_rows(run, teacher, texts, tmp_path):
    student, cascade, scored = (tmp_path / name for name in ("student", "cascade", "scored.csv"))
    files = ("--data", texts["seen"], "--data", texts["unlabeled"])
    code, out, err = run("distill", teacher, *files, "--out", student, "--cache-dir", tmp_path / "cache", *SHORT)
    assert code == 0, err
    for word in ("student", "TF-IDF", "teacher", "equal labels", "macro-F1", "20 held-out texts"):
        assert word in out
    code, out, err = run("cascade", student, teacher, "--data", texts["new"], "--agreement", "0.6", "--out", cascade)
    assert code == 0, err
    assert "the student answers" in out
    assert run("predict", cascade, texts["test"], "--out", scored)[0] == 0
    with scored.open(newline="") as file:
        assert {row["answered_by"] for row in csv.DictReader(file)} <= {"student", "teacher"}
    code, out, _ = run("evaluate", cascade, texts["test"])
    assert code == 0
    assert "answered by: student" in out
    code, out, _ = run("predict", cascade, "good food", "old game")
    assert code == 0
    assert "answered by" in out


def test_json_has_all_numbers(run, teacher, texts, tmp_path):
    words = ("--data", texts["seen"], "--out", tmp_path / "s", "--cache-dir", tmp_path / "cache", *SHORT)
    code, out, err = run("distill", teacher, *words, "--no-baseline", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [row["name"] for row in found["held_out"]] == ["student", "teacher"]
    assert found["student"]["texts"] == 150
    words = ("--data", texts["new"], "--agreement", "0.6", "--out", tmp_path / "c", "--json")
    code, out, _ = run("cascade", tmp_path / "s", teacher, *words)
    assert code == 0
    assert json.loads(out)["rows"] == 120


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--agreement", "1.5"), "--agreement"),
        (("--width", "0"), "--width"),
        (("--head", "standard"), "--head"),
        (("--resume", "--restart"), "--resume"),
        (("--checkpoint-every", "never"), "--checkpoint-every"),
    ],
)
def test_wrong_flag_is_one_paragraph_and_no_work(run, teacher, texts, tmp_path, words, flag):
    code, out, err = run("distill", teacher, "--data", texts["seen"], "--out", tmp_path / "s", *words)
    assert code == 2
    assert flag in err
    assert not out
    assert not (tmp_path / "s").exists()


def test_cascade_refuses_a_wrong_agreement(run, teacher, texts, tmp_path):
    words = ("--data", texts["new"], "--agreement", "99", "--out", tmp_path / "c")
    code, _, err = run("cascade", teacher, teacher, *words)
    assert code == 2
    assert "--agreement" in err


def test_data_is_needed(run, teacher, tmp_path):
    code, _, err = run("distill", teacher, "--out", tmp_path / "s")
    assert code == 2
    assert "--data" in err
