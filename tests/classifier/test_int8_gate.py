"""The gate of int8: halves, paired logits, independence of the batch, and what is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fullbake.classifier.int8_gate import (
    PairedLogits,
    check_dependence,
    halve_rows,
    judge_int8,
    measure_dependence,
    refuse_shortfalls,
    score_in_turn,
)
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core.errors import BundleError, DataError
from fullbake.data.dataset import Dataset
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.fidelity import FidelityPromise
from fullbake.models.encoding import Encoded, row_offsets

RANDOM = np.random.default_rng(0)
NAMES = ("a", "b", "c")


def column(values: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.large_string())])


def dataset(labels: np.ndarray, texts: list[str] | None = None, groups: list[str] | None = None) -> Dataset:
    rows = len(labels)
    return Dataset(
        texts=column(texts or [f"text {row}" for row in range(rows)]),
        labels=labels,
        label_names=NAMES,
        rows=np.arange(1, rows + 1),
        source="rows.csv",
        columns=Columns(text="text", label="label"),
        group=None if groups is None else column(groups),
    )


def paired(rows: int, noise: float, *, factor: float = 1.0) -> tuple[Dataset, PairedLogits]:
    """Rows whose labels follow from fp32 logits, and int8 logits that are these with noise, times a factor."""
    logits = RANDOM.normal(scale=3, size=(rows, 3)).astype(np.float32)
    labels = problem_named(SINGLE_LABEL).decide(logits.astype(np.float64))
    int8 = ((logits + RANDOM.normal(scale=noise, size=logits.shape)) * factor).astype(np.float32)
    return dataset(labels), PairedLogits(logits, int8, 2.0, 1.0)


def test_halves_have_each_class_and_keep_texts_and_groups_together() -> None:
    labels = np.arange(120) % 3
    texts = [f"text {row // 2}" for row in range(120)]
    groups = [str(row // 10) if row < 60 else "" for row in range(120)]
    rows = dataset(labels, texts, groups)
    one, two = halve_rows(rows, 0)
    assert sorted([*one, *two]) == list(range(120))
    assert {texts[row] for row in one} & {texts[row] for row in two} == set()
    assert {groups[row] for row in one} & {groups[row] for row in two} <= {""}
    assert abs(len(one) - len(two)) <= 10
    for half in (one, two):
        assert np.bincount(labels[half]).min() > 10
    assert halve_rows(rows, 1)[0].tolist() != one.tolist()


def test_rows_are_scored_in_turn_and_come_back_in_order() -> None:
    lengths = RANDOM.integers(1, 5, 40)
    encoded = Encoded(np.arange(lengths.sum(), dtype=np.int32), row_offsets(lengths))
    first = encoded.input_ids[encoded.offsets[:-1]]
    calls: list[str] = []

    def side(name: str, factor: int):
        def logits(part: Encoded) -> np.ndarray:
            calls.append(name)
            return (part.input_ids[part.offsets[:-1], None] * factor).astype(np.float32)

        return logits

    found = score_in_turn(side("fp32", 1), side("int8", 2), encoded, 40)
    np.testing.assert_array_equal(found.fp32[:, 0], first)
    np.testing.assert_array_equal(found.int8[:, 0], first * 2)
    assert calls[2:8] == ["int8", "fp32", "fp32", "int8", "int8", "fp32"]
    assert found.to_json()["texts"] == 40


@pytest.mark.parametrize(("whole_batch", "least"), [(False, 0.0), (True, 0.01)])
def test_scale_of_a_whole_batch_is_found(whole_batch: bool, least: float) -> None:
    lengths = RANDOM.integers(2, 12, 30)
    encoded = Encoded(RANDOM.integers(0, 90, lengths.sum()).astype(np.int32), row_offsets(lengths))

    def compute(batch: dict[str, np.ndarray]) -> np.ndarray:
        values = np.sqrt(batch["input_ids"]) * batch["attention_mask"]
        scale = (values.max() if whole_batch else np.maximum(values.max(axis=1, keepdims=True), 1)) / 20
        return np.stack([np.rint(values / scale) @ np.ones(values.shape[1]) * np.squeeze(scale)] * 2, axis=1)

    tokens = TokensConfig(max_length=40)
    dependence = measure_dependence(compute, encoded, tokens=tokens, pad_id=0, ids=4000)  # type: ignore[arg-type]
    assert dependence >= least
    if whole_batch:
        with pytest.raises(BundleError, match="depend on its padding or on the texts beside it"):
            check_dependence(dependence)
    else:
        check_dependence(dependence)


def test_dependence_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(BundleError):
        check_dependence(float("nan"))


def test_temperature_is_that_of_fp32_and_little_noise_keeps_the_promise() -> None:
    rows, logits = paired(4000, 0.002, factor=1.3)
    rule = Decision(problem_named(SINGLE_LABEL), NAMES)
    verdict = judge_int8(rows, logits, rule, "f1_macro", FidelityPromise(), seed=0)
    assert verdict.temperature == pytest.approx(1.3, rel=0.01)
    assert verdict.shortfalls == []
    assert verdict.fitted_rows + verdict.fidelity.rows == 4000
    assert verdict.fidelity.metric["original"] == 1
    refuse_shortfalls(verdict, rows)


def test_much_noise_is_refused_with_the_figures() -> None:
    rows, logits = paired(4000, 0.5)
    verdict = judge_int8(
        rows, logits, Decision(problem_named(SINGLE_LABEL), NAMES), "accuracy", FidelityPromise(), seed=0
    )
    with pytest.raises(DataError, match="int8 loses too much") as refused:
        refuse_shortfalls(verdict, rows)
    assert "accuracy changes by -0.0" in str(refused.value)
    assert "of the labels are equal" in str(refused.value)
    assert "--tolerance" in str(refused.value)


def test_few_rows_are_refused_with_the_number_that_would_do() -> None:
    rows, logits = paired(200, 0.0)
    verdict = judge_int8(
        rows, logits, Decision(problem_named(SINGLE_LABEL), NAMES), "accuracy", FidelityPromise(), seed=0
    )
    with pytest.raises(DataError, match="the rows are too few") as refused:
        refuse_shortfalls(verdict, rows)
    assert "Give about 1,460 labeled rows" in str(refused.value)
    kept = judge_int8(
        rows, logits, Decision(problem_named(SINGLE_LABEL), NAMES), "accuracy", FidelityPromise(0.05, 0.95), seed=0
    )
    refuse_shortfalls(kept, rows)


def test_thresholds_follow_the_scores_of_int8() -> None:
    """int8 that scores one label higher gets a higher threshold for it, and so the labels of fp32."""
    problem = problem_named(MULTI_LABEL)
    logits = RANDOM.normal(scale=2, size=(2000, 3)).astype(np.float32)
    rule = Decision(problem, NAMES, (0.4, 0.5, 0.6))
    labels = rule.decide(problem.probabilities(logits))
    moved = logits.copy()
    moved[:, 0] += 0.5
    verdict = judge_int8(
        dataset(labels), PairedLogits(logits, moved, 1, 1), rule, "f1_macro", FidelityPromise(0.02, 0.95), seed=0
    )
    assert verdict.decision.thresholds is not None
    assert verdict.decision.thresholds[0] > 0.45
    assert verdict.fidelity.equal_labels["value"] > 0.98
    same = judge_int8(
        dataset(labels), replace(PairedLogits(logits, logits, 1, 1)), rule, "f1_macro", FidelityPromise(), seed=0
    )
    assert same.decision == rule
    assert same.temperature == pytest.approx(1, abs=1e-3)
