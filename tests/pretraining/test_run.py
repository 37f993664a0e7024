"""fullbake.pretraining.run: Before the first step: what is refused, how steps are counted, what is told of the corpus; Way 1's stage: what is refused before it, what it learns, when it stops, what it leaves behind."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.corpora import make_documents
from helpers.pretraining_runs import TEXTS, make_run

from fullbake.core.errors import DataError, DivergenceFault, RecipeError
from fullbake.models.batching import Step
from fullbake.pretraining.documents import Decontamination
from fullbake.pretraining.run import run_pretraining, step_losses, write_base

Bases = Callable[..., Path]


def test_phases_divide_the_steps(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path, steps=10, max_length=None, phases={16: 0.7, 48: 0.3})
    assert [phase.steps for phase in made.loader.phases] == [7, 3]
    lengths = [made.loader.batch(step, made.masking).encoded.lengths.max() for step in made.loader.plan(0, 10)]
    assert max(lengths[:7]) <= 16 < max(lengths[7:]) <= 48


def test_epochs_are_passes_over_the_corpus(bases: Bases, tmp_path: Path) -> None:
    one, two = (make_run(bases("bert"), tmp_path, steps=None, epochs=count) for count in (1, 2))
    assert two.loader.steps == 2 * one.loader.steps == 2 * one.loader.steps_per_epoch(0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_length": 4096}, "a phase has longer rows than the base can read"),
        ({"steps": 1, "max_length": None, "phases": {16: 0.9, 48: 0.1}}, "gets no training step"),
        ({"steps": None, "epochs": 1, "warmup_steps": 10_000}, "leaves no steps for the rest of training"),
    ],
)
def test_what_cannot_work_is_refused_first(bases: Bases, tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        make_run(bases("bert"), tmp_path, **fields)


def test_one_document_has_no_other_to_draw_from(bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a second document"):
        make_run(bases("bert"), tmp_path, TEXTS[:1], objective="mlm+nsp")


def test_texts_of_one_sentence_are_warned_of(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = make_documents(60, sentences=1)
    made = make_run(bases("bert"), tmp_path, texts, objective="mlm+nsp")
    assert made.corpus_facts["single_sentence_documents"] == 60
    assert "of the documents have only one sentence, so there are few pairs" in caplog.text


def test_held_back_texts_are_counted_and_left_out(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path, decontamination=Decontamination(TEXTS[:5]))
    again = make_run(bases("bert"), tmp_path, decontamination=Decontamination(TEXTS[:5]))
    assert made.corpus_facts["held_back_documents"] == again.corpus_facts["held_back_documents"] == 5
    assert made.corpus_facts["documents"] == 35
    assert (
        make_run(bases("bert"), tmp_path, decontamination=Decontamination(TEXTS[:5], count_only=True)).corpus_facts[
            "documents"
        ]
        == 40
    )


@pytest.mark.parametrize(
    ("stage_fields", "edges"), [({"steps": 7, "evaluations": 3}, [0, 2, 5, 7]), ({"steps": 2}, [0, 1, 2])]
)
def test_evaluations_lie_evenly(bases: Bases, tmp_path: Path, stage_fields: Any, edges: list[int]) -> None:
    assert make_run(bases("bert"), tmp_path, **stage_fields).evaluation_steps() == edges


def whole_base(bases: Bases, folder: Path, family: str = "bert") -> Path:
    """A base that came with its masked-LM head."""
    auto: Any = transformers.AutoModelForMaskedLM
    place = shutil.copytree(bases(family), folder / family)
    torch.manual_seed(0)
    auto.from_pretrained(place).save_pretrained(place)
    return place


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_it_learns(bases: Bases, tmp_path: Path, objective: str) -> None:
    made = make_run(bases("bert"), tmp_path, objective=objective, steps=30)
    outcome = run_pretraining(made)
    assert outcome.end["mlm_loss"] < outcome.start["mlm_loss"] - 0.3
    assert [entry["step"] for entry in outcome.history] == [10, 20, 30]
    assert ("pair_accuracy" in outcome.end) == (objective != "mlm")
    assert not made.network.training


def test_cuts_change_nothing_but_rounding(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path, objective="mlm+nsp")
    step = made.loader.plan(0, 1)[0]
    made.network.eval()
    whole = sum(part.item() for part in step_losses(made, step, step))
    apart = Step(tuple(np.array([row]) for row in step.rows))
    assert sum(part.item() for part in step_losses(made, apart, apart)) == pytest.approx(whole, rel=1e-5)
    shares = [part.item() for rank in range(2) for part in step_losses(made, step, step.share(rank, 2))]
    assert sum(shares) == pytest.approx(whole, rel=1e-5)


def test_a_base_without_a_head_is_told_so_and_probed_by_one_that_is_trained(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = make_run(bases("bert"), tmp_path, steps=1, evaluations=1)
    run_pretraining(made)
    assert made.probe is not None
    vocabulary = made.network.config.vocab_size
    assert f"ln(vocabulary) = {math.log(vocabulary):.2f}" in caplog.text


def test_a_base_with_its_own_head_is_probed_by_it(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = make_run(whole_base(bases, tmp_path), tmp_path, steps=1, evaluations=1)
    run_pretraining(made)
    assert made.probe is None
    assert "a new one is trained" not in caplog.text


def test_a_loss_that_rises_past_its_start_stops_the_run(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_run(bases("bert"), tmp_path, steps=40, evaluations=20)
    run_pretraining(made)  # a good base
    again = replace(made, stage=made.stage.model_copy(update={"learning_rate": 0.9, "schedule": "constant"}))
    kept = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    outcome = run_pretraining(again)
    assert "diverged" in outcome.history[-1]
    assert len(outcome.history) < 20
    assert "The best base so far is kept" in caplog.text
    assert all(tensor.isfinite().all() for tensor in made.network.state_dict().values())
    assert kept.keys() == made.network.state_dict().keys()


def test_a_loss_that_is_no_number_at_once_is_a_fault(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path)
    with torch.no_grad():
        next(made.network.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceFault):
        run_pretraining(made)


def test_weights_that_are_no_numbers_are_not_written(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path / "cache", steps=1, evaluations=1)
    outcome = run_pretraining(made)
    with torch.no_grad():
        next(made.network.parameters()).fill_(float("inf"))
    with pytest.raises(DivergenceFault):
        write_base(tmp_path, made, outcome, {})


def test_a_new_base_tells_what_it_went_through(bases: Bases, tmp_path: Path) -> None:
    made = make_run(bases("bert"), tmp_path / "cache", objective="mlm+nsp")
    outcome = run_pretraining(made)
    out = tmp_path / "new"
    out.mkdir()
    write_base(out, made, outcome, {"run": "x"})
    about = json.loads((out / "fullbake.json").read_text())
    assert about["further_pretraining"]["objective"] == "mlm+nsp"
    assert about["corpus"]["fingerprint"] == made.corpus_facts["fingerprint"]
    assert about["forgotten"] == outcome.end["general_mlm_loss"] - outcome.start["general_mlm_loss"]
    assert len(about["history"]) == 3
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    model: Any = transformers.BertForPreTraining
    _, info = model.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_from_nothing_needs_no_weights(bases: Bases, tmp_path: Path) -> None:
    place = shutil.copytree(bases("bert"), tmp_path / "bare")
    (place / "model.safetensors").unlink()
    outcome = run_pretraining(make_run(place, tmp_path, init="random", steps=20))
    assert outcome.end["mlm_loss"] < outcome.start["mlm_loss"]
