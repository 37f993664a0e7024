"""A folder that may not be written to is one clear paragraph before any work; a read-only cache is only a warning."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.permissions import permissions_hold
from helpers.rows import make_rows, write_csv

from fullbake.cli.main import main
from fullbake.core import storage

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


def test_a_default_cache_that_may_not_be_written_to_is_one_warning(
    run: Run, base: Path, rows: Path, closed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admissions, tokenizers and features have folders of their own in it."""
    monkeypatch.setenv("FULLBAKE_CACHE_DIR", str(closed_folder))
    fresh = Path(shutil.copytree(base, tmp_path / "base"))
    storage.write_json(fresh / "config.json", storage.read_json(fresh / "config.json") | {"layer_norm_eps": 1e-6})
    with permissions_hold():
        code, _, error = run("train", rows, "--base", fresh, *SHORT, "--out", tmp_path / "m")
    assert code == 0, error
    assert error.count("warning: ") == 1
    assert f"warning: the cache {closed_folder}/" in error
    assert list(closed_folder.iterdir()) == []


def test_a_cache_that_somebody_deletes_while_a_run_works_is_made_again(
    run: Run, base: Path, rows: Path, tmp_path: Path
) -> None:
    cache, deleted = tmp_path / "cache", threading.Event()

    def delete() -> None:
        for _ in range(60_000):
            if any((cache / "features").glob("*")):
                shutil.rmtree(cache, ignore_errors=True)
                deleted.set()
                return
            time.sleep(0.001)

    thread = threading.Thread(target=delete)
    thread.start()
    code, _, error = run("train", rows, "--base", base, *SHORT, "--out", tmp_path / "m", "--cache-dir", cache)
    thread.join()
    assert deleted.is_set()
    assert code == 0, error
    assert (tmp_path / "m" / "fullbake.json").is_file()


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
