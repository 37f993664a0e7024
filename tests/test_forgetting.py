"""The comparison's own rounds are played in test_comparison.py; here stand-ins say when what is read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fullbake.comparison import leaderboard
from fullbake.comparison.design import read_entrants
from fullbake.comparison.leaderboard import OPENING, READING, Forgetting
from fullbake.comparison.runner import Cells, Result
from fullbake.comparison.trial import Outcome
from fullbake.core.errors import BaseModelError

NAMES = ("finetune", "further-frozen-mlp", "frozen-mlp", "majority")


class Rounds:
    """What Forgetting asks of rounds that are over."""

    def __init__(self, cells: Cells) -> None:
        self.setting, self.gone = SimpleNamespace(cells=cells), list[str]()

    def identity(self, cell: Any) -> str:
        return f"{cell.id} of these rows"

    def seeded(self, _: Any, outcome: Outcome) -> Any:
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
    monkeypatch.setattr(leaderboard, "restore", lambda job, weights: f"seed {job.seed} with weights of {weights}")
    return bases


def results() -> dict[str, Result]:
    """Two seeds of each recipe, of which validation likes the second."""
    played = {}
    for entrant in read_entrants(NAMES, base="demo"):
        result = Result(entrant, chosen={None: None})
        for seed, value in ((0, -0.5), (1, 0.0)):
            cell = leaderboard.Cell(entrant.name, None, seed, None)
            result.outcomes[cell] = Outcome(value, None, np.zeros((1, 2), np.float32), seed)
            result.scores[cell] = None  # type: ignore[assignment]  # that it is there says that it was scored
        played[entrant.name] = result
    return played


def test_every_changed_encoder_is_read_and_its_base_once(tmp_path: Path, opened: list[str]) -> None:
    measured = Forgetting(Rounds(Cells(tmp_path)), lambda: float("inf"))  # type: ignore[arg-type]
    found = {name: measured.of(result) for name, result in results().items()}
    read = {"before": {"mlm_loss": "untouched"}, "after": {"mlm_loss": "seed 1 with weights of 1"}}
    assert found == {"finetune": read, "further-frozen-mlp": read, "frozen-mlp": None, "majority": None}
    assert opened == ["demo"]


def test_what_was_read_is_kept(tmp_path: Path, opened: list[str]) -> None:
    result = results()["finetune"]
    first = Forgetting(Rounds(Cells(tmp_path)), lambda: float("inf")).of(result)  # type: ignore[arg-type]
    again = Forgetting(Rounds(Cells(tmp_path)), lambda: 0.0).of(result)  # type: ignore[arg-type]
    assert first == again
    assert opened == ["demo"]


def test_time_decides_and_an_open_probe_takes_less(tmp_path: Path, opened: list[str]) -> None:
    left = iter([OPENING - 1, OPENING, READING - 1, READING])
    rounds, played = Rounds(Cells(tmp_path)), results()
    measured = Forgetting(rounds, lambda: next(left))  # type: ignore[arg-type]
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
    measured = Forgetting(Rounds(Cells(tmp_path)), lambda: float("inf"))  # type: ignore[arg-type]
    assert measured.of(results()["finetune"]) is None
    assert "what finetune forgot could not be measured: its tokenizer has no mask token" in caplog.text
