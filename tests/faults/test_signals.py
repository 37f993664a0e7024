"""SIGTERM and Ctrl-C within an evaluation are obeyed at its next batch, and the resumed run gives the same bits."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pretraining_runs import make_stage
from helpers.rows import make_rows, recipe, write_csv

from fullbake import adapt
from fullbake.core.errors import Interrupted
from fullbake.core.hashing import file_sha256
from fullbake.models import inference
from fullbake.pretraining import mlm
from fullbake.pretraining.stage import further_pretrain
from fullbake.training.checkpoints import unfinished_folder

Bases = Callable[..., Path]


class SignalAt:
    """A function that sends this process a signal at one of its calls without gradients, and counts those calls."""

    def __init__(self, function: Callable[..., Any], number: int, at: int) -> None:
        self.function, self.number, self.at, self.calls = function, number, at, 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        if torch.is_inference_mode_enabled():
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), self.number)
        return self.function(*args, **named)


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 2), (signal.SIGINT, 7)])
def test_a_signal_within_validation(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    """A validation takes several batches, so that call 2 is in the first one and call 7 in a later one."""
    source = write_csv(tmp_path / "rows.csv", make_rows())
    chosen = recipe(bases("bert"), "finetune", epochs=3, token_budget=128)

    def run(name: str) -> str:
        adapt(chosen, source, out=tmp_path / name, cache_dir=tmp_path / "cache", checkpoint_every="1000")
        return file_sha256(tmp_path / name / "model.safetensors")

    whole = run("whole")
    with monkeypatch.context() as patch:
        sender = SignalAt(inference.batch_inputs, number, at)
        patch.setattr(inference, "batch_inputs", sender)
        with pytest.raises(Interrupted) as caught:
            run("stopped")
    assert caught.value.signal == number
    assert sender.calls == at, "no further batch was computed"
    assert not (tmp_path / "stopped").exists()
    assert str(caught.value.saved).startswith(str(unfinished_folder(tmp_path / "stopped")))
    assert run("stopped") == whole


@pytest.mark.parametrize("at", [2, 9])
def test_a_signal_within_an_evaluation_of_further_pretraining(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(text for text, _ in make_rows(40)))
    stage = make_stage(token_budget=128)

    def run(name: str) -> str:
        further_pretrain(bases("bert"), corpus, tmp_path / name, stage=stage, cache_dir=tmp_path / "cache")
        return file_sha256(tmp_path / name / "model.safetensors")

    whole = run("whole")
    sender = SignalAt(mlm.masked_lm_loss, signal.SIGTERM, -1)
    with monkeypatch.context() as patch:
        patch.setattr(mlm, "masked_lm_loss", sender)
        patch.setattr("fullbake.pretraining.run.fit", _armed_at(sender, at))
        with pytest.raises(Interrupted):
            run("stopped")
    assert sender.calls == sender.at, "no further batch was computed"
    assert run("stopped") == whole


def _armed_at(sender: SignalAt, at: int) -> Callable[..., Any]:
    """Return `fit`, at whose start the sender is armed: the evaluation before training has no checkpoint to save."""
    from fullbake.training.loop import fit

    def fit_armed(*args: Any, **named: Any) -> Any:
        sender.at = sender.calls + at
        return fit(*args, **named)

    return fit_armed
