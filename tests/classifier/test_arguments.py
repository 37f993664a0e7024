"""What a Python caller means by texts is taken where it is plain, and refused in one paragraph where it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from helpers.rows import dataset, make_rows, train, write_csv

from fullbake import Classifier, adapt, compare, evaluate, further_pretrain, predict_file, read_dataset
from fullbake.classifier.arguments import as_texts, check_pair_lengths
from fullbake.config.sections import Columns
from fullbake.core.errors import BundleError, DataError, OutputError, RecipeError

TEXTS = ["a good game", "the bank"]
SECOND = ["a point", "the price"]
SINGLE, PAIRS = Columns("review", "label"), Columns("one", "label", "two")
FRAME = {"id": [1, 2], "review": TEXTS, "one": TEXTS, "two": SECOND}


def of(value: Any, text_pair: Any = None, columns: Columns = SINGLE) -> tuple[Any, Any]:
    texts, second = as_texts(value, text_pair, columns)
    return list(map(str, texts)), None if second is None else list(map(str, second))


@pytest.mark.parametrize(
    "value",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=[7, 3]),
        pd.Series(TEXTS, dtype="string"),
        pd.Series(TEXTS, dtype="category"),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS]),
        (text for text in TEXTS),
        dict.fromkeys(TEXTS).keys(),
        FRAME,
        pd.DataFrame(FRAME),
        pa.table(FRAME),
        pl.DataFrame(FRAME),
        pl.Series(TEXTS),
        datasets.Dataset.from_dict(FRAME),
        [{"review": text} for text in TEXTS],
    ],
    ids=lambda value: type(value).__name__,
)
def test_texts_in_many_forms(value: Any) -> None:
    assert of(value) == (TEXTS, None)


@pytest.mark.parametrize(
    ("value", "second"),
    [
        (TEXTS, SECOND),
        (pd.Series(TEXTS), pd.Series(SECOND)),
        (pd.DataFrame(FRAME), None),
        (FRAME, None),
        (list(zip(TEXTS, SECOND, strict=True)), None),
        (zip(TEXTS, SECOND, strict=True), None),
    ],
)
def test_pairs_in_many_forms(value: Any, second: Any) -> None:
    assert of(value, second, PAIRS) == (TEXTS, SECOND)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a good game", ["not one text", "predict([text])"]),
        (pd.DataFrame({"text": TEXTS}), ["'review'", "a DataFrame with the columns text", "predict(table['text'])"]),
        ({"text": TEXTS}, ["a dict with the columns text"]),
        (pd.DataFrame([[*TEXTS]], columns=["review", "review"]), ["'review' occurs twice"]),
        (pd.DataFrame({"review": ["a", None]}), ["row 2", "'review' has no value"]),
        (pd.DataFrame(FRAME).set_index("review"), ["'review'", "reset_index()"]),
        (pl.LazyFrame(FRAME), ["a LazyFrame", "collect()"]),
        (datasets.DatasetDict(test=datasets.Dataset.from_dict(FRAME)), ["several parts", "texts['test']"]),
        (set(TEXTS), ["no order"]),
        (b"bytes", ["a bytes", "a list of strings"]),
        (None, ["got None"]),
        (3, ["an int: 3"]),
        (Path("rows.csv"), ["a list of strings"]),
        (np.array([[text] for text in TEXTS]), ["the shape (2, 1)"]),
        (np.array("text"), ["the shape ()"]),
        (torch.zeros(2, 2), ["the shape (2, 2)"]),
    ],
)
def test_what_cannot_be_texts_is_refused(value: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        as_texts(value, None, SINGLE)
    for word in words:
        assert word.lower() in str(caught.value).lower()


def test_a_file_is_pointed_to_predict_file(tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows(2))
    with pytest.raises(DataError, match="predict_file"):
        as_texts(str(rows), None, SINGLE)


def test_pairs_must_be_complete() -> None:
    check_pair_lengths(TEXTS, None)
    check_pair_lengths(TEXTS, SECOND)
    with pytest.raises(DataError, match="2 texts and 1 second texts"):
        check_pair_lengths(TEXTS, SECOND[:1])


# The whole way


@pytest.fixture(scope="module")
def classifier(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("arguments"))


def test_predict_takes_the_column_of_training(classifier: Classifier) -> None:
    texts = [text for text, _ in make_rows(4)]
    frame = pd.DataFrame({"label": range(4), "text": texts}, index=[3, 1, 2, 0])
    for value in (frame, frame["text"], {"text": texts, "n": [1, 2, 3, 4]}, iter(texts)):
        assert classifier.predict(value).tolist() == classifier.predict(texts).tolist()
    with pytest.raises(DataError, match=r"text 2: not a text\.\nExpected a string; got nan"):
        classifier.predict(pd.Series(["a", float("nan")]))


def test_evaluate_reads_a_file_as_in_training(classifier: Classifier, tmp_path: Path) -> None:
    rows, read = write_csv(tmp_path / "rows.csv", make_rows(30)), dataset(tmp_path, 30)
    folder = tmp_path / "m"
    classifier.save(folder)
    expected = evaluate(classifier, read)["overall"]
    assert evaluate(classifier, rows)["overall"] == expected
    assert evaluate(str(folder), str(rows))["overall"] == expected
    frame = pd.DataFrame(make_rows(30), columns=["text", "label"], index=range(30, 0, -1))
    for labeled in (frame, pl.DataFrame(frame), (frame["text"], frame["label"])):
        assert evaluate(classifier, labeled)["overall"] == expected
    with pytest.raises(DataError, match=r"dataset\['test'\]"):
        evaluate(classifier, {"test": frame})
    with pytest.raises(DataError, match="there are texts but no labels"):
        evaluate(classifier, frame["text"])
    with pytest.raises(BundleError, match="a Dataset"):
        evaluate(read, classifier)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [None, 3])
def test_predict_file_needs_a_target_of_bytes(classifier: Classifier, tmp_path: Path, target: Any) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows(2))
    with pytest.raises(OutputError, match=r"sys\.stdout\.buffer"):
        predict_file(classifier, rows, target)
    with (tmp_path / "scored.csv").open("w") as text, pytest.raises(OutputError, match="a TextIOWrapper"):
        predict_file(classifier, rows, text)  # type: ignore[arg-type]


def test_other_entries_refuse_what_is_no_table(bases: Callable[..., Path], tmp_path: Path) -> None:
    stream: Any = pl.LazyFrame({"text": ["a"], "label": ["b"]})
    base = bases("bert")
    with pytest.raises(DataError, match="a LazyFrame"):
        read_dataset(stream, text="text", label="label")
    with pytest.raises(DataError, match="a LazyFrame"):
        adapt({"base": base}, stream)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a LazyFrame"):
        compare(stream, "finetune", out=tmp_path / "c", base=base)
    with pytest.raises(RecipeError, match="no other part can be given"):
        compare({"train": (TEXTS, SECOND), "test": (TEXTS, SECOND)}, out=tmp_path / "c", base=base, folds=2)
    with pytest.raises(DataError, match="corpus"):
        further_pretrain(base, stream, tmp_path / "b")
    with pytest.raises(DataError, match="keep_out"):
        further_pretrain(base, TEXTS, tmp_path / "b", keep_out={"train": {"text": TEXTS}})
    with pytest.raises(DataError, match="at least one file"):
        further_pretrain(base, [], tmp_path / "b")


def test_other_mistakes_are_one_paragraph(bases: Callable[..., Path], tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows())
    wrong: Any = True
    with pytest.raises(RecipeError, match="no such mode"):
        adapt({"base": bases("bert")}, rows, out=tmp_path / "m", resume=wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="base: missing"):
        adapt("finetune", rows)
    with pytest.raises(RecipeError, match="seeds is no whole number"):
        compare(rows, out=tmp_path / "c", base=bases("bert"), seeds="3")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="a number without a unit"):
        compare(rows, out=tmp_path / "c", base=bases("bert"), budget=600)  # type: ignore[arg-type]
