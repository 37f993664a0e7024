"""A run over many files: equal to the files alone, resumed, refused, stopped."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import write_csv
from helpers.shards import read_rows, write_shards

from fullbake import predict_file
from fullbake.core.errors import DataError, Error, MissingExtraError, OutputError, RecipeError
from fullbake.core.json_files import read_checked_json
from fullbake.scoring import run
from fullbake.scoring.run import describe_predictions, predict_shards


@pytest.fixture(scope="module")
def bundle(graph_bundles: Callable[..., Path]) -> Path:
    return graph_bundles("bert")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "in")


def test_every_file_is_scored_as_alone(bundle: Path, source: Path, tmp_path: Path) -> None:
    done = predict_shards(bundle, source, tmp_path / "out", top_k=2, prefix="p_")
    for path in source.iterdir():
        predict_file(bundle, path, tmp_path / path.name, top_k=2, prefix="p_")
        assert (tmp_path / "out" / path.name).read_bytes() == (tmp_path / path.name).read_bytes()
    assert (done.rows, done.shards, done.scored, done.bad) == (18, 3, 3, ())
    assert "18 rows in 3 shards scored into" in describe_predictions(done)
    assert read_checked_json(tmp_path / "out" / "_manifest.json")["state"] == "finished"


def test_a_second_run_scores_what_is_new_or_changed(bundle: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_shards(bundle, source, out)
    before = read_rows(out)
    assert predict_shards(bundle, source, out).scored == 0
    (out / "part-1.csv").unlink()
    assert predict_shards(bundle, source, out).scored == 1
    assert read_rows(out) == before
    write_csv(source / "part-9.csv", [("9", "new")], ("id", "text"))
    write_csv(source / "part-0.csv", [("8", "changed")], ("id", "text"))
    done = predict_shards(bundle, source, out)
    assert (done.scored, done.rows) == (2, 14)
    assert [row.split(",")[0] for row in read_rows(out)][-2:] == ["8", "9"]


def test_an_interrupted_run_keeps_finished_shards(
    bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = run.score_as_json
    calls: list[str] = []

    def stop_at_the_second(*arguments: Any) -> str:
        calls.append("")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(run, "score_as_json", stop_at_the_second)
    with caplog.at_level(logging.INFO, "fullbake"), pytest.raises(KeyboardInterrupt):
        predict_shards(bundle, source, tmp_path / "out")
    assert "1 of 3 shards are finished; the same command continues from there" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_manifest.json", "_shards", "part-0.csv"]
    assert predict_shards(bundle, source, tmp_path / "out").scored == 2


def test_a_bad_shard_ends_the_run_or_is_skipped(
    bundle: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "part-1.csv").write_text('id,text\n1,"x\n')
    with pytest.raises(DataError, match=r"(?s)part-1\.csv, line 2: a quote is never closed.*1 of 3.*--skip-bad-shards"):
        predict_shards(bundle, source, tmp_path / "out")
    done = predict_shards(bundle, source, tmp_path / "out", skip_bad_shards=True)
    assert (done.rows, done.bad) == (12, ("part-1.csv",))
    assert "1 shard of 3 could not be read (see _manifest.json): part-1.csv" in caplog.text
    (source / "part-0.csv").write_text("")
    done = predict_shards(bundle, source, tmp_path / "other", skip_bad_shards=True)
    assert done.bad == ("part-0.csv", "part-1.csv")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"text": "txt"}, DataError, "no column 'txt'"),
        ({"top_k": 0}, RecipeError, "--top-k"),
        ({"threshold": 2.0}, RecipeError, "a score from 0 to 1"),
        ({"jobs": 0}, RecipeError, "--jobs"),
        ({"on": "dask"}, Error, "no place to run on"),
        ({"text_pair": "id"}, DataError, "single texts"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    bundle: Path, source: Path, tmp_path: Path, options: dict[str, Any], error: type[Error], words: str
) -> None:
    with pytest.raises(error, match=words):
        predict_shards(bundle, source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_rows_of_shards_that_changed_or_are_gone_do_not_stay_unseen(
    bundle: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    predict_shards(bundle, source, out)
    (source / "part-0.csv").unlink()
    (source / "part-1.csv").write_text('id,text\n1,"x\n')
    done = predict_shards(bundle, source, out, skip_bad_shards=True)
    assert (done.rows, done.bad) == (6, ("part-1.csv",))
    assert "1 scored file of" in caplog.text
    assert "is of shards that are no longer in the input: part-0.csv" in caplog.text
    assert sorted(path.name for path in out.glob("*.csv")) == ["part-0.csv", "part-2.csv"]


def test_one_file_is_one_worker(bundle: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for one in (source / "part-0.csv", f"{source.as_uri()}/part-0.csv"):
        with pytest.raises(RecipeError, match=r"(?s)one file is scored by one worker.*Leave --jobs out.*split -l"):
            predict_shards(bundle, one, tmp_path / "out", jobs=2)
    with caplog.at_level(logging.INFO, "fullbake"):
        predict_shards(bundle, f"{source}/*-0.csv", tmp_path / "out", jobs=2, threads=1)
    assert "scoring with 1 worker of 1 thread" in caplog.text


def test_output_within_the_input_and_taken_names_are_refused(bundle: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="within the input"):
        predict_shards(bundle, source, source / "out")
    for inside in (source.as_uri(), f"{source}/**/*.csv", f"{source.as_uri()}/**/*.csv"):
        with pytest.raises(OutputError, match="within the input"):
            predict_shards(bundle, inside, source / "out")
    predict_shards(bundle, source, tmp_path / "out")
    with pytest.raises(DataError, match="there is a column 'predicted' already"):
        predict_shards(bundle, tmp_path / "out", tmp_path / "twice")
    for _ in range(2):  # files in a folder below do not fit this glob
        assert predict_shards(bundle, f"{source}/*.csv", source / "out").shards == 3


def test_an_address_is_no_place_for_the_output(bundle: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="to folders that this machine sees"):
        predict_shards(bundle, source, "s3://bucket/out")


def test_a_worker_that_fails_is_named(
    bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(text: str) -> Callable[..., Iterator[str]]:
        def pool(*_: Any) -> Iterator[str]:
            yield text

        return pool

    for text, words in (
        ('{"name": "part-0.csv", "fault": "no space.\\nFree some.", "machine": "n7", "trace": "t"}', r"n7.*no space\."),
        ("[]", "something else than facts"),
    ):
        monkeypatch.setattr(run, "_score_here", answer(text))
        with pytest.raises(Error, match=f"(?s){words}"):
            predict_shards(bundle, source, tmp_path / "out")


def test_missing_ray_names_its_extra(
    bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "is_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"fullbake\[ray\]"):
        predict_shards(bundle, source, tmp_path / "out", on="ray")
