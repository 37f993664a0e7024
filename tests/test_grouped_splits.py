"""Splits and folds of rows that belong together: by a column, by nearly equal texts; and labels that one row has."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.rows import column, make_rows, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.sections import Columns, DataConfig
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset
from fullbake.data.labeled_files import read_labeled
from fullbake.data.splits import Part, Parts, count_groups, divide, divide_into_test_folds

CONFIG = DataConfig(group="user", test=0.2, folds=0)
TEMPLATE = "Dear customer, your card payment number {} was approved at once, do not reply to this message please"


def rows(users: list[str], labels: list[int], texts: list[str] | None = None) -> Dataset:
    columns = Columns("text", "label", group="user")
    return Dataset(
        column(texts or [f"text {row}" for row in range(len(users))]), np.array(labels), ("x", "y"),
        np.arange(1, len(users) + 1), "x.csv", columns, group=column(users),
    )  # fmt: skip


def users_of(part: Part | None) -> set[str]:
    assert part is not None
    assert part.source.group is not None
    return set(part.source.group.take(pa.array(part.indices)).to_pylist())


def many_users(users: int = 12, own: int = 4) -> Dataset:
    names = [f"user {number}" for number in range(users) for _ in range(own)]
    return rows(names, [row % 2 for row in range(len(names))])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 1)), min_size=30, max_size=60), st.integers(0, 9))
def test_no_group_is_in_two_parts_or_folds(pairs: list[tuple[int, int]], seed: int) -> None:
    users, labels = [str(user) for user, _ in pairs], [label for _, label in pairs]
    if len(set(users)) < 8 or min(len({u for u, own in pairs if own == label}) for label in (0, 1)) < 4:
        return
    parts = divide(rows(users, labels), CONFIG.model_copy(update={"split_seed": seed}))
    found = [users_of(part) for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, found)) == len(set.union(*found))
    folded = divide(rows(users, labels), DataConfig(group="user", folds=3, split_seed=seed))
    held = [users_of(Part(folded.train.source, positions)) for positions in folded.folds]
    assert sum(map(len, held)) == len(set(users))


def test_no_group_is_in_two_test_folds_of_a_comparison() -> None:
    folds = divide_into_test_folds(many_users(), DataConfig(group="user"), 3)
    held = [users_of(parts.test) for parts in folds]
    assert sum(map(len, held)) == len(set.union(*held)) == 12
    assert not any(users_of(parts.test) & users_of(parts.train) for parts in folds)
    assert count_groups(folds[0].train) == len(users_of(folds[0].train))


def test_row_without_a_group_stands_alone() -> None:
    data = rows(["ann"] * 3 + [""] * 9, [0, 1, 0, 1] * 3)
    parts = divide(data, CONFIG)
    assert parts.test is not None
    assert len({"ann"} & users_of(parts.train)) + len({"ann"} & users_of(parts.test)) <= 1
    assert count_groups(Part(data, np.arange(12))) == 10


def test_groups_joined_by_a_text_are_kept_together_unless_overlap_is_settled() -> None:
    users = [f"user {row // 2}" for row in range(24)]
    texts = ["hello" if row % 2 else f"text {row}" for row in range(24)]  # one text joins all users
    data = rows(users, [0, 1, 1, 0] * 6, texts)
    with pytest.raises(DataError, match=r"(?s)cannot be split.*rows of one 'user'.*--drop-overlap"):
        divide(data, CONFIG)
    dropped = divide(data, CONFIG.model_copy(update={"drop_overlap": True}))
    assert dropped.overlap_dropped > 0
    assert dropped.test is not None
    shared = set(dropped.train.joined_texts.to_pylist()) & set(dropped.test.joined_texts.to_pylist())
    assert not shared
    allowed = divide(data, CONFIG.model_copy(update={"allow_overlap": True}))
    assert allowed.overlap_allowed > 0
    assert not users_of(allowed.train) & users_of(allowed.test)


def test_given_file_must_not_share_groups(tmp_path: Path) -> None:
    given_rows = [(f"other {row}", "xy"[row % 2], f"user {row}") for row in range(6)]
    path = write_csv(tmp_path / "test.csv", given_rows, ("text", "label", "user"))
    config = CONFIG.model_copy(update={"test": str(path)})
    with pytest.raises(DataError, match=r"(?s)rows of one 'user'.*20 of 40 training rows.*text or 'user'"):
        divide(many_users(), config)
    dropped = divide(many_users(), config.model_copy(update={"drop_overlap": True}))
    assert not users_of(dropped.train) & users_of(dropped.test)
    # Validation rows of those users are left out too.
    assert not users_of(dropped.validation) & users_of(dropped.test)


def test_given_file_without_the_column_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_csv(tmp_path / "test.csv", [(f"other {row}", "xy"[row % 2]) for row in range(6)])
    with caplog.at_level("INFO", logger="fullbake"):
        parts = divide(many_users(), CONFIG.model_copy(update={"test": str(path)}))
    assert parts.test is not None
    assert count_groups(parts.test) is None
    assert "has no column 'user' (--group)" in caplog.text


def test_near_duplicates_apart_are_counted() -> None:
    texts = [TEMPLATE.format(row) for row in range(40)]
    data = Dataset(column(texts), np.arange(40) % 2, ("x", "y"), np.arange(1, 41), "x.csv", Columns("text", "label"))
    with pytest.raises(DataError, match=r"--near-duplicates apart"):
        divide(data, DataConfig(test=0.25))
    for config in (DataConfig(test=0.25, near_duplicates="apart"), DataConfig(folds=4, near_duplicates="apart")):
        parts = divide(data, config)
        scored = 40 if parts.folds else sum(len(part) for part in (parts.validation, parts.test) if part is not None)
        assert parts.near_overlap == scored
    # Where nothing is nearly equal nothing is marked.
    assert divide(many_users(), CONFIG.model_copy(update={"near_duplicates": "apart"})).near_overlap == 0


def lists(matrix: list[list[int]]) -> Dataset:
    texts = column([f"text {row}" for row in range(len(matrix))])
    labels = np.array(matrix, dtype=np.uint8)
    names = tuple("abcdefgh"[: labels.shape[1]])
    return Dataset(texts, labels, names, np.arange(1, len(matrix) + 1), "x.jsonl", Columns("text", "label"))


@given(st.integers(0, 20))
def test_label_of_one_row_stays_in_training(seed: int) -> None:
    data = lists([[row % 2, 1 - row % 2, int(row == 7)] for row in range(30)])
    parts = divide(data, DataConfig(test=0.2, folds=0, split_seed=seed))
    assert 7 in parts.train.indices
    folded = divide(data, DataConfig(folds=3, split_seed=seed))
    assert sorted(np.concatenate(folded.folds).tolist()) == list(range(30))


def test_rows_that_each_have_a_label_of_their_own_cannot_be_split() -> None:
    with pytest.raises(DataError, match="a label of one row only"):
        divide(lists(np.eye(6, dtype=int).tolist()), DataConfig(folds=0))


def test_rows_of_a_dropped_class_are_left_out_of_given_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = [(f"text {row}", "xyz"[row % 3 if row < 3 else row % 2]) for row in range(24)]
    test = [(f"other {row}", "xyz"[row % 3]) for row in range(9)]
    config = DataConfig(test=str(write_csv(tmp_path / "test.csv", test)), drop_rare=2)
    with caplog.at_level("INFO", logger="fullbake"):
        parts: Parts = divide(read_labeled(write_csv(tmp_path / "train.csv", train), config), config)
    assert parts.test is not None
    assert parts.test.source.label_names == ("x", "y")
    assert len(parts.test) == 6
    errors = caplog.text
    assert "one label was left out, with 1 row: 'z' (--drop-rare 2)" in errors
    assert "3 of 9 rows have a label that is left out" in errors


def write_users(path: Path, users: int = 20, own: int = 4) -> Path:
    found = [(*row, f"user {place // own}") for place, row in enumerate(make_rows(users * own, 2))]
    return write_csv(path, found, ("text", "label", "user"))


def test_group_reaches_bundle_evaluation_and_comparison(
    run: Callable[..., tuple[int, str, str]], bases: Callable[..., Path], tmp_path: Path
) -> None:
    data, base = write_users(tmp_path / "users.csv"), ("--base", bases("bert"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "way: frozen\nhead: {kind: linear}\ndata: {group: user, test: 0.25}\ntraining: {optimizer: lbfgs}\n"
        f"tokens: {{max_length: 16}}\nbase: {bases('bert')}\n",
        "utf-8",
    )
    code, _, errors = run("train", data, "--recipe", recipe, "--out", tmp_path / "out")
    assert code == 0, errors
    assert "20 groups by 'user'" in " ".join(errors.split())
    facts = json.loads((tmp_path / "out" / "fullbake.json").read_text("utf-8"))
    assert facts["columns"]["group"] == "user"
    assert sum(number for number in facts["data"]["groups"].values()) == 20
    assert facts["metrics"]["test"]["groups"] == facts["data"]["groups"]["test"]
    assert "Intervals count groups" in (tmp_path / "out" / "README.md").read_text("utf-8")
    # The column of training is the default of `evaluate`; a file without it counts rows.
    scores = json.loads(run("evaluate", tmp_path / "out", data, "--json")[1])
    assert scores["groups"] == 20
    plain = write_csv(tmp_path / "plain.csv", [("food water", "food"), ("game team", "game")])
    code, out, errors = run("evaluate", tmp_path / "out", plain, "--json")
    assert (code, json.loads(out)["groups"]) == (0, None)
    assert "has no column 'user'" in " ".join(errors.split())
    words = (
        "compare",
        data,
        *base,
        "--no-bench",
        "--recipes",
        "majority,frozen-linear",
        "--group",
        "user",
        "--out",
        tmp_path / "c",
    )
    code, _, errors = run(*words, "--seeds", "1", "--max-length", "16")
    assert code == 0, errors
    board = json.loads((tmp_path / "c" / "leaderboard.json").read_text("utf-8"))
    assert board["data"]["group"] == "user"
    assert 0 < board["data"]["groups"] < 20
    assert "groups only (--group)" in (tmp_path / "c" / "report.html").read_text("utf-8")
