"""Feature extraction computes equal rows once, resumes after a kill, and gives the same bits each time."""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feature_extraction import ROWS, Counting, encoded, extract_into_queue, extraction_by
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core import stopping, storage
from fullbake.core.cache import Cache
from fullbake.core.errors import DeadlinePassed
from fullbake.training import features
from fullbake.training.features import (
    JOURNAL_FILE,
    ROWS_FILE,
    Features,
    FileShape,
    StoredPrecision,
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


def recorded(calls: list[int]) -> Callable[[int], np.ndarray]:
    def make(number: int) -> np.ndarray:
        calls.append(number)
        return rows_of(number)

    return make


WHOLE = np.arange(6)[:, None] + np.array([0.0, 0.25])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parts_make_a_file_that_safetensors_reads(tmp_path: Path, precision: StoredPrecision) -> None:
    shape = FileShape(6, 2, precision)
    assert list(write_rows(tmp_path, shape, PARTS, rows_of)) == [0, 1, 2]
    mapped = map_rows(tmp_path)
    assert mapped.dtype == shape.dtype
    assert mapped.nbytes == shape.size
    np.testing.assert_array_equal(mapped, WHOLE)
    np.testing.assert_array_equal(storage.read_tensors(tmp_path / ROWS_FILE)["rows"], mapped)


def test_a_map_never_changes_the_file(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    map_rows(tmp_path)[:] = 9
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_parts_that_were_written_before_a_kill_are_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []
    writing = write_rows(tmp_path, FileShape(6, 2), PARTS, recorded(calls))
    next(writing)
    writing.close()
    assert list(write_rows(tmp_path, FileShape(6, 2), PARTS, recorded(calls))) == [0, 1, 2]
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_a_part_whose_hash_differs_is_computed_again(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    path = tmp_path / ROWS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in row 5, which part 2 made
    path.write_bytes(content)
    calls: list[int] = []
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, recorded(calls)))
    assert calls == [2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_an_incomplete_journal_line_is_ignored(tmp_path: Path) -> None:
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, rows_of))
    journal = tmp_path / JOURNAL_FILE
    assert [json.loads(line)["part"] for line in journal.read_text().splitlines()] == [0, 1, 2]
    journal.write_bytes(journal.read_bytes()[:-5])
    calls: list[int] = []
    list(write_rows(tmp_path, FileShape(6, 2), PARTS, recorded(calls)))
    assert calls == [2]


def test_a_file_without_rows(tmp_path: Path) -> None:
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
    writing = write_rows(folder, FileShape(12, 3), parts, lambda number: whole[parts[number]])
    for _, _ in zip(range(stops), writing, strict=False):
        pass
    writing.close()
    list(write_rows(folder, FileShape(12, 3), parts, lambda number: whole[parts[number]]))
    np.testing.assert_array_equal(map_rows(folder), whole)


def test_rows_of_equal_ids_are_computed_once(tmp_path: Path) -> None:
    network, cache = Counting(), Cache(tmp_path, 10**6)
    found = extract_features(extraction_by(network), lambda: encoded(ROWS), cache)
    assert found is not None
    assert network.rows == 4
    second = [row[1] for row in ROWS]
    np.testing.assert_array_equal(found.vectors, np.array([[value, value**2] for value in second], np.float32))
    again = extract_features(extraction_by(network), lambda: pytest.fail("a cache hit must not tokenize"), cache)
    assert again is not None
    np.testing.assert_array_equal(again.vectors, found.vectors)
    assert network.rows == 4


def test_states_of_every_token(tmp_path: Path) -> None:
    network = Counting()
    found = extract_features(extraction_by(network, every_token=True), lambda: encoded(ROWS), Cache(tmp_path, 10**6))
    assert found is not None
    assert found.values.shape == (3 + 2 + 5 + 3, 2)
    batch = gather_token_states(found, np.array([3, 1]), np.array([5, 2]), 6)
    assert batch.dtype == torch.float32
    expected = torch.tensor([[1, 7, 8, 9, 2, 0], [1, 2, 0, 0, 0, 0]]).float()
    torch.testing.assert_close(batch, torch.stack([expected, expected.square()], dim=2))
    taken = gather_token_states(found.take(np.array([5, 2])), np.array([1]), np.array([3]), 3)
    assert taken[0, :, 0].tolist() == [1, 5, 2]


@pytest.mark.parametrize("every_token", [False, True])
def test_a_killed_extraction_is_resumed_at_its_last_part(tmp_path: Path, every_token: bool) -> None:
    rows = [[1, *range(3, 3 + length), 2] for length in range(1, 9)]

    def extract(network: Counting, cache: Cache) -> Features | None:
        extraction = extraction_by(network, every_token, batches_per_part=1)
        return extract_features(extraction, lambda: encoded(rows), cache)

    whole = extract(Counting(), Cache(tmp_path / "whole", 10**6))
    cache, killed, rest = Cache(tmp_path / "killed", 10**6), Counting(dies_at=4), Counting()
    with pytest.raises(KeyboardInterrupt):
        extract(killed, cache)
    assert cache.entries() == []
    found = extract(rest, cache)
    assert whole is not None
    assert found is not None
    assert killed.rows + rest.rows == len(rows)
    np.testing.assert_array_equal(found.values, whole.values)


def test_progress_counts_batches_and_the_rows_of_an_earlier_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(features, "bar", lambda *_: nullcontext(counted.append))
    rows, cache = [[1, *range(3, 3 + length), 2] for length in range(1, 9)], Cache(tmp_path, 10**6)
    killed = Counting(dies_at=4)
    with pytest.raises(KeyboardInterrupt):
        extract_features(extraction_by(killed, batches_per_part=2), lambda: encoded(rows), cache)
    assert len(counted) == 3, "two batches of the first part and one of the second"
    assert sum(counted) == killed.rows
    counted.clear()
    assert extract_features(extraction_by(Counting(), batches_per_part=2), lambda: encoded(rows), cache) is not None
    assert sum(counted) == len(rows)


def test_an_extraction_stops_at_its_deadline_and_keeps_what_is_done(tmp_path: Path) -> None:
    rows = [[1, *range(3, 3 + length), 2] for length in range(1, 9)]
    cache, late, rest = Cache(tmp_path, 10**6), Counting(), Counting()

    def extract(network: Counting) -> Features | None:
        return extract_features(extraction_by(network, batches_per_part=1), lambda: encoded(rows), cache)

    with stopping.deadline(lambda: late.calls == 3), pytest.raises(DeadlinePassed):
        extract(late)
    assert late.calls == 3
    assert extract(rest) is not None
    assert late.rows + rest.rows == len(rows)


def test_an_extraction_in_memory_stops_at_its_deadline() -> None:
    network = Counting()
    with stopping.deadline(lambda: network.calls == 2), pytest.raises(DeadlinePassed):
        extract_in_memory(extraction_by(network), encoded([[1, *range(3, 12), 2], *ROWS]))
    assert network.calls == 2


def test_half_precision_is_stored_and_read_as_float32(tmp_path: Path) -> None:
    found = extract_features(extraction_by(Counting(), precision="fp16"), lambda: encoded(ROWS), Cache(tmp_path, 10**6))
    assert found is not None
    assert found.values.dtype == np.float16
    assert found.vectors.dtype == np.float32


def test_features_too_large_for_the_cache_are_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path, 10)
    assert extract_features(extraction_by(Counting()), lambda: encoded(ROWS), cache) is None
    assert "more than the cache may hold" in caplog.text
    in_memory = extract_in_memory(extraction_by(Counting()), encoded(ROWS))
    assert in_memory.vectors[:, 0].tolist() == [5, 2, 5, 7, 2, 6]


@pytest.mark.slow
def test_two_processes_compute_features_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    processes = [context.Process(target=extract_into_queue, args=(tmp_path, found)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [found.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(rows for rows, _ in results) == [0, 4]
    assert results[0][1] == results[1][1]


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=3), st.integers(0, 1)), max_size=12))
def test_groups_are_rows_of_the_same_ids_and_segments(rows: list[tuple[list[int], int]]) -> None:
    texts = encoded([ids for ids, _ in rows], [[kind] * len(ids) for ids, kind in rows])
    first_rows, group_of_row = unique_rows(texts)
    seen = [(tuple(ids), kind if ids else 0) for ids, kind in rows]
    assert len(first_rows) == len(set(seen))
    assert [seen[first_rows[group]] for group in group_of_row.tolist()] == seen
    assert first_rows.tolist() == sorted(first_rows.tolist())
