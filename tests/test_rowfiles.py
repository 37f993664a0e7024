import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core import storage
from fullbake.training import features
from fullbake.training.features import Shape, fill, map_rows

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
def test_parts_make_a_file_that_safetensors_reads(tmp_path: Path, precision: features.Precision) -> None:
    shape = Shape(6, 2, precision)
    assert list(fill(tmp_path, shape, PARTS, rows_of)) == [0, 1, 2]
    mapped = map_rows(tmp_path)
    assert mapped.dtype == shape.dtype
    assert mapped.nbytes == shape.size
    np.testing.assert_array_equal(mapped, WHOLE)
    np.testing.assert_array_equal(storage.read_tensors(tmp_path / features.FILE)["rows"], mapped)


def test_a_map_never_changes_the_file(tmp_path: Path) -> None:
    list(fill(tmp_path, Shape(6, 2), PARTS, rows_of))
    map_rows(tmp_path)[:] = 9
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_what_was_made_before_a_kill_is_not_made_again(tmp_path: Path) -> None:
    calls: list[int] = []
    going = fill(tmp_path, Shape(6, 2), PARTS, watched(calls))
    next(going)
    going.close()
    assert list(fill(tmp_path, Shape(6, 2), PARTS, watched(calls))) == [0, 1, 2]
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_a_part_that_is_not_what_was_noted_is_made_again(tmp_path: Path) -> None:
    list(fill(tmp_path, Shape(6, 2), PARTS, rows_of))
    path = tmp_path / features.FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in row 5, which part 2 made
    path.write_bytes(content)
    calls: list[int] = []
    list(fill(tmp_path, Shape(6, 2), PARTS, watched(calls)))
    assert calls == [2]
    np.testing.assert_array_equal(map_rows(tmp_path), WHOLE)


def test_a_note_that_was_cut_off_is_no_note(tmp_path: Path) -> None:
    list(fill(tmp_path, Shape(6, 2), PARTS, rows_of))
    journal = tmp_path / features.JOURNAL
    assert [json.loads(line)["part"] for line in journal.read_text().splitlines()] == [0, 1, 2]
    journal.write_bytes(journal.read_bytes()[:-5])
    calls: list[int] = []
    list(fill(tmp_path, Shape(6, 2), PARTS, watched(calls)))
    assert calls == [2]


def test_nothing_at_all(tmp_path: Path) -> None:
    assert list(fill(tmp_path, Shape(0, 2), [], rows_of)) == []
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
    going = fill(folder, Shape(12, 3), parts, lambda number: whole[parts[number]])
    for _, _ in zip(range(stops), going, strict=False):
        pass
    going.close()
    list(fill(folder, Shape(12, 3), parts, lambda number: whole[parts[number]]))
    np.testing.assert_array_equal(map_rows(folder), whole)
