"""`predict_file` adds labels and scores to the rows of a file."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.rows import make_rows, train, write_csv

from fullbake import Classifier, predict_file
from fullbake.core.errors import DataError, OutputError
from fullbake.data.files import open_table
from fullbake.data.plain_text import open_lines

Bases = Callable[..., Path]
ROWS = [(text, str(number)) for number, (text, _) in enumerate(make_rows(9, seed=7))] + [("", "9"), ('a, "b"\nc', "10")]


@pytest.fixture(scope="module")
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp")


def write_rows(path: Path) -> Path:
    """Write ROWS in the format that the ending of `path` names."""
    names = ("text", "id")
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({name: list(values) for name, values in zip(names, zip(*ROWS, strict=True), strict=True)}), path
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *ROWS])
    return path


def read_columns(path: Path) -> dict[str, list[str]]:
    table = open_table(path)
    columns: dict[str, list[str]] = {name: [] for name in table.names}
    for chunk in table.chunks():
        for name, values in chunk.columns.items():
            columns[name] += list(values)
    return columns


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_keep_their_order_and_get_scores(classifier: Classifier, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"scored.{ending}"
    assert predict_file(classifier, write_rows(tmp_path / f"rows.{ending}"), target) == len(ROWS)
    got = read_columns(target)
    assert list(got) == ["text", "id", "predicted", "score", "score:food", "score:game", "score:money"]
    assert list(zip(got["text"], got["id"], strict=True)) == ROWS
    probabilities = classifier.predict_proba([text for text, _ in ROWS])
    np.testing.assert_allclose(np.array(got["score"], dtype=float), probabilities.max(axis=1), atol=1e-5)
    for number, name in enumerate(classifier.label_names):
        np.testing.assert_allclose(np.array(got[f"score:{name}"], dtype=float), probabilities[:, number], atol=1e-5)
    assert got["predicted"] == classifier.classes_[probabilities.argmax(axis=1)].tolist()


def test_rows_of_many_chunks_keep_their_order(classifier: Classifier, tmp_path: Path) -> None:
    rows = [("good game", str(number)) for number in range(9000)]
    source = write_csv(tmp_path / "many.csv", rows, ("text", "id"))
    assert predict_file(classifier, source, tmp_path / "scored.csv") == 9000
    assert read_columns(tmp_path / "scored.csv")["id"] == [row[1] for row in rows]


def test_lines_of_text_are_scored_to_a_stream(classifier: Classifier) -> None:
    stream = io.BytesIO()
    assert predict_file(classifier, open_lines(io.BytesIO(b"a game\n\nthe bank\n"), column="text"), stream) == 3
    read = list(csv.DictReader(io.StringIO(stream.getvalue().decode())))
    assert [row["text"] for row in read] == ["a game", "", "the bank"]
    assert all(row["predicted"] in classifier.label_names for row in read)


def test_file_with_only_a_header_gives_only_a_header(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "none.csv", [])
    assert predict_file(classifier, source, tmp_path / "scored.csv") == 0
    assert list(read_columns(tmp_path / "scored.csv"))[-4:] == ["score", "score:food", "score:game", "score:money"]


def test_column_name_that_exists_is_refused_and_a_prefix_solves_it(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", ROWS, ("text", "score"))
    with pytest.raises(DataError, match=r"'score' already(?s:.*)--prefix"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert not (tmp_path / "scored.csv").exists()
    predict_file(classifier, source, tmp_path / "scored.csv", prefix="m_")
    assert list(read_columns(tmp_path / "scored.csv"))[:4] == ["text", "score", "m_predicted", "m_score"]


def test_text_column_may_have_another_name(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", ROWS, ("body", "id"))
    with pytest.raises(DataError, match="no column 'text'"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert predict_file(classifier, source, tmp_path / "scored.csv", text="body") == len(ROWS)


def test_existing_target_is_replaced_only_with_overwrite(classifier: Classifier, tmp_path: Path) -> None:
    source, target = write_rows(tmp_path / "rows.csv"), tmp_path / "scored.csv"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict_file(classifier, source, target)
    assert target.read_text() == "mine"
    predict_file(classifier, source, target, overwrite=True)
    assert len(read_columns(target)["id"]) == len(ROWS)


def test_wrong_row_leaves_no_file(classifier: Classifier, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text,id\na,1\nb,2,3\n")
    with pytest.raises(DataError, match="line 3"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
