"""A further pretraining: what is refused before it, what it learns, when it stops, what it saves."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.corpora import make_documents
from helpers.pretraining_runs import TEXTS, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core.errors import BaseModelError, DataError, DivergenceFault, RecipeError
from fullbake.models.batching import Step
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model
from fullbake.models.pretrained import load_config
from fullbake.models.tokenizer import load_tokenizer
from fullbake.pretraining.documents import Decontamination
from fullbake.pretraining.mlm import evaluate_masked_lm
from fullbake.pretraining.run import (
    MAX_EVAL_TOKENS,
    MIN_EVAL_TOKENS,
    MOST_EVALUATIONS,
    WANTED_EVAL_TOKENS,
    plan_evaluations,
    run_pretraining,
    step_losses,
    with_steps,
    write_base,
)

Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here, so that the head which measures forgetting is trained once."""
    folder: Path = tmp_path_factory.mktemp("cache")
    return folder


def test_phases_divide_the_steps(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache, steps=10, max_length=None, phases={16: 0.7, 48: 0.3})
    assert [phase.steps for phase in made.loader.phases] == [7, 3]
    lengths = [made.loader.batch(step, made.masking).encoded.lengths.max() for step in made.loader.plan(0, 10)]
    assert max(lengths[:7]) <= 16 < max(lengths[7:]) <= 48


def test_epoch_reads_the_corpus_once(bases: Bases, cache: Path) -> None:
    one, two = (make_run(bases("bert"), cache, steps=None, epochs=count) for count in (1, 2))
    assert two.loader.steps == 2 * one.loader.steps == 2 * one.loader.steps_per_epoch(0)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"max_length": 4096}, "a phase has longer rows than the base can read"),
        ({"steps": 1, "max_length": None, "phases": {16: 0.9, 48: 0.1}}, "gets no training step"),
        ({"steps": None, "epochs": 1, "warmup_steps": 10_000}, "leaves no steps for the rest of training"),
    ],
)
def test_impossible_settings_are_refused_before_training(
    bases: Bases, cache: Path, fields: dict[str, Any], error: str
) -> None:
    with pytest.raises(RecipeError, match=error):
        make_run(bases("bert"), cache, **fields)


def test_next_sentence_prediction_needs_two_documents(bases: Bases, cache: Path) -> None:
    with pytest.raises(DataError, match="needs a second document"):
        make_run(bases("bert"), cache, TEXTS[:1], objective="mlm+nsp")


def test_documents_of_one_sentence_give_a_warning(bases: Bases, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = make_documents(60, sentences=1)
    made = make_run(bases("bert"), cache, texts, objective="mlm+nsp")
    assert made.corpus_facts["single_sentence_documents"] == 60
    assert "of the documents have only one sentence, so there are few pairs" in caplog.text


def test_excluded_texts_are_counted_and_removed(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache, decontamination=Decontamination(TEXTS[:5]))
    again = make_run(bases("bert"), cache, decontamination=Decontamination(TEXTS[:5]))
    assert made.corpus_facts["held_back_documents"] == again.corpus_facts["held_back_documents"] == 5
    assert made.corpus_facts["documents"] == 35
    counted = make_run(bases("bert"), cache, decontamination=Decontamination(TEXTS[:5], count_only=True))
    assert counted.corpus_facts["documents"] == 40


@pytest.mark.parametrize(
    ("stage_fields", "steps"), [({"steps": 7, "evaluations": 3}, [0, 2, 5, 7]), ({"steps": 2}, [0, 1, 2])]
)
def test_evaluations_are_evenly_spaced(bases: Bases, cache: Path, stage_fields: Any, steps: list[int]) -> None:
    assert make_run(bases("bert"), cache, **stage_fields).evaluation_steps() == steps


@settings(max_examples=50)
@given(
    steps=st.integers(1, 5_000),
    tokens=st.integers(10, 40_000),
    wanted=st.none() | st.integers(1, 40),
    init=st.sampled_from(["base", "random"]),
)
def test_evaluations_take_a_tenth_of_the_steps_time(steps: int, tokens: int, wanted: int | None, init: Any) -> None:
    loader: Any = SimpleNamespace(steps=steps, phases=[SimpleNamespace(steps=steps)], tokens_per_step=lambda _: tokens)
    stage = PretrainingConfig(steps=steps, evaluations=wanted, init=init)
    count, size = plan_evaluations(stage, loader)
    sets = 1 if init == "random" else 2
    cost = (count + 1) * size * sets  # forward passes
    assert 1 <= count <= steps
    assert MIN_EVAL_TOKENS <= size <= MAX_EVAL_TOKENS
    assert wanted is None or count == min(wanted, steps)
    assert cost <= 0.1 * 2 * steps * tokens or size == MIN_EVAL_TOKENS
    if wanted is None and count > 1:
        assert size >= WANTED_EVAL_TOKENS
        assert count <= MOST_EVALUATIONS


def test_new_head_starts_from_the_one_that_measures_forgetting(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache)
    assert made.probe is not None
    encoder = made.network.model.base_model
    assert made.probe.measure(encoder) == pytest.approx(
        evaluate_masked_lm(made.network, made.probe.eval_set, 512), rel=1e-4
    )
    plain = load_language_model(bases("bert"), pairs=False, seed=0).network
    for name, tensor in plain.model.base_model.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor)


def test_run_with_other_steps_keeps_its_phases_and_fits_its_evaluations(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache, steps=40, max_length=None, phases={16: 0.75, 48: 0.25}, evaluations=None)
    shorter = with_steps(made, 8)
    assert [phase.steps for phase in shorter.loader.phases] == [6, 2]
    assert shorter.stage.steps == shorter.loader.steps == shorter.evaluation_steps()[-1] == 8
    assert shorter.network is made.network
    assert shorter.held_out_set.masked_tokens <= made.held_out_set.masked_tokens
    with pytest.raises(RecipeError, match="gets no training step"):
        with_steps(made, 1)


def base_with_head(bases: Bases, folder: Path, family: str = "bert") -> Path:
    """Return a base that has a masked-LM head."""
    auto: Any = transformers.AutoModelForMaskedLM
    place = shutil.copytree(bases(family), folder / family)
    torch.manual_seed(0)
    auto.from_pretrained(place).save_pretrained(place)
    return place


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_losses_fall(bases: Bases, cache: Path, objective: str) -> None:
    made = make_run(bases("bert"), cache, objective=objective, steps=30)
    result = run_pretraining(made)
    assert result.end["mlm_loss"] < result.start["mlm_loss"] - 0.3
    assert [entry["step"] for entry in result.history] == [10, 20, 30]
    assert ("pair_accuracy" in result.end) == (objective != "mlm")
    assert not made.network.training


def test_micro_batches_and_processes_change_nothing_but_rounding(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache, objective="mlm+nsp")
    step = made.loader.plan(0, 1)[0]
    made.network.eval()
    whole = sum(part.item() for part in step_losses(made, step, step))
    apart = Step(tuple(np.array([row]) for row in step.rows))
    assert sum(part.item() for part in step_losses(made, apart, apart)) == pytest.approx(whole, rel=1e-5)
    shares = [part.item() for rank in range(2) for part in step_losses(made, step, step.share(rank, 2))]
    assert sum(shares) == pytest.approx(whole, rel=1e-5)


def test_base_without_a_head_is_measured_with_a_trained_one(
    bases: Bases, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = make_run(bases("bert"), cache, steps=1, evaluations=1)
    run_pretraining(made)
    assert made.probe is not None
    vocabulary = made.network.config.vocab_size
    assert f"ln(vocabulary) = {math.log(vocabulary):.2f}" in caplog.text


def test_base_with_a_head_is_measured_with_it(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    made = make_run(base_with_head(bases, tmp_path), tmp_path, steps=1, evaluations=1)
    run_pretraining(made)
    assert made.probe is None
    assert "a new one trains" not in caplog.text


def test_loss_above_its_start_stops_the_run_and_keeps_the_best_base(
    bases: Bases, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_run(bases("bert"), cache, steps=40, evaluations=20)
    run_pretraining(made)  # a good base
    again = replace(made, stage=made.stage.model_copy(update={"learning_rate": 0.9, "schedule": "constant"}))
    kept = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    result = run_pretraining(again)
    assert "diverged" in result.history[-1]
    assert len(result.history) < 20
    assert "The best base so far is kept" in caplog.text
    assert all(tensor.isfinite().all() for tensor in made.network.state_dict().values())
    assert kept.keys() == made.network.state_dict().keys()


def test_nan_loss_before_any_evaluation_is_a_fault(bases: Bases, cache: Path) -> None:
    made = make_run(bases("bert"), cache)
    with torch.no_grad():
        next(made.network.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceFault):
        run_pretraining(made)


def test_weights_that_are_not_finite_are_not_written(bases: Bases, tmp_path: Path, cache: Path) -> None:
    made = make_run(bases("bert"), cache, steps=1, evaluations=1)
    result = run_pretraining(made)
    with torch.no_grad():
        next(made.network.parameters()).fill_(float("inf"))
    with pytest.raises(DivergenceFault):
        write_base(tmp_path, made, result, {})


def test_manifest_of_a_new_base_says_how_it_was_made(bases: Bases, tmp_path: Path, cache: Path) -> None:
    made = make_run(bases("bert"), cache, objective="mlm+nsp")
    result = run_pretraining(made)
    out = tmp_path / "new"
    out.mkdir()
    write_base(out, made, result, {"run": "x"})
    about = json.loads((out / "fullbake.json").read_text())
    assert about["further_pretraining"]["objective"] == "mlm+nsp"
    assert about["corpus"]["fingerprint"] == made.corpus_facts["fingerprint"]
    assert about["forgotten"] == result.end["general_mlm_loss"] - result.start["general_mlm_loss"]
    assert len(about["history"]) == 3
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    model: Any = transformers.BertForPreTraining
    _, info = model.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.fixture(scope="module")
def new_base(bases: Bases, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A further pretrained base."""
    folder: Path = tmp_path_factory.mktemp("new")
    made = make_run(bases("bert"), cache, steps=1, evaluations=1)
    write_base(folder, made, run_pretraining(made), {})
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_file_of_a_new_base_is_refused_wherever_it_is_read(new_base: Path, tmp_path: Path, name: str) -> None:
    damaged = shutil.copytree(new_base, tmp_path / "base")
    load_encoder(damaged)  # the hashes were right once
    content = (damaged / name).read_bytes()
    (damaged / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for read in (load_config, load_tokenizer, load_encoder):
        with pytest.raises(
            BaseModelError, match=f"{name} is damaged .its sha256 differs.*run `fullbake pretrain` again"
        ):
            read(damaged)
    (damaged / name).unlink()
    with pytest.raises(BaseModelError, match=f"{name} is missing"):
        load_config(damaged)


def test_new_base_may_get_further_files_and_lose_its_plot(new_base: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(new_base, tmp_path / "base")
    (changed / "README.md").write_text("My base.")
    (changed / "curves.png").unlink()
    load_encoder(changed)
    load_tokenizer(changed)


def test_random_init_needs_no_weights(bases: Bases, tmp_path: Path) -> None:
    place = shutil.copytree(bases("bert"), tmp_path / "bare")
    (place / "model.safetensors").unlink()
    result = run_pretraining(make_run(place, tmp_path, init="random", steps=20))
    assert result.end["mlm_loss"] < result.start["mlm_loss"]
