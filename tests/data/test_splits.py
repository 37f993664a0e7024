"""Splits and folds: groups stay whole, each class is on both sides, shares are kept, overlaps are found."""

from pathlib import Path

import numpy as np
import pytest
from helpers.rows import column, dataset, make_rows, write_csv

from fullbake.config.sections import Columns, DataConfig
from fullbake.core.errors import DataError, RecipeError
from fullbake.data.dataset import Dataset
from fullbake.data.normalization import normalize
from fullbake.data.splits import Part, Parts, divide, join_parts, sample_rows


def whole(texts: list[str], labels: list[int]) -> Dataset:
    rows = np.arange(1, len(texts) + 1)
    return Dataset(column(texts), np.array(labels), ("no", "yes"), rows, "here.csv", Columns("text", "label"))


def row_sets(parts: Parts) -> dict[str, set[int]]:
    return {name: set(part.indices.tolist()) for name, part in parts.by_name().items()}


def given_file(folder: Path, texts: list[str], name: str = "given.csv") -> str:
    labels = ["food", "game", "money"]
    return str(write_csv(folder / name, [(text, labels[i % 3]) for i, text in enumerate(texts)]))


def test_shares_of_one_file_divide_its_rows(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path, 120), DataConfig(validation=0.25, test=0.25))
    sets = row_sets(parts)
    assert set.union(*sets.values()) == set(range(120))
    assert sum(map(len, sets.values())) == 120
    assert {name: len(rows) for name, rows in sets.items()} == {"train": 60, "validation": 30, "test": 30}
    for part in parts.by_name().values():
        assert np.bincount(part.labels).tolist() == [len(part) // 3] * 3


def test_there_is_no_test_part_by_default(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path), DataConfig(folds=0))
    assert parts.test is None
    assert set(parts.by_name()) == {"train", "validation"}
    assert len(parts.validation) == 12


def test_parts_depend_on_the_split_seed_only(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    first, again, other = (row_sets(divide(data, DataConfig(split_seed=seed, folds=0))) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_equal_texts_stay_in_one_part() -> None:
    """Equal means: after NFKC, case folding and whitespace collapsing."""
    texts = [f"row number {number} about nothing at all" for number in range(40)]
    twins = texts + [text.upper().replace(" ", "  ") for text in texts]
    for seed in range(5):
        parts = divide(
            whole(twins, [n % 2 for n in range(40)] * 2), DataConfig(validation=0.3, test=0.2, split_seed=seed)
        )
        keys = {name: {normalize(t) for t in part.joined_texts.to_pylist()} for name, part in parts.by_name().items()}
        assert not keys["train"] & keys["validation"]
        assert not keys["train"] & keys["test"]
        assert not keys["validation"] & keys["test"]


def test_row_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    parts = divide(data, DataConfig(folds=0))
    for part in parts.by_name().values():
        assert part.rows.tolist() == (part.indices + 1).tolist()
        assert part.joined_texts.to_pylist() == [make_rows()[row - 1][0] for row in part.rows]


def test_shares_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave nothing to train on"):
        divide(dataset(tmp_path), DataConfig(validation=0.5, test=0.5))


def test_given_file_is_read_with_the_labels_of_training(tmp_path: Path) -> None:
    parts = divide(
        dataset(tmp_path), DataConfig(validation=given_file(tmp_path, [f"another text {n}" for n in range(9)]))
    )
    assert len(parts.train) == 60
    assert parts.validation.source.label_names == parts.train.source.label_names
    assert parts.validation.labels.tolist() == [0, 1, 2] * 3


def test_given_file_with_an_unknown_label_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "given.csv", [("a text", "gaem")])
    with pytest.raises(
        DataError, match=r"given\.csv, line 2.*training did not have(?s:.*)'gaem'(?s:.*)Did you mean 'game'"
    ):
        divide(dataset(tmp_path), DataConfig(validation=str(path)))


OVERLAPPING = [make_rows()[3][0].upper(), make_rows()[7][0], "a new text", "one more"]


def test_overlap_is_refused_with_its_count(tmp_path: Path) -> None:
    config = DataConfig(validation=given_file(tmp_path, OVERLAPPING))
    with pytest.raises(
        DataError, match=r"2 of 60 training rows \(row 4, 8 of (?s:.*)--drop-overlap(?s:.*)--allow-overlap"
    ):
        divide(dataset(tmp_path), config)


def test_overlap_is_dropped_from_training_by_permission(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path), DataConfig(validation=given_file(tmp_path, OVERLAPPING), drop_overlap=True))
    assert parts.overlap_dropped == 2
    assert parts.overlap_allowed == 0
    assert len(parts.validation) == 4
    assert set(range(60)) - set(parts.train.indices.tolist()) == {3, 7}


def test_overlap_is_kept_and_counted_by_permission(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path), DataConfig(validation=given_file(tmp_path, OVERLAPPING), allow_overlap=True))
    assert (parts.overlap_allowed, parts.overlap_dropped) == (2, 0)
    assert len(parts.train) == 60


def test_rows_of_a_test_file_are_dropped_from_training_and_validation(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    config = DataConfig(test=given_file(tmp_path, [row[0] for row in make_rows()[:9]]), folds=0)
    with pytest.raises(DataError, match=r"training rows .* and \d+ of 12 validation rows"):
        divide(data, config)
    parts = divide(data, config.model_copy(update={"drop_overlap": True}))
    assert parts.test is not None
    assert len(parts.train) + len(parts.validation) == 51
    assert not {*parts.train.indices.tolist(), *parts.validation.indices.tolist()} & set(range(9))


def test_validation_and_test_files_must_not_share_texts(tmp_path: Path) -> None:
    one, other = (
        given_file(tmp_path, ["a new text", "one more", "third"], "one.csv"),
        given_file(tmp_path, ["a new  TEXT"], "two.csv"),
    )
    with pytest.raises(DataError, match="1 of 3 validation rows"):
        divide(dataset(tmp_path), DataConfig(validation=one, test=other))


def test_part_without_some_of_its_rows() -> None:
    part = Part(whole(["a", "b", "c", "d"], [0, 1, 0, 1]), np.array([0, 2, 3]))
    assert part.without(np.array([1])).indices.tolist() == [0, 3]
    assert part.without(np.array([1])).labels.tolist() == [0, 1]


# Folds


def test_folds_replace_a_validation_part_that_would_be_too_small(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path, 24), DataConfig())
    assert parts.validation is None
    assert parts.selection_part is parts.train
    assert sorted(np.concatenate(parts.folds).tolist()) == list(range(24))
    assert len(parts.folds) == 5
    assert set(parts.by_name()) == {"train"}


def test_five_rows_of_each_class_are_enough_for_a_validation_part(tmp_path: Path) -> None:
    assert divide(dataset(tmp_path, 75), DataConfig()).validation is not None
    assert divide(dataset(tmp_path, 66), DataConfig()).validation is None
    assert divide(dataset(tmp_path, 24), DataConfig(folds=0)).validation is not None
    assert len(divide(dataset(tmp_path, 75), DataConfig(folds=3)).folds) == 3


def test_large_file_keeps_a_small_validation_part_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert divide(dataset(tmp_path, 24), DataConfig(), max_rows_for_folds=20).validation is not None
    assert any("--folds 5" in message for message in caplog.messages)


def test_more_folds_than_different_texts_are_refused(tmp_path: Path) -> None:
    texts = ["one", "two", "three", "four"]
    assert len(divide(whole(texts, [0, 1, 0, 1]), DataConfig()).folds) == 4
    with pytest.raises(DataError, match="fewer different texts than folds"):
        divide(whole(texts, [0, 1, 0, 1]), DataConfig(folds=5))


def test_rows_that_all_have_the_same_text_are_refused() -> None:
    """One fold would leave no row to train on."""
    with pytest.raises(DataError, match=r"(?s)cannot be split.*All texts are equal"):
        divide(whole(["one"] * 8, [0, 1] * 4), DataConfig())


def test_folds_keep_their_rows_when_overlapping_ones_are_dropped(tmp_path: Path) -> None:
    data = dataset(tmp_path, 24)
    test = given_file(tmp_path, [row[0] for row in make_rows()[:3]])
    parts = divide(data, DataConfig(test=test, drop_overlap=True))
    assert len(parts.train) == 21
    assert sorted(np.concatenate(parts.folds).tolist()) == list(range(21))
    before = divide(data, DataConfig())
    for fold, old in zip(parts.folds, before.folds, strict=True):
        kept = {int(before.train.indices[place]) for place in old} - {0, 1, 2}
        assert {int(parts.train.indices[place]) for place in fold} == kept


def test_parts_of_one_source_and_of_two_are_joined(tmp_path: Path) -> None:
    parts = divide(dataset(tmp_path, 60), DataConfig(validation=0.25, folds=0))
    assert parts.validation is not None
    joined = join_parts(parts.train, parts.validation)
    assert joined.indices.tolist() == list(range(60))
    assert joined.source is parts.train.source
    given = given_file(tmp_path, [f"another text {number}" for number in range(9)])
    parts = divide(dataset(tmp_path, 60), DataConfig(validation=given))
    assert parts.validation is not None
    joined = join_parts(parts.train, parts.validation)
    texts = [*parts.train.joined_texts.to_pylist(), *parts.validation.joined_texts.to_pylist()]
    assert joined.joined_texts.to_pylist() == texts
    assert joined.labels.tolist() == [*parts.train.labels, *parts.validation.labels]
    assert joined.source.label_names == parts.train.source.label_names
    assert joined.fingerprint() != parts.train.fingerprint()


def test_a_sample_keeps_the_shares_of_the_classes(tmp_path: Path) -> None:
    rows = dataset(tmp_path, 60)
    sampled = sample_rows(rows, 30)
    assert sampled.labels is not None
    assert np.bincount(sampled.labels).tolist() == [10, 10, 10]
    assert sample_rows(rows, None) is rows
    assert sample_rows(rows, 60) is rows
    with pytest.raises(RecipeError, match="max_rows"):
        sample_rows(rows, True)
