"""One row of a class is enough where a file is given for validation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CASE = Path(__file__).parent.parent / "fixtures" / "cases" / "one_row_a_class"
Run = Callable[..., tuple[int, str, str]]
FLAGS = ("--way", "frozen", "--head", "linear", "--max-length", "16", "--optimizer", "lbfgs")


@pytest.mark.parametrize("train", ["one_shot.csv", "one_rare.csv"])
def test_one_row_is_trained_on_where_a_file_validates(
    train: str, run: Run, bases: Callable[..., Path], tmp_path: Path
) -> None:
    base = ("--base", bases("bert"), "--out", tmp_path / "out")
    code, _, errors = run("train", CASE / train, *base, "--validation", CASE / "validation.csv", *FLAGS)
    assert code == 0, errors


def test_share_for_validation_names_both_ways_out(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    base = ("--base", bases("bert"), "--out", tmp_path / "out")
    code, _, errors = run("train", CASE / "one_rare.csv", *base, *FLAGS)
    assert code == 2
    assert "--drop-rare 2" in errors
    assert "--validation FILE" in errors
    code, out, errors = run("train", CASE / "one_rare.csv", *base, "--drop-rare", "2", *FLAGS)
    assert code == 0, errors
    assert "left out, with 1 row" in errors
    assert "--drop-rare" in out  # the scores are stamped
    assert "--drop-rare 2" in (tmp_path / "out" / "README.md").read_text("utf-8")
    # A file with that class is scored without its rows, which is said.
    code, _, errors = run("evaluate", tmp_path / "out", CASE / "validation.csv")
    assert code == 0, errors
    assert "are not scored" in errors


def test_comparison_takes_one_row_of_a_class(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    lines = (CASE / "validation.csv").read_text("utf-8").splitlines()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *(f"once more {line}" for line in lines[1:])]) + "\n", "utf-8")
    files = ("--validation", CASE / "validation.csv", "--test", test)
    code, _, errors = run(
        *(
            "compare",
            CASE / "one_shot.csv",
            "--no-bench",
            "--recipes",
            "majority,frozen-linear",
            "--base",
            bases("bert"),
        ),
        *("--out", tmp_path / "c", "--seeds", "1", "--max-length", "16", *files),
    )
    assert code == 0, errors


def write_lists(path: Path, rows: int = 40) -> Path:
    """Write rows with lists of labels; one row alone has the label `rare`."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            labels = [["good"], ["bad"], ["good", "bad"], []][row % 4] + (["rare"] if row == 9 else [])
            file.write(
                json.dumps({"text": f"the {' '.join(labels) or 'old'} food number {row}", "label": labels}) + "\n"
            )
    return path


@pytest.mark.parametrize("further", [(), ("--folds", "3"), ("--class-weights", "balanced", "--folds", "3")])
def test_label_of_one_row_among_many_labels_is_warned_of_and_trained(
    further: tuple[str, ...], run: Run, bases: Callable[..., Path], tmp_path: Path
) -> None:
    data, base = write_lists(tmp_path / "rows.jsonl"), ("--base", bases("bert"), "--out", tmp_path / "out")
    code, out, errors = run("train", data, *base, *FLAGS, "--test", "0.2", *further)
    assert code == 0, errors
    flat = " ".join(errors.split())
    assert "one label has a single row ('rare')" in flat
    assert "--drop-rare 2" in flat
    assert "rare" in out
    assert run("evaluate", tmp_path / "out", data)[0] == 0
    code, out, errors = run("train", data, *base, *FLAGS, "--overwrite", "--drop-rare", "2", *further)
    assert code == 0, errors
    assert "one label was left out, with 1 row: 'rare'" in " ".join(errors.split())
    # A row with the dropped label is still scored, by its other labels.
    code, _, errors = run("evaluate", tmp_path / "out", data)
    assert code == 0, errors
    assert "are not scored" not in errors


def test_comparison_takes_a_label_of_one_row(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    code, _, errors = run(
        *("compare", write_lists(tmp_path / "rows.jsonl"), "--no-bench", "--recipes", "majority,frozen-linear"),
        *("--base", bases("bert"), "--out", tmp_path / "c", "--seeds", "1", "--max-length", "16"),
    )
    assert code == 0, errors
    assert "no test row has the label 'rare'" in " ".join(errors.split())
