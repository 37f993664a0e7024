"""Rows that stay together: by their text, by the group column, by both; and the flags that errors name."""

import numpy as np
import pytest
from helpers.rows import column
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.sections import Columns, DataConfig
from fullbake.data.dataset import Dataset
from fullbake.data.grouping import (
    bind_rows,
    divisible_labels,
    group_texts,
    join_groups,
    loosen_remedy,
    texts_may_cross,
    unsplittable_error,
)

TEMPLATE = "Dear customer, your card payment number {} was approved at once, do not reply to this message please"


def rows(texts: list[str], group: list[str] | None = None) -> Dataset:
    values = None if group is None else column(group)
    columns = Columns("text", "label", group=None if group is None else "user")
    return Dataset(
        column(texts), np.zeros(len(texts), np.int64), ("x",), np.arange(len(texts)), "x.csv", columns, group=values
    )


def test_near_equal_texts_are_together_or_apart() -> None:
    data = rows([TEMPLATE.format(1), TEMPLATE.format(2), TEMPLATE.format(1).upper()])
    assert group_texts(data, DataConfig()).tolist() == [0, 0, 0]
    assert group_texts(data, DataConfig(near_duplicates="apart")).tolist() == [0, 1, 0]


def test_rows_of_a_group_and_of_one_text_are_joined() -> None:
    data = rows(["ok", "no", "ok", "hm", "so"], ["ann", "ann", "bob", "", ""])
    config = DataConfig(group="user")
    assert data.group_ids is not None
    assert data.group_ids.tolist() == [0, 0, 1, 2, 3]
    assert bind_rows(data, group_texts(data, config), config).tolist() == [0, 0, 0, 1, 2]


def test_texts_do_not_join_groups_where_the_recipe_says_what_becomes_of_them() -> None:
    data = rows(["ok", "no", "ok"], ["ann", "ann", "bob"])
    config = DataConfig(group="user", drop_overlap=True)
    assert texts_may_cross(config)
    assert bind_rows(data, group_texts(data, config), config).tolist() == [0, 0, 1]
    assert not texts_may_cross(DataConfig(drop_overlap=True))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_joined_groups_are_the_finest_that_keep_both_together(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(side) for side in zip(*pairs, strict=True))
    joined = join_groups(one, other)
    expected = list(range(len(pairs)))
    for _ in pairs:  # spread the least number along both bonds until nothing changes
        for side in (one, other):
            for value in set(side.tolist()):
                members = np.flatnonzero(side == value)
                least = min(expected[place] for place in members)
                for place in members:
                    expected[place] = least
    same = np.array(expected)[:, None] == np.array(expected)
    np.testing.assert_array_equal(joined[:, None] == joined, same)


def test_label_within_one_group_is_not_divisible() -> None:
    names, divisible = divisible_labels(np.array([0, 0, 1, 2]), (np.arange(4), np.array([0, 0, 1, 1])))
    assert names.tolist() == [0, 1]
    assert divisible.tolist() == [False, True]


@pytest.mark.parametrize(
    ("config", "named", "absent"),
    [
        (DataConfig(), ["--near-duplicates apart"], ["--group", "--drop-overlap"]),
        (DataConfig(group="user"), ["--near-duplicates apart", "--drop-overlap", "--group"], []),
        (DataConfig(group="user", near_duplicates="apart", drop_overlap=True), ["--group"], ["--near"]),
        (DataConfig(near_duplicates="apart"), [], ["--"]),
    ],
)
def test_remedy_names_the_flags_that_help(config: DataConfig, named: list[str], absent: list[str]) -> None:
    remedy = loosen_remedy(config)
    assert all(flag in remedy for flag in named)
    assert not any(flag in remedy for flag in absent)


def test_equal_texts_are_told_as_such() -> None:
    assert "--near-duplicates" in str(unsplittable_error(rows(["a", "b"]), DataConfig(), "2 rows"))
    assert "All texts are equal" in str(unsplittable_error(rows(["a", "A"]), DataConfig(), "2 rows"))
