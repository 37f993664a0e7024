"""A folder that may not be written to is one clear paragraph before any work; a read-only cache is only a warning."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.permissions import permissions_hold
from helpers.rows import make_rows, write_csv

from fullbake.cli.main import main

Run = Callable[..., tuple[int, str, str]]
SHORT = ("--way", "frozen", "--head", "linear", "--max-length", "32")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", make_rows())


@pytest.fixture(scope="module")
def base(bases: Callable[..., Path]) -> Path:
    return bases("bert")


@pytest.fixture(scope="module")
def bundle(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "m"
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(rows), "--base", str(base), *SHORT, "--out", str(folder)])
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "train {rows} --base {base} --out {closed}/m",
        "pretrain {rows} --base {base} --out {closed}/m",
        "compare {rows} --base {base} --recipes frozen-linear,tfidf --out {closed}/m",
        "demo --out {closed}/m",
        "predict {bundle} {rows} --out {closed}/m.csv",
        "evaluate {bundle} {rows} --report {closed}/m.html",
        "inspect {rows} --plot {closed}/m.png",
    ],
    ids=lambda command: command.split()[0],
)
def test_the_refusal_comes_before_the_work(
    run: Run, base: Path, rows: Path, bundle: Path, closed_folder: Path, command: str
) -> None:
    words = command.format(rows=rows, base=base, bundle=bundle, closed=closed_folder).split()
    with permissions_hold():
        code, out, error = run(*words)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {closed_folder}/m")
    assert error.endswith(
        ": the folder around it cannot be written to.\n"
        "       Got Permission denied. Name a folder that you may write to.\n"
    )
    assert list(closed_folder.iterdir()) == []


def test_a_read_only_cache_is_done_without(
    run: Run, base: Path, rows: Path, closed_folder: Path, tmp_path: Path
) -> None:
    with permissions_hold():
        words = ("train", rows, "--base", base, *SHORT, "--out", tmp_path / "m", "--cache-dir", closed_folder)
        code, _, error = run(*words)
    assert code == 0, error
    assert error.count("warning: ") == 1
    assert f"warning: the cache {closed_folder}/features cannot be written to (Permission denied)" in error
    assert list(closed_folder.iterdir()) == []


def test_a_file_that_may_not_be_read_is_named(run: Run, bundle: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows(4))
    rows.chmod(0)
    with permissions_hold():
        code, out, error = run("predict", bundle, rows)
    assert (code, out) == (2, "")
    assert error.splitlines() == [
        f"error: {rows}: the system refuses to read or write this.",
        "       Got Permission denied.",
    ]
