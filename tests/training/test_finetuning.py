"""Fine-tuning trains every weight, and a base split above its frozen layers learns what the whole one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bases import FAMILIES, model_type
from helpers.rows import dataset, make_job, make_rows, recipe, train, weights
from helpers.weights import assert_same
from torch import nn

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BaseModelError
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.encoder import freeze_lowest, load_encoder, probe_inputs
from fullbake.models.families import family_of
from fullbake.models.heads import output_layer
from fullbake.models.inference import logits_over
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.finetuning import (
    FinetuneSettings,
    LabeledTexts,
    find_split_point,
    finetune,
    finetuned_logits,
    frozen_layers,
    starting_from_states,
    states_below_split,
)
from fullbake.training.losses import make_training_loss
from fullbake.training.selection import SelectedRun, train_best
from fullbake.training.strategies import metrics_of, strategy_for

Bases = Callable[..., Path]

SPLITTABLE = ("bert", "distilbert", "roberta", "electra", "mpnet", "xlm-roberta", "deberta-v3", "modernbert")
"""Families that must be splittable. Others may be: it is found by trying."""

LAYERED = [family for family in FAMILIES if not family_of(model_type(family)).shares_layers]


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("family", LAYERED)
def test_a_split_base_computes_what_the_whole_one_does(bases: Bases, family: str, layers: int) -> None:
    base = bases(family, layers=3)
    model = network.build_network(base, HeadConfig(kind="linear"), ("a", "b"), seed=0)
    split = find_split_point(model, layers)
    if split is None:
        assert family not in SPLITTABLE
        return
    inputs = probe_inputs(model.base_model)
    states = states_below_split(model, layers, inputs)
    assert states.shape == (2, 4, 32)
    freeze_lowest(model, layers)  # and what all layers share, such as tables of relative positions
    upper = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = []
    for given in (None, states.detach()):
        model.zero_grad()
        logits = _logits(model, inputs, split, given)
        logits.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in upper.items() if p.grad is not None}
        found.append((logits.detach(), gradients))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    assert any(f".{layers}." in name for name in found[1][1]) or layers == 3
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-3, atol=1e-4, msg=name)


def _logits(model: Any, inputs: dict[str, Any], split: Any, states: torch.Tensor | None) -> torch.Tensor:
    if states is None:
        return torch.as_tensor(model(**inputs).logits)
    with starting_from_states(model, split, states):
        return torch.as_tensor(model(**inputs).logits)


def test_layers_below_the_split_do_not_run(bases: Bases) -> None:
    model = load_encoder(bases("bert", layers=3))
    split = find_split_point(model, 2)
    assert split is not None
    for part in (model.embeddings, *model.encoder.layer[:2]):
        part.register_forward_pre_hook(lambda *_: None)
        for inner in part.children():
            inner.register_forward_pre_hook(lambda *_: pytest.fail("a frozen layer ran"))
    with starting_from_states(model, split, torch.zeros(2, 4, 32)):
        model(**probe_inputs(model))
    assert "forward" not in vars(model.embeddings)


def test_a_family_that_cannot_be_split_is_found_out(bases: Bases) -> None:
    """DeBERTa v2 has a convolution beside its first layer, which reads the embeddings."""
    assert find_split_point(load_encoder(bases("deberta-v2", layers=3)), 1) is None


def test_albert_and_too_many_layers_are_refused(bases: Bases) -> None:
    with pytest.raises(BaseModelError, match="share their weights"):
        find_split_point(load_encoder(bases("albert")), 1)
    with pytest.raises(BaseModelError, match="fewer layers"):
        find_split_point(load_encoder(bases("bert")), 3)


def test_frozen_layers_run_without_dropout_while_the_rest_trains(bases: Bases) -> None:
    model = load_encoder(bases("bert", layers=3))
    inputs = probe_inputs(model)
    with frozen_layers(model, 2):
        model.train()
        states = [states_below_split(model, 2, inputs) for _ in range(2)]
        model.train()
        outputs = [model(**inputs).last_hidden_state for _ in range(2)]
    assert torch.equal(*states)
    assert not torch.allclose(*outputs)
    assert model.encoder.layer[2].training
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "standard"},
        {"head": "mlp", "pooling": "mean"},
        {"head": "linear", "max_length": 16, "truncation": "windows"},
        {"head": "standard", "freeze_layers": 0, "padding": "max_length"},
    ],
)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_training_on_stored_states_is_training_the_whole_base(
    bases: Bases, tmp_path: Path, family: str, fields: dict[str, Any]
) -> None:
    """Dropout is on: frozen layers draw nothing, so the layers above draw the same. Without a cache the base is not
    split."""
    fields = {"freeze_layers": 1, "folds": 0} | fields
    split, whole = (selected(bases(family), tmp_path, cache_bytes=size, **fields) for size in (10**9, 0))
    ours, theirs = split.network.state_dict(), whole.network.state_dict()
    for name in theirs if fields["head"] != "mlp" else ():  # Adam moves weights whose true gradient is 0
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-4, msg=name)
    for entry, other in zip(split.history, whole.history, strict=True):
        assert entry["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert entry["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-2)


def selected(base: Path, folder: Path, *, cache_bytes: int = 10**9, **fields: Any) -> SelectedRun:
    """Fine-tune at one rate with a feature cache of limited size."""
    job = make_job(base, folder, "finetune", cache_bytes, learning_rate=1e-3, **fields)
    return train_best(strategy_for(job), [1e-3], metrics_of(job))


def test_states_are_computed_once_for_all_runs(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs, found = [], []
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", "fullbake"):
            runs.append(selected(bases("bert"), tmp_path, freeze_layers=1, folds=0))
        found.append("states below layer 2: 60 rows found in the cache" in caplog.text)
    assert found == [False, True]
    assert_same(runs[0].network.state_dict(), runs[1].network.state_dict())


def test_half_precision_states_take_half_the_space_and_change_little(bases: Bases, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"freeze_layers": 1, "folds": 0, "epochs": 1}
    full, half = (
        train(bases("bert"), tmp_path, "finetune", cache_precision=kind, **fields) for kind in ("fp32", "fp16")
    )
    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("rows.safetensors"))
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.01)
    texts = [text for text, _ in make_rows()]
    np.testing.assert_allclose(full.predict_proba(texts), half.predict_proba(texts), atol=0.02)


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONSTANT_RATE = {"learning_rate": 1e-3, "warmup": 0, "schedule": "constant"}


class Run:
    """One call of `finetune` over the tests' rows.

    watch: called with the network before training.
    """

    def __init__(
        self, base: Path, folder: Path, watch: Callable[[nn.Module], object] | None = None, **fields: Any
    ) -> None:
        chosen = recipe(base, "finetune", **fields)
        tokenizer = load_tokenizer(base)
        data = dataset(folder)
        encoded = encode(data.texts, tokenizer, chosen.tokens)
        assert data.labels is not None
        part = LabeledTexts(encoded, data.labels)
        self.network = network.build_network(base, chosen.head, data.label_names, seed=0)
        self.before = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        if watch is not None:
            watch(self.network)
        torch.manual_seed(0)
        objective = make_training_loss(chosen.training, part.labels, data.label_names)
        tuning = FinetuneSettings(chosen.head, chosen.training, chosen.tokens, tokenizer.pad_token_id, objective)

        def validate(module: nn.Module, _: int) -> dict[str, Any]:
            return validation_scores(finetuned_logits(module, part, tuning), part.labels, chosen.training.metric)

        self.history = finetune(self.network, part, validate, tuning)
        self.logits = finetuned_logits(self.network, part, tuning)
        self.fresh = logits_over(self.network, encoded, tokens=chosen.tokens, pad_id=tokenizer.pad_token_id)

    @property
    def after(self) -> dict[str, torch.Tensor]:
        return self.network.state_dict()

    @property
    def moved(self) -> set[str]:
        return {name for name, tensor in self.after.items() if not torch.equal(tensor, self.before[name])}


@pytest.mark.parametrize("head", ["standard", "mlp"])
def test_same_seed_gives_the_same_bits(bases: Bases, tmp_path: Path, head: str) -> None:
    """With dropout on."""
    first, again = (train(bases("bert"), tmp_path, "finetune", head=head) for _ in range(2))
    assert_same(weights(first), weights(again))


def test_another_seed_gives_other_weights(bases: Bases, tmp_path: Path) -> None:
    first, other = (train(bases("bert"), tmp_path, "finetune", seed=seed) for seed in (0, 1))
    assert not torch.equal(output_layer(first.network).weight, output_layer(other.network).weight)


def test_every_weight_trains_and_the_loss_falls(bases: Bases, tmp_path: Path) -> None:
    run = Run(bases("bert", initializer_range=0.2), tmp_path, epochs=8, learning_rate=3e-3)
    assert set(run.after) == run.moved
    assert run.history[-1]["train_loss"] < 0.85 * run.history[0]["train_loss"]
    assert max(entry["f1_macro"] for entry in run.history) > 0.5


def test_the_network_is_left_with_the_weights_of_the_best_epoch_in_eval_mode(bases: Bases, tmp_path: Path) -> None:
    run = Run(bases("bert"), tmp_path, epochs=3)
    assert not any(module.training for module in run.network.modules())
    assert np.array_equal(run.logits, run.fresh)


def test_the_base_is_in_train_mode_only_while_it_trains(bases: Bases, tmp_path: Path) -> None:
    """So dropout is active in the encoder while it trains, and not while it validates."""
    modes: list[tuple[bool, bool]] = []

    def watch(model: nn.Module) -> None:
        model.base_model.register_forward_pre_hook(
            lambda module, _: modes.append((module.training, torch.is_grad_enabled()))
        )

    Run(bases("bert"), tmp_path, watch, epochs=1)
    assert set(modes) == {(True, True), (False, False)}


def test_another_token_budget_changes_only_rounding(bases: Bases, tmp_path: Path) -> None:
    """With dropout off."""
    base = bases("bert", **NO_DROPOUT)
    runs = [Run(base, tmp_path, token_budget=budget, epochs=1, **CONSTANT_RATE) for budget in (50, 100_000)]
    assert runs[0].moved
    assert_same(runs[0].after, runs[1].after, atol=2e-4)
    np.testing.assert_allclose(runs[0].logits, runs[1].logits, atol=1e-4)


def test_another_token_budget_changes_only_rounding_under_the_mlp_head(bases: Bases, tmp_path: Path) -> None:
    """After one step over all rows batch norm holds the statistics of all of them, in whatever micro-batches they ran.

    A few weights in a thousand are left out: where the gradient is 0 except for rounding, Adam's first step is noise.
    """
    base, fields = bases("bert", **NO_DROPOUT), {"head": "mlp", "dropout": 0.0, "batch_size": 60, "epochs": 1}
    runs = [Run(base, tmp_path, token_budget=budget, **fields, **CONSTANT_RATE) for budget in (50, 100_000)]
    statistics = [[run.after[f"head.norm_1.running_{name}"] for name in ("mean", "var")] for run in runs]
    torch.testing.assert_close(statistics[0], statistics[1], rtol=1e-4, atol=1e-6)
    names = {"encoder.encoder.layer.0.output.dense.weight", "head.dense_1.weight", "head.output.weight"}
    assert names <= runs[0].moved
    for name in names:
        differences = (runs[0].after[name] - runs[1].after[name]).abs()
        assert differences.quantile(0.995) < 1e-4, name


def test_gradient_accumulation_equals_a_larger_batch(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert", **NO_DROPOUT)
    small = Run(base, tmp_path, batch_size=4, gradient_accumulation=4, epochs=1, **CONSTANT_RATE)
    large = Run(base, tmp_path, batch_size=16, gradient_accumulation=1, epochs=1, **CONSTANT_RATE)
    assert_same(small.after, large.after)


def test_batch_norm_sees_the_whole_batch(bases: Bases, tmp_path: Path) -> None:
    """60 rows in batches of 8 and micro-batches of one text: the norm layer sees 8 rows at a time, and 4 at the end."""
    seen: list[int] = []

    def watch(model: nn.Module) -> None:
        def record(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if module.training:
                seen.append(len(inputs[0]))

        model.head.norm_1.register_forward_pre_hook(record)

    Run(bases("bert"), tmp_path, watch, head="mlp", token_budget=1, epochs=1)
    assert sorted(seen) == [4] + [8] * 7


def test_a_last_batch_of_one_row_is_merged_with_the_one_before(bases: Bases, tmp_path: Path) -> None:
    run = Run(bases("bert"), tmp_path, head="mlp", batch_size=59, epochs=1)
    assert run.history[0]["epoch"] == 1
    assert int(run.after["head.norm_1.num_batches_tracked"]) == 1


def test_frozen_layers_keep_their_weights(bases: Bases, tmp_path: Path) -> None:
    run = Run(bases("bert", layers=3), tmp_path, freeze_layers=2, epochs=1)
    frozen = {name for name in run.after if ".embeddings." in name or ".layer.0." in name or ".layer.1." in name}
    assert frozen
    assert not frozen & run.moved
    assert {name.split(".layer.")[1][0] for name in run.moved if ".layer." in name} == {"2"}
    assert "classifier.weight" in run.moved


def test_layer_decay_lowers_the_rate_of_lower_layers(bases: Bases, tmp_path: Path) -> None:
    even, decayed = (
        Run(bases("bert", **NO_DROPOUT), tmp_path, layer_decay=decay, epochs=1, weight_decay=0, **CONSTANT_RATE)
        for decay in (1.0, 0.1)
    )

    def moved(run: Run, layer: int) -> float:
        name = f"bert.encoder.layer.{layer}.intermediate.dense.weight"
        return float((run.after[name] - run.before[name]).norm())

    assert moved(decayed, 0) / moved(even, 0) < 0.3 * moved(decayed, 1) / moved(even, 1)


def test_the_mlp_penalty_shrinks_the_output_layer(bases: Bases, tmp_path: Path) -> None:
    free, penalized = (
        Run(bases("bert"), tmp_path, head="mlp", l2=l2, epochs=3, learning_rate=1e-2) for l2 in (0.0, 3.0)
    )
    assert penalized.after["head.output.weight"].norm() < 0.9 * free.after["head.output.weight"].norm()
