"""Labeled texts: label names, ids, row numbers, and labels that cannot be used."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fullbake.config.sections import Columns
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset, read_dataset


def make(folder: Path, content: str, name: str = "train.csv") -> Path:
    (folder / name).write_text(content, "utf-8")
    return folder / name


def load(path: Path, **options: Any) -> Dataset:
    return read_dataset(path, text="text", label="label", **options)


def test_label_ids_follow_the_sorted_names(tmp_path: Path) -> None:
    data = load(make(tmp_path, "text,label\na,true\nb,01\nc,1\n,True\ne,NA\nf,01\n"))
    assert data.label_names == ("01", "1", "NA", "True", "true")
    assert data.labels is not None
    assert data.labels.tolist() == [4, 0, 1, 3, 2, 0]
    assert data.texts.type == pa.large_string()
    assert data.texts.to_pylist() == ["a", "b", "c", "", "e", "f"]
    assert data.rows.tolist() == [1, 2, 3, 4, 5, 6]
    assert (data.columns, len(data)) == (Columns("text", "label"), 6)


def test_label_ids_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    one = load(make(tmp_path, "text,label\na,x\nb,y\n"))
    two = load(make(tmp_path, "text,label\nb,y\na,x\n"))
    assert one.label_names == two.label_names
    assert one.take([1, 0]).fingerprint() == two.fingerprint()


def test_texts_are_read_without_labels(tmp_path: Path) -> None:
    data = read_dataset(make(tmp_path, "text,label\na,\nb,1\n"), text="text")
    assert (data.labels, data.label_names, data.columns.of_labels) == (None, (), ())
    assert data.take([1]).texts.to_pylist() == ["b"]


def test_taken_rows_keep_their_numbers_and_the_fingerprint_depends_on_content_only(tmp_path: Path) -> None:
    data = load(make(tmp_path, "text,label\nab,x\nc,y\nd,x\n"))
    part = data.take([2, 0])
    assert part.texts.to_pylist() == ["d", "ab"]
    assert part.rows.tolist() == [3, 1]
    assert part.labels is not None
    assert part.labels.tolist() == [0, 0]
    other_chunks = Dataset(pa.chunked_array([["ab"], ["c", "d"]], pa.large_string()), data.labels, *rest(data))
    assert other_chunks.fingerprint() == data.fingerprint()
    others = [
        load(make(tmp_path, "text,label\na,x\nbc,y\nd,x\n")),
        load(make(tmp_path, "text,label\nab,x\nc,x\nd,y\n")),
        load(make(tmp_path, "text,label\nab,x\nc,z\nd,x\n")),
    ]
    assert len({other.fingerprint() for other in [data, part, *others]}) == 5
    assert others[1].texts_fingerprint() == data.texts_fingerprint() != others[0].texts_fingerprint()


def rest(data: Dataset) -> tuple[Any, ...]:
    return data.label_names, data.rows, data.source, data.columns


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_empty_labels_are_counted_and_refused_or_left_out(tmp_path: Path, form: str) -> None:
    csv = "text,label\na,x\nb,\nc,  \nd,y\n"
    jsonl = '{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n{"text": "c", "label": "  "}\n' + (
        '{"text": "d", "label": "y"}\n'
    )
    path = make(tmp_path, csv if form == "csv" else jsonl, f"train.{form}")
    line = 3 if form == "csv" else 2
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}, line {line}: column 'label' is empty.\n"
        "Every row needs a label. Fill it in, or pass --drop-unlabelled to leave such rows out (2 of 4)."
    )
    data = load(path, drop_unlabelled=True)
    assert data.texts.to_pylist() == ["a", "d"]
    assert data.rows.tolist() == [1, 4]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]


def test_null_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'text' has no value"):
        load(make(tmp_path, '{"text": null, "label": "x"}\n', "train.jsonl"))


def test_label_that_training_did_not_have_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, 'text,label\n"a\nb",sport\nb,sports\n')
    with pytest.raises(DataError, match=r"line 4: .* training did not have") as caught:
        load(path, label_names=("food", "sport"))
    assert "'sports'" in str(caught.value)
    assert "Did you mean 'sport'?" in str(caught.value)
    data = load(make(tmp_path, "text,label\nb,sport\n"), label_names=("food", "sport"))
    assert data.label_names == ("food", "sport")
    assert data.labels is not None
    assert data.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n", "a header but no row"),
        ("text,label\na,\nb,\n", "'label' is empty in all 2 rows"),
        ("text,lable\na,x\n", "Did you mean 'lable'"),
        ("", "the file is empty"),
    ],
)
def test_files_without_usable_rows_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(make(tmp_path, content), drop_unlabelled=True)


def test_text_and_label_cannot_be_one_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the same column"):
        read_dataset(make(tmp_path, "text\na\n"), text="text", label="text")


def hub_set() -> Any:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)


def test_hub_data_set_is_read_with_its_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: asked.append((name, split)) or hub_set())
    with pytest.raises(DataError, match=r"owner/name, row 3: column 'label' is empty"):
        read_dataset("owner/name", text="text", label="label")
    data = read_dataset("owner/name:test", text="text", label="label", drop_unlabelled=True)
    assert asked == [("owner/name", "train"), ("owner/name", "test")]
    assert (data.label_names, data.texts.to_pylist()) == (("neg", "pos"), ["a", "b"])
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="Did you mean 'text'"):
        read_dataset("owner/name", text="txt")


def test_hub_data_set_with_lists_of_classes_is_multi_label(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    kinds = datasets.List(datasets.ClassLabel(names=["joy", "anger"]))
    features = datasets.Features({"text": datasets.Value("string"), "labels": kinds})
    loaded = datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[1, 0], []]}, features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: loaded)
    data = read_dataset("owner/name", text="text", label="labels")
    assert data.label_names == ("anger", "joy")
    assert data.labels is not None
    assert data.labels.tolist() == [[1, 1], [0, 0]]


def test_source_that_is_neither_a_file_nor_a_hub_data_set_is_refused() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(DataError, match="no such file, and no hub data set") as caught:
        read_dataset("nobody/nothing", text="text")
    assert "HF_HUB_OFFLINE" in str(caught.value)


def test_missing_file_with_a_known_ending_never_asks_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_dataset(tmp_path / "x.csv", text="text")


def test_rows_of_many_chunks_keep_their_order(tmp_path: Path) -> None:
    count = 10_000
    path = make(tmp_path, "text,label\n" + "".join(f"text {at},{at % 3}\n" for at in range(count)))
    data = load(path)
    assert data.texts.num_chunks > 1
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, np.arange(count) % 3)
    assert data.texts[count - 1].as_py() == f"text {count - 1}"
