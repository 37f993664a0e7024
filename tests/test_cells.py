import logging
from pathlib import Path

import numpy as np
import pytest

from fullbake.comparison.runner import Cells, Kept


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    return Cells(tmp_path / "cells")


KEPT = Kept({"value": 0.5, "history": [{"epoch": 1}]}, {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)})


def test_what_is_kept_comes_back(cells: Cells) -> None:
    cells.keep("finetune/5e-05/0", "trained", "one", KEPT)
    found = cells.read("finetune/5e-05/0", "trained", "one")
    assert found is not None
    assert found.facts == KEPT.facts
    np.testing.assert_array_equal(found.arrays["logits"], KEPT.arrays["logits"])
    assert cells.read("finetune/5e-05/0", "scored", "one") is None
    assert cells.read("finetune/5e-05/1", "trained", "one") is None


def test_another_identity_counts_as_not_there_and_is_replaced(cells: Cells) -> None:
    cells.keep("a/only/0", "trained", "one", KEPT)
    assert cells.read("a/only/0", "trained", "two") is None
    cells.keep("a/only/0", "trained", "two", Kept({"value": 1.0}, {}))
    found = cells.read("a/only/0", "trained", "two")
    assert found is not None
    assert found.facts == {"value": 1.0}


def test_a_damaged_cell_is_told_and_not_used(cells: Cells, caplog: pytest.LogCaptureFixture) -> None:
    cells.keep("a/only/0", "trained", "one", KEPT)
    path = cells.folder("a/only/0") / "trained" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert cells.read("a/only/0", "trained", "one") is None
    assert "made again" in caplog.text


def test_dropping(cells: Cells) -> None:
    cells.keep("a/only/0", "weights", "one", KEPT)
    cells.drop("a/only/0", "weights")
    cells.drop("a/only/0", "weights")
    assert cells.read("a/only/0", "weights", "one") is None
