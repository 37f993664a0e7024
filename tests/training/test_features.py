"""fullbake.training.features: A pass computes rows of equal ids once, goes on after a kill, and gives the same bits each time."""

import json
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullbake.config.sections import TokensConfig
from fullbake.core import storage
from fullbake.core.cache import Cache
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.training import features
from fullbake.training.features import (
    FeatureExtraction,
    FileShape,
    extract_features,
    extract_in_memory,
    gather_token_states,
    map_rows,
    unique_rows,
    write_rows,
)

PARTS = [np.array([4, 0]), np.array([1, 2, 3]), np.array([5])]


def rows_of(number: int) -> np.ndarray:
    return PARTS[number][:, None] + np.array([0.0, 0.25])


def watched(calls: list[int]) -> Callable[[int], np.ndarray]:
    def make(number: int) -> np.ndarray:
        calls.append(number)
        return rows_of(number)

    return make


WHOLE = np.arange(6)[:, None] + np.array([0.0, 0.25])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parts_make_a_file_that_safetensors_reads(tmp_path: Path, precision: features.StoredPrecision) -> None:
    shape = FileShape(6, 2, precision)
    assert list(write_rows(tmp_path, shape, PARTS, rows_of)) == [0, 1, 2]
    mapped = map_rows(tmp_path)
    assert mapped.dtype == shape.dtype
    assert mapped.nbytes == shape.size
    np.testing.assert_array_equal(mapped, WHOLE)
    np.testing.assert_array_equal(storage.read_tensors(tmp_path / features.ROWS_FILE)["rows"], mapped)


def test_a_map_never_changes_the_file(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    map_rows(tmp_path)[:] = 9
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_what_was_made_before_a_kill_is_not_made_again(tmp_path: Path) -> None:
    calls: list[int] = []
    going = write_rows(tmp_path, FileShape(6, 2), PARTS, watched(calls))
    next(going)
    going.close()
    assert list(write_rows(tmp_path, FileShape(6, 2), PARTS, watched(calls))) == [0, 1, 2]
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_a_part_that_is_not_what_was_noted_is_made_again(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    path = tmp_path / features.ROWS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in row 5, which part 2 made
    path.write_bytes(content)
    calls: list[int] = []
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, watched(calls)))
    assert calls == [2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_a_note_that_was_cut_off_is_no_note(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    journal = tmp_path / features.JOURNAL_FILE
    assert [json.loads(line)["part"] for line in journal.read_text().splitlines()] == [0, 1, 2]
    journal.write_bytes(journal.read_bytes()[:-5])
    calls: list[int] = []
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, watched(calls)))
    assert calls == [2]


def test_nothing_at_all(tmp_path: Path) -> None:
    assert list(write_rows(tmp_path, FileShape(0, 2), [], rows_of)) == []
    assert map_rows(tmp_path).shape == (0, 2)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(12)), sizes=st.lists(st.integers(1, 5), min_size=1), stops=st.integers(0, 12))
def test_any_order_of_rows_and_any_stop_give_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], sizes: list[int], stops: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    bounds = np.cumsum(sizes)
    parts = [part for part in np.split(np.array(order), bounds[bounds < 12]) if len(part)]
    whole = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    going = write_rows(folder, FileShape(12, 3), parts, lambda number: whole[parts[number]])
    for _, _ in zip(range(stops), going, strict=False):
        pass
    going.close()
    list(write_rows(folder, FileShape(12, 3), parts, lambda number: whole[parts[number]]))
    np.testing.assert_array_equal(map_rows(folder), whole)


TOKENS = TokensConfig(max_length=16, token_budget=12)


def encoded(rows: list[list[int]], types: list[list[int]] | None = None) -> Encoded:
    flat = np.array([token for row in rows for token in row], np.int32)
    segments = None if types is None else np.array([kind for row in types for kind in row], np.uint8)
    return Encoded(flat, row_offsets(np.array([len(row) for row in rows])), segments)


ROWS = [[1, 5, 2], [1, 2], [1, 5, 2], [1, 7, 8, 9, 2], [1, 2], [1, 6, 2]]


class Counting:
    """A network that counts its rows: ids -> (ids, ids squared) of every token, or of the first two."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.rows, self.calls, self.dies_at = 0, 0, dies_at

    def states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        ids = inputs["input_ids"].float()
        self.rows += len(ids)
        return torch.stack([ids, ids.square()], dim=2)

    def pooled(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.states(inputs)[:, 1]


def asked(network: Counting, every_token: bool = False, **fields: Any) -> FeatureExtraction:
    forward = network.states if every_token else network.pooled
    return replace(FeatureExtraction(forward, 2, "k", "features", TOKENS, 0, every_token), **fields)


def test_equal_ids_pass_once(tmp_path: Path) -> None:
    network, cache = Counting(), Cache(tmp_path, 10**6)
    found = extract_features(asked(network), lambda: encoded(ROWS), cache)
    assert found is not None
    assert network.rows == 4
    second = [row[1] for row in ROWS]
    np.testing.assert_array_equal(found.vectors, np.array([[value, value**2] for value in second], np.float32))
    again = extract_features(asked(network), lambda: pytest.fail("a cache hit must not tokenize"), cache)
    assert again is not None
    np.testing.assert_array_equal(again.vectors, found.vectors)
    assert network.rows == 4


def test_states_of_every_token(tmp_path: Path) -> None:
    network = Counting()
    found = extract_features(asked(network, every_token=True), lambda: encoded(ROWS), Cache(tmp_path, 10**6))
    assert found is not None
    assert found.values.shape == (3 + 2 + 5 + 3, 2)
    batch = gather_token_states(found, np.array([3, 1]), np.array([5, 2]), 6)
    assert batch.dtype == torch.float32
    expected = torch.tensor([[1, 7, 8, 9, 2, 0], [1, 2, 0, 0, 0, 0]]).float()
    torch.testing.assert_close(batch, torch.stack([expected, expected.square()], dim=2))
    taken = gather_token_states(found.take(np.array([5, 2])), np.array([1]), np.array([3]), 3)
    assert taken[0, :, 0].tolist() == [1, 5, 2]


@pytest.mark.parametrize("every_token", [False, True])
def test_a_killed_pass_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_token: bool) -> None:
    monkeypatch.setattr(features, "BATCHES_A_PART", 1)
    rows = [[1, *range(3, 3 + length), 2] for length in range(1, 9)]
    whole = extract_features(asked(Counting(), every_token), lambda: encoded(rows), Cache(tmp_path / "whole", 10**6))
    cache, dying, rest = Cache(tmp_path / "killed", 10**6), Counting(dies_at=4), Counting()
    with pytest.raises(KeyboardInterrupt):
        extract_features(asked(dying, every_token), lambda: encoded(rows), cache)
    assert cache.entries() == []
    found = extract_features(asked(rest, every_token), lambda: encoded(rows), cache)
    assert whole is not None
    assert found is not None
    assert dying.rows + rest.rows == len(rows)
    np.testing.assert_array_equal(found.values, whole.values)


def test_half_precision_is_half_the_bytes(tmp_path: Path) -> None:
    found = extract_features(asked(Counting(), precision="fp16"), lambda: encoded(ROWS), Cache(tmp_path, 10**6))
    assert found is not None
    assert found.values.dtype == np.float16
    assert found.vectors.dtype == np.float32


def test_what_the_cache_may_not_hold_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path, 10)
    assert extract_features(asked(Counting()), lambda: encoded(ROWS), cache) is None
    assert "more than the cache may hold" in caplog.text
    in_memory = extract_in_memory(asked(Counting()), encoded(ROWS))
    assert in_memory.vectors[:, 0].tolist() == [5, 2, 5, 7, 2, 6]


def _compute(folder: Path, found: Any) -> None:
    network = Counting()
    stored = extract_features(asked(network), lambda: encoded(ROWS * 50), Cache(folder, 10**6))
    found.put((network.rows, None if stored is None else stored.vectors.tolist()))


@pytest.mark.slow
def test_two_processes_compute_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    processes = [context.Process(target=_compute, args=(tmp_path, found)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [found.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(rows for rows, _ in results) == [0, 4]
    assert results[0][1] == results[1][1]


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=3), st.integers(0, 1)), max_size=12))
def test_kinds_are_rows_of_the_same_ids_and_segments(rows: list[tuple[list[int], int]]) -> None:
    texts = encoded([ids for ids, _ in rows], [[kind] * len(ids) for ids, kind in rows])
    firsts, which = unique_rows(texts)
    seen = [(tuple(ids), kind if ids else 0) for ids, kind in rows]
    assert len(firsts) == len(set(seen))
    assert [seen[firsts[kind]] for kind in which.tolist()] == seen
    assert firsts.tolist() == sorted(firsts.tolist())
