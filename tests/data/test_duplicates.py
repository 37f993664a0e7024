"""Equal and near-equal texts; the definition in plain sets is the reference for the fast code."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.data import duplicates
from fullbake.data.duplicates import (
    MIN_SHINGLES,
    NEAR_DUPLICATE_SIMILARITY,
    SHINGLE_LENGTH,
    duplicate_groups,
    find_overlap,
)
from fullbake.data.normalization import normalize, text_hashes

SHARED = Path(__file__).parents[3] / "shared" / "data"

WORDS = [
    "river", "stone", "quickly", "yellow", "market", "under", "violin", "sixty", "harbour", "lamp", "grey", "often",
    "window", "bread", "signal", "north", "carpet", "melon", "tiger", "pencil", "rather", "salt", "oven", "cloud",
]  # fmt: skip


def shingles(text: str) -> set[str]:
    text = normalize(text)
    return {text[at : at + SHINGLE_LENGTH] for at in range(len(text) - SHINGLE_LENGTH + 1)}


def are_near(one: str, two: str) -> bool:
    """The definition of near-equal texts, in plain sets."""
    if normalize(one) == normalize(two):
        return True
    left, right = shingles(one), shingles(two)
    if min(len(left), len(right)) < MIN_SHINGLES:
        return False
    return len(left & right) / len(left | right) >= NEAR_DUPLICATE_SIMILARITY


def sentences(count: int, words: int, seed: int, vocabulary: list[str] = WORDS) -> list[str]:
    random = np.random.Generator(np.random.PCG64(seed))
    return [" ".join(random.choice(vocabulary, words)) for _ in range(count)]


def together(one: str, two: str) -> bool:
    return len(set(duplicate_groups([one, "something else altogether", two])[[0, 2]])) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Ok  Thanks", "ok thanks"),
        ("ﬁne café", "fine cafe\u0301"),
        ("STRASSE\n", "straße"),
        ("Ａ １", "a 1"),
        ("这间酒店\u3000很好", "这间酒店 很好"),
        ("", " \t"),
    ],
)
def test_texts_are_equal_after_normalizing(one: str, two: str) -> None:
    assert normalize(one) == normalize(two)
    assert together(one, two)
    np.testing.assert_array_equal(*text_hashes([one, two]))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


LONG = "The committee met on Tuesday to look at the plans for the new bridge over the river, and agreed to them."
CHINESE = "选择珠江花园的原因就是方便，有电动扶梯直接到达海边，周围餐馆、食廊、商场、"
CHINESE += "超市、摊位一应俱全。酒店装修一般，但还算整洁。"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (LONG, LONG.replace("Tuesday", "Monday"), True),
        (LONG, "PS: " + LONG, True),
        (LONG, LONG[::-1], False),
        (LONG, LONG[:60], False),
        (CHINESE, CHINESE.replace("一般", "很好"), True),
        (CHINESE, CHINESE[:30] + CHINESE[::-1], False),
        ("ok thanks", "ok thanks!", False),
        ("What is radiation ?", "What is radiations ?", False),
        ("What is the capital of Italy ?", "What is the capital of Uganda ?", False),
        ("I want to close my account", "I want to open my account", False),
    ],
)
def test_near_equal_texts_share_a_group(one: str, two: str, same: bool) -> None:
    assert are_near(one, two) == same
    assert together(one, two) == same


def test_groups_agree_with_the_definition_on_many_texts() -> None:
    texts = sentences(150, 14, seed=0) + [text.replace("river", "rivers") for text in sentences(75, 14, seed=0)]
    groups = duplicate_groups(texts)
    for one in range(len(texts)):
        for two in range(one):
            if are_near(texts[one], texts[two]):
                assert groups[one] == groups[two], (texts[one], texts[two])
    assert groups.max() + 1 == len(components(texts))


def components(texts: list[str]) -> set[frozenset[int]]:
    group = {row: {row} for row in range(len(texts))}
    for one in range(len(texts)):
        for two in range(one):
            if group[one] is not group[two] and are_near(texts[one], texts[two]):
                group[one] |= group[two]
                for row in group[two]:
                    group[row] = group[one]
    return {frozenset(rows) for rows in group.values()}


def test_chains_of_near_equal_texts_are_one_group_numbered_by_first_occurrence() -> None:
    words = sentences(1, 40, seed=3)[0].split()
    steps = [" ".join(words[at : at + 30]) for at in range(0, 9, 2)]
    assert not are_near(steps[0], steps[-1])
    groups = duplicate_groups(["first", *steps, "last", "FIRST"])
    assert groups.tolist() == [0, 1, 1, 1, 1, 1, 2, 0]
    assert groups.dtype == np.int64


def test_pairs_well_over_the_threshold_are_found() -> None:
    originals = sentences(400, 25, seed=1)
    changed = [f"{text} {WORDS[at % len(WORDS)]}" for at, text in enumerate(originals)]
    assert all(are_near(one, two) for one, two in zip(originals, changed, strict=True))
    groups = duplicate_groups(originals + changed)
    assert (groups[:400] == groups[400:]).mean() == 1


def test_arrow_columns_lists_and_empty_texts_are_accepted() -> None:
    texts = ["a", "A", LONG, LONG + "!"]
    column = pa.chunked_array([texts[:1], texts[1:]], pa.large_string())
    assert duplicate_groups(column).tolist() == duplicate_groups(texts).tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(text_hashes(column), text_hashes(texts))
    assert text_hashes(texts).dtype == np.uint8
    assert text_hashes([]).shape == (0, 16)
    assert duplicate_groups([]).tolist() == []
    assert duplicate_groups(["", "\n", LONG * 20_000]).tolist() == [0, 0, 1]


HASH_LINES = """
import hashlib, json, sys
from fullbake.data.duplicates import duplicate_groups
from fullbake.data.normalization import text_hashes
texts = json.load(sys.stdin)
print(duplicate_groups(texts).tolist(), hashlib.sha256(text_hashes(texts).tobytes()).hexdigest())
"""


def test_groups_and_hashes_are_the_same_in_every_process() -> None:
    texts = sentences(60, 12, 5) + [f"{text}." for text in sentences(30, 12, 5)]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", HASH_LINES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            input=json.dumps(texts),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 64


def test_overlap_of_two_collections() -> None:
    train = ["one text", LONG, "another", "ONE  text", CHINESE]
    held = ["nothing", "One text", LONG + " Twice."]
    rows, others = find_overlap(train, held, near=False)
    assert (rows.tolist(), others.tolist()) == ([0, 3], [1])
    rows, others = find_overlap(train, pa.chunked_array([held]))
    assert (rows.tolist(), others.tolist()) == ([0, 1, 3], [1, 2])
    assert [found.tolist() for found in find_overlap(train, ["new"])] == [[], []]


def test_work_is_linear_in_the_number_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = ["".join(one) + two for one in itertools.permutations("abcdefg", 3) for two in ("hi", "jk", "lm")]
    compared: list[int] = []
    bucket_pairs = duplicates._bucket_pairs

    def counted(keys: Any) -> Any:
        pairs = bucket_pairs(keys)
        compared.append(len(pairs))
        return pairs

    monkeypatch.setattr(duplicates, "_bucket_pairs", counted)
    work = []
    for count in (1_000, 8_000):
        compared.clear()
        texts = sentences(count // 2, 30, seed=2, vocabulary=vocabulary)
        texts += [text + " again" for text in texts]
        assert duplicate_groups(texts).max() + 1 == count // 2
        work.append(sum(compared))
    assert 0 < work[1] < 12 * work[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize(
    ("train", "held", "column", "count"),
    [
        ("trec_train.csv", "trec_test.csv", "text", 11),  # 10 to the letter, and one in another case
        ("chnsenticorp_train.csv", "chnsenticorp_dev.csv", "text", 338),
        ("imdb_train.parquet", "imdb_test.parquet", "text", 123),
    ],
)
def test_known_overlaps_of_public_data_sets_are_found(train: str, held: str, column: str, count: int) -> None:
    from fullbake.data.dataset import read_dataset

    one, two = (read_dataset(SHARED / name, text=column).texts for name in (train, held))
    assert len(find_overlap(one, two, near=False)[1]) == count
