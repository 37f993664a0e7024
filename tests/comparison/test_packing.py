"""What goes to workers and comes back survives the way, and anything else is refused."""

import math
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import column, dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.comparison.design import read_candidates
from fullbake.comparison.packing import (
    Assignment,
    Outcome,
    WorkPackage,
    divide_message,
    join_message,
    pack_rows,
    read_outcome,
    unpack_rows,
)
from fullbake.comparison.schedule import NextTrial, Size, Trial
from fullbake.comparison.trial import TrialPredictions, TrialResult
from fullbake.comparison.trial_work import TrialTask
from fullbake.config.recipe import Recipe
from fullbake.config.sections import Columns, DecisionConfig
from fullbake.core.errors import Fault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Parts, divide, divide_into_test_folds

TRIAL = Trial("finetune", 1, None, Size(rows=0.7))
STEP = NextTrial(TRIAL, "first sweep", 12.5, False, 3.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> WorkPackage:
    data = dataset(tmp_path_factory.mktemp("rows"))
    fields: dict[str, Any] = {"base": "base", "max_length": 32}
    candidates = {one.name: one for one in read_candidates(["finetune", "further-frozen-mlp", "majority"], **fields)}
    folds = [divide(data, Recipe.load(base="x", test=0.25, folds=0).data)]
    facts = {"cache_dir": None, "folder": "/", "device": "cpu"}
    return WorkPackage(candidates, {"finetune": "k"}, folds, "f1_macro", DecisionConfig(), facts)


def assignment(**fields: Any) -> Assignment:
    return Assignment(TrialTask(TRIAL, 3e-5, "id", 10.0, {"features of x": 2.0}), STEP, 1, None, 0.5, **fields)


def outcome(package: WorkPackage, **fields: Any) -> Outcome:
    rows = package.folds[0]
    assert rows.test is not None
    logits = np.linspace(0, 1, len(rows.selection_part) * 3, dtype=np.float32).reshape(-1, 3)
    result = TrialResult(0.75, None, logits, 1, history=[{"train_loss": 0.1 + 0.2}], rate=3e-5, threads=1)
    test = np.zeros((len(rows.test), 3), np.float32)
    given: dict[str, Any] = {
        "result": result,
        "weights": {"head.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3).T},
        "predictions": TrialPredictions(test, 12.0),
    }
    return Outcome("host", **(given | fields))


def test_rows_survive_with_their_fingerprints(tmp_path: Path) -> None:
    data, config = dataset(tmp_path), Recipe.load(base="x", test=0.25, folds=0).data
    folds = divide_into_test_folds(data, config, 3)
    other = replace(data, source="elsewhere")
    folds[0] = Parts(folds[0].train, folds[0].validation, replace(folds[0].train, source=other))
    back = unpack_rows(pack_rows(folds))
    for one, two in zip(folds, back, strict=True):
        for name, part in one.by_name().items():
            assert two.by_name()[name].fingerprint() == part.fingerprint()
            assert asdict(two.by_name()[name].source.columns) == asdict(part.source.columns)
    assert back[1].train.source is back[2].train.source, "features are computed once for each source"
    assert back[0].test is not None
    assert back[0].test.source is not back[0].train.source


@given(texts=st.lists(st.text(), min_size=1, max_size=5), many=st.booleans(), pairs=st.booleans())
@settings(max_examples=30)
def test_any_texts_survive(texts: list[str], many: bool, pairs: bool) -> None:
    count = len(texts)
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    labels = np.eye(2, dtype=np.uint8)[np.arange(count) % 2] if many else np.arange(count) % 2
    columns = Columns("text", None, "other" if pairs else None, ("a", "b")) if many else Columns("text", "label")
    pair = column(texts) if pairs else None
    data = Dataset(column(texts), labels, ("a", "ü"), np.arange(1, count + 1), "memory", columns, pair, pair)
    part = Parts(*[_part(data)] * 3)
    (back,) = unpack_rows(pack_rows([part]))
    assert back.train.fingerprint() == part.train.fingerprint()
    assert back.train.labels.dtype == labels.dtype
    assert back.train.source.columns == columns


def _part(data: Dataset) -> Any:
    from fullbake.data.splits import Part

    return Part(data, np.arange(len(data)))


def test_package_survives(package: WorkPackage) -> None:
    back = WorkPackage.from_bytes(package.to_bytes())
    assert back.candidates == package.candidates
    assert (back.decision, back.facts, back.base_keys) == (package.decision, package.facts, package.base_keys)


def test_assignment_survives() -> None:
    for one in (assignment(), assignment(prepares=True, keep_from=0.5, needs=["a"], sends_entries=True)):
        assert Assignment.from_bytes(one.to_bytes()) == one
    assert assignment(prepares=True).id != assignment().id


def test_outcome_survives_bit_for_bit(package: WorkPackage) -> None:
    sent = outcome(package, learned=[(["a"], 1.5)], entries={"features/k": b"x"}, versions={"torch": "2"})
    got = read_outcome(sent.to_bytes(), assignment(), package)
    assert got.result is not None
    assert sent.result is not None
    assert got.result.facts() == sent.result.facts()
    assert got.result.logits.tobytes() == sent.result.logits.tobytes()
    assert got.weights["head.weight"].tolist() == sent.weights["head.weight"].tolist()
    assert got.learned == [(["a"], 1.5)]
    assert got.entries == {"features/k": b"x"}


def changed(package: WorkPackage, **fields: Any) -> TrialResult:
    result = outcome(package).result
    assert result is not None
    return replace(result, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": math.nan},
        {"share": 1.5},
        {"logits": np.zeros((2, 3), np.float32)},
        {"logits": np.zeros((15, 7), np.float32)},
        {"logits": np.full((12, 3), np.nan, np.float32)},
        {"logits": np.zeros((12, 3), np.float64)},
    ],
)
def test_results_that_do_not_fit_are_refused(package: WorkPackage, fields: dict[str, Any]) -> None:
    sent = outcome(package, result=changed(package, **fields))
    with pytest.raises(Fault, match="what a worker sent back cannot be used"):
        read_outcome(sent.to_bytes(), assignment(), package)


@pytest.mark.parametrize(
    "fields",
    [
        {"result": None},
        {"predictions": TrialPredictions(np.zeros((1, 3), np.float32), 1.0)},
        {"elapsed": -1.0},
        {"elapsed": math.nan},
    ],
)
def test_outcomes_that_do_not_fit_are_refused(package: WorkPackage, fields: dict[str, Any]) -> None:
    with pytest.raises(Fault, match="cannot be used"):
        read_outcome(outcome(package, **fields).to_bytes(), assignment(), package)


@given(data=st.binary(max_size=200))
def test_no_bytes_are_run_or_crash(package: WorkPackage, data: bytes) -> None:
    for damaged in (data, pickle.dumps(data), join_message({}, {}), join_message({"machine": 1}, {"arrays": data})):
        with pytest.raises(Fault):
            read_outcome(damaged, assignment(), package)


@given(place=st.integers(0, 3000), bit=st.integers(0, 7))
@settings(max_examples=40)
def test_a_flipped_bit_gives_a_fault_or_an_outcome(package: WorkPackage, place: int, bit: int) -> None:
    data = bytearray(outcome(package).to_bytes())
    data[place % len(data)] ^= 1 << bit
    try:
        assert read_outcome(bytes(data), assignment(), package).machine
    except Fault as fault:
        assert fault.remedy  # noqa: PT017  (either is right)


@given(head=st.dictionaries(st.text(), st.integers()), blobs=st.dictionaries(st.text(), st.binary()))
def test_messages_survive(head: dict[str, int], blobs: dict[str, bytes]) -> None:
    assert divide_message(join_message(head, blobs)) == (head, blobs)
    with pytest.raises(ValueError, match=r".+"):
        divide_message(join_message(head, blobs) + b"x")
