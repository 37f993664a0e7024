"""fullbake.comparison.leaderboard: The comparison's own rounds are played in test_comparison.py; here stand-ins say when what is read; Whole comparisons are concluded in test_comparison.py; here is what a small one cannot show: where costs come from,
and what is told of whoever ran it."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fullbake.comparison import leaderboard
from fullbake.comparison.design import Design, Trial, read_candidates
from fullbake.comparison.leaderboard import (
    PROBE_OPENING_SECONDS,
    PROBE_SECONDS,
    FinishedComparison,
    ForgettingMeasurement,
)
from fullbake.comparison.runner import ArtifactStore, CandidateResult
from fullbake.comparison.trial import TestLogits, TrialResult
from fullbake.core.errors import BaseModelError

NAMES = ("finetune", "further-frozen-mlp", "frozen-mlp", "majority")


class Rounds:
    """What Forgetting asks of rounds that are over."""

    def __init__(self, cells: ArtifactStore) -> None:
        self.setting, self.gone = SimpleNamespace(cells=cells), list[str]()

    def identity(self, cell: Any) -> str:
        return f"{cell.id} of these rows"

    def seeded(self, _: Any, outcome: TrialResult) -> Any:
        return SimpleNamespace(recipe=SimpleNamespace(base="demo"), cache_dir=None, seed=outcome.seed)

    def weights(self, cell: Any) -> str:
        return str(cell.seed)


class Probe:
    """Reads from an encoder what it is called."""

    head = SimpleNamespace(model=SimpleNamespace(base_model="untouched"))

    def read(self, encoder: str) -> dict[str, str]:
        return {"mlm_loss": encoder}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bases whose probes were opened."""
    bases: list[str] = []
    monkeypatch.setattr(leaderboard, "open_probe", lambda base, cache_dir: bases.append(base) or Probe())
    monkeypatch.setattr(
        leaderboard, "restore_network", lambda job, weights: f"seed {job.seed} with weights of {weights}"
    )
    return bases


def results() -> dict[str, CandidateResult]:
    """Two seeds of each recipe, of which validation likes the second."""
    played = {}
    for entrant in read_candidates(NAMES, base="demo"):
        result = CandidateResult(entrant, chosen={None: None})
        for seed, value in ((0, -0.5), (1, 0.0)):
            cell = leaderboard.Trial(entrant.name, None, seed, None)
            result.outcomes[cell] = TrialResult(value, None, np.zeros((1, 2), np.float32), seed)
            result.scores[cell] = None  # type: ignore[assignment]  # that it is there says that it was scored
        played[entrant.name] = result
    return played


def test_every_changed_encoder_is_read_and_its_base_once(tmp_path: Path, opened: list[str]) -> None:
    measured = ForgettingMeasurement(Rounds(ArtifactStore(tmp_path)), lambda: float("inf"))  # type: ignore[arg-type]
    found = {name: measured.of(result) for name, result in results().items()}
    read = {"before": {"mlm_loss": "untouched"}, "after": {"mlm_loss": "seed 1 with weights of 1"}}
    assert found == {"finetune": read, "further-frozen-mlp": read, "frozen-mlp": None, "majority": None}
    assert opened == ["demo"]


def test_what_was_read_is_kept(tmp_path: Path, opened: list[str]) -> None:
    result = results()["finetune"]
    first = ForgettingMeasurement(Rounds(ArtifactStore(tmp_path)), lambda: float("inf")).of(result)  # type: ignore[arg-type]
    again = ForgettingMeasurement(Rounds(ArtifactStore(tmp_path)), lambda: 0.0).of(result)  # type: ignore[arg-type]
    assert first == again
    assert opened == ["demo"]


def test_time_decides_and_an_open_probe_takes_less(tmp_path: Path, opened: list[str]) -> None:
    left = iter([PROBE_OPENING_SECONDS - 1, PROBE_OPENING_SECONDS, PROBE_SECONDS - 1, PROBE_SECONDS])
    rounds, played = Rounds(ArtifactStore(tmp_path)), results()
    measured = ForgettingMeasurement(rounds, lambda: next(left))  # type: ignore[arg-type]
    assert measured.of(played["finetune"]) is None
    assert rounds.gone == ["forgetting by finetune: no time was left to measure it"]
    assert measured.of(played["finetune"]) is not None
    assert measured.of(played["further-frozen-mlp"]) is None
    assert measured.of(played["further-frozen-mlp"]) is not None
    assert len(rounds.gone) == 2


def test_a_base_that_cannot_be_probed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BaseModelError("its tokenizer has no mask token")

    monkeypatch.setattr(leaderboard, "open_probe", refuse)
    measured = ForgettingMeasurement(Rounds(ArtifactStore(tmp_path)), lambda: float("inf"))  # type: ignore[arg-type]
    assert measured.of(results()["finetune"]) is None
    assert "what finetune forgot could not be measured: its tokenizer has no mask token" in caplog.text


LOGITS = np.zeros((2, 2), np.float32)


def played(name: str, *, stage_seconds: float = 0.0) -> CandidateResult:
    """Two rates and two seeds of a recipe: 10 s and 30 s of training at the chosen rate, 100 s at the other; 50 rows a
    second."""
    (entrant,) = read_candidates([name], base="demo")
    result = CandidateResult(entrant, chosen={None: 1e-2})
    for rate, seed, seconds in ((1e-2, 0, 10.0), (1e-2, 1, 30.0), (1e-3, 0, 100.0), (1e-3, 1, 100.0)):
        cell = Trial(name, rate, seed)
        memory = 1_000 * (seed + 1)
        result.outcomes[cell] = TrialResult(
            0.5, None, LOGITS, seed, seconds=seconds, memory=memory, parameters=7, size=9, stage_seconds=stage_seconds
        )
        if rate == 1e-2:
            result.scores[cell] = TestLogits(LOGITS, 50.0)
    return result


def cost(result: CandidateResult) -> dict[str, Any]:
    """Its entry, with 80 training and 20 validation rows."""
    ending: Any = SimpleNamespace(parts=SimpleNamespace(train=range(80), chooser=range(20)))
    return leaderboard._cost(ending, result)


def change(result: CandidateResult, cell: Trial, **fields: Any) -> None:
    result.outcomes[cell] = replace(result.outcomes[cell], **fields)


def test_the_price_of_one_classifier_is_one_seed_at_the_chosen_rate() -> None:
    found = cost(played("finetune"))
    assert found["train_seconds"] == 20.0
    assert found["search_seconds"] == 240.0
    assert (found["peak_memory_bytes"], found["trained_parameters"], found["bundle_bytes"]) == (2_000, 7, 9)
    assert found["rows_per_second"] == 50.0


def test_features_are_paid_for_though_they_came_from_a_cache() -> None:
    found = cost(played("frozen-mlp"))
    assert found["train_seconds"] == 20.0 + 100 / 50
    assert found["search_seconds"] == 240.0 + 100 / 50


def test_further_pretraining_is_part_of_the_price_once() -> None:
    found = cost(played("further-frozen-mlp", stage_seconds=60.0))
    assert found["train_seconds"] == 60.0 + 20.0 + 2.0
    assert found["search_seconds"] == 60.0 + 240.0 + 2.0


def test_memory_that_could_not_be_measured_is_not_made_up() -> None:
    result = played("finetune")
    for cell in list(result.outcomes):
        change(result, cell, memory=None)
    assert cost(result)["peak_memory_bytes"] is None


def test_a_collapsed_or_restarted_cell_is_named() -> None:
    result = played("finetune")
    bad, again = list(result.outcomes)[:2]
    change(result, bad, reason="collapsed: one class")
    change(result, again, restarts=["one class; started again with seed 1001"])
    assert leaderboard._collapses(result) == [{"cell": bad.id, "reason": "collapsed: one class"}]
    assert leaderboard._restarts(result) == [{"cell": again.id, "reason": "one class; started again with seed 1001"}]


def test_rates_stand_from_high_to_low_with_failed_seeds_left_out_of_the_mean() -> None:
    result = played("finetune")
    change(result, Trial("finetune", 1e-3, 1), value=None)
    assert leaderboard._rates(result) == [
        {"rate": 1e-2, "validation": [0.5, 0.5], "mean": 0.5},
        {"rate": 1e-3, "validation": [0.5, None], "mean": 0.5},
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/opt/bin/fullbake", "compare", "/home/me/secret/rows.csv"], "fullbake compare rows.csv"),
        (["fullbake", "compare", "rows.csv", "--text", "the text"], 'fullbake compare rows.csv --text "the text"'),
        (["/usr/bin/pytest", "tests"], "fullbake.compare(...)"),
    ],
)
def test_the_command_is_told_without_folders(words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert leaderboard._command() == told


def test_what_was_planned_less_and_what_was_dropped_on_the_way_is_told_once(tmp_path: Path) -> None:
    result = played("finetune")
    rounds: Any = SimpleNamespace(results={"finetune": result}, gone=["seeds: 2 of 3", "tfidf: no time"])
    lines = [result.entrant.line(2)]
    end = FinishedComparison(
        out=tmp_path,
        setting=SimpleNamespace(),  # type: ignore[arg-type]
        rounds=rounds,
        lines=lines,
        design=Design(("finetune",), 2, 2),
        left_out=["seeds: 2 of 3"],
        started=0.0,
        seconds=60.0,
        max_rows=None,
        folds=None,
    )
    told = leaderboard._design(end)
    assert told["left_out"] == ["seeds: 2 of 3", "tfidf: no time"]
    assert told["seeds"] == [0, 1]
    assert told["rates"] == {"finetune": [5e-05, 2e-05]}
    assert leaderboard._why_left_out(end, "majority") == "left out"
