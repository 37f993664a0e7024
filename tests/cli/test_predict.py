"""`fullbake predict` on many files: what is a folder of shards, and which flags go with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.shards import read_rows, write_shards

from fullbake.cli.main import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, words)])
    return int(end.value.code or 0)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def bundle(graph_bundles: Callable[..., Path]) -> Path:
    return graph_bundles("bert")


def test_a_folder_a_glob_and_an_address_go_into_a_folder(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_shards(tmp_path / "in")
    assert run(bundle, source, "--out", tmp_path / "a") == 0
    assert "18 rows in 3 shards scored into" in capsys.readouterr().err
    assert run(bundle, f"{source}/part-[01].csv", "--out", tmp_path / "b") == 0
    assert run(bundle, source.as_uri(), "--out", tmp_path / "c", "--top-k", "1") == 0
    assert (len(read_rows(tmp_path / "a")), len(read_rows(tmp_path / "b"))) == (18, 12)
    assert (tmp_path / "c" / "part-0.csv").read_text().startswith("id,text,predicted,score,label:1,score:1\n")


def test_thresholds_and_labels_alone(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, options = write_shards(tmp_path / "in", shards=1), ["--threshold", "food=0", "--labels-only"]
    assert run(bundle, "a text", *options) == 0
    shown = capsys.readouterr().out
    assert "food" in shown
    assert "score" not in shown
    assert run(bundle, source / "part-0.csv", *options, "--out", tmp_path / "one.csv") == 0
    assert run(bundle, source, *options, "--out", tmp_path / "out") == 0
    for path in (tmp_path / "one.csv", tmp_path / "out" / "part-0.csv"):
        head, *rows = path.read_text().splitlines()
        assert head == "id,text,predicted"
        assert {row.rpartition(",")[2] for row in rows} == {"food"}
    for others in (["--threshold", "food=0"], ["--labels-only"], ["--threshold", "food=1", "--labels-only"]):
        capsys.readouterr()
        assert run(bundle, source, *others, "--out", tmp_path / "out") == 2
        assert "written with other options" in capsys.readouterr().err


def test_one_file_goes_into_a_folder_if_jobs_are_named(bundle: Path, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", shards=1)
    assert run(bundle, source / "part-0.csv", "--out", tmp_path / "out", "--jobs", "1") == 0
    assert len(read_rows(tmp_path / "out")) == 6


def test_a_folder_into_a_file_stays_one_table(bundle: Path, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in")
    assert run(bundle, source, "--out", tmp_path / "all.csv") == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 19


def test_bad_shards_are_skipped_if_asked(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_shards(tmp_path / "in")
    (source / "part-1.csv").write_text('id,text\n1,"x\n')
    assert run(bundle, source, "--out", tmp_path / "out") == 2
    assert "--skip-bad-shards" in capsys.readouterr().err
    assert run(bundle, source, "--out", tmp_path / "out", "--skip-bad-shards") == 0
    assert "1 shard of 3 could not be read (see _manifest.json): part-1.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["in/*.csv"], "the scored files go into a folder"),
        (["in", "--out", "x.csv", "--jobs", "2"], "the scored files go into a folder"),
        (["--out", "x", "--on", "ray"], "--on scores files"),
        (["a text", "another", "--out", "x", "--jobs", "2"], "--jobs scores files"),
        (["in", "--out", "x", "--threshold", "high"], "a threshold is a score"),
        (["in", "--out", "x", "--threshold", "foo=0.5"], "no label 'foo'"),
        (["in", "--out", "x", "--on", "dask"], "no place to run on"),
        (["in/gone", "--out", "x", "--jobs", "2"], "no such file or folder"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    bundle: Path,
    tmp_path: Path,
    words: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_shards(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert run(bundle, *words) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
