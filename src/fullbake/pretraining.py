"""Way 1's stage: a base goes on learning from raw text and comes out as a better base, or is stopped as it forgets.

`pretrain` runs a course through the loop; `write` leaves an ordinary Hugging Face folder. Between two evaluations the
loop sees an epoch like any other, so checkpoints, resuming and the choice of the best weights are its own. What is kept
is the evaluation with the lowest held-out loss: under a decaying rate the last one, unless the run went bad.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.sections import TrainingConfig
from fullbake.core import hashing, runtime, storage
from fullbake.core.console import say, warn
from fullbake.core.errors import DivergenceFault
from fullbake.courses import Course
from fullbake.evaluation import plots
from fullbake.examples import NO_PAIR
from fullbake.guesses import guess
from fullbake.models.batching import Step
from fullbake.models.encoder import parameter_groups
from fullbake.models.fast_layers import compiled, fast_kernels
from fullbake.models.masked_lm import save_language_model
from fullbake.models.pretrained import quiet
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.loop import Work, fit

_METRIC: Final = "neg_held_out_loss"


@dataclass(frozen=True)
class Outcome:
    """start: the figures before the first step. history: an entry an evaluation. end: the entry of what was kept."""

    start: dict[str, float]
    history: list[dict[str, Any]]

    @property
    def end(self) -> dict[str, Any]:
        """The entry whose weights were kept."""
        return next(entry for entry in self.history if entry["best"])


def pretrain(course: Course, checkpoints: Checkpoints | None = None) -> Outcome:
    """Train the course's network in place; it is left, in eval mode, with the best evaluation's weights.

    Raises DivergenceFault where the loss went bad before any evaluation; later, the run stops and says so in the last
    entry (`diverged`), and the last good weights stay.
    """
    stage = course.stage
    course.network.eval()
    with fast_kernels(course.network), compiled(course.network.model):
        start = course.read()
        _tell_start(course, start)
        history = fit(course.network, _work(course, start), _training(stage, course), checkpoints)
    for entry in history:
        if "diverged" in entry:
            warn(f"{entry['diverged']}; stopped there, and the best base until then is kept")
    return Outcome(start, history)


def _tell_start(course: Course, start: Mapping[str, float]) -> None:
    known = math.log(course.network.config.vocab_size)
    if not course.loaded.own_head:
        say(
            "the base came without a masked-LM head: a new one, tied to its word embeddings, starts from nothing "
            f"(first loss {start['mlm_loss']:.2f}; guessing blindly costs ln(vocabulary) = {known:.2f})"
        )
    if course.network.pair is not None and not course.loaded.own_pair:
        say("the head that judges pairs is new too")
    say(f"before: {figures(start)}")


def figures(entry: Mapping[str, float]) -> str:
    """An evaluation's losses in words."""
    pairs = f", pairs {entry['pair_accuracy']:.1%} right" if "pair_accuracy" in entry else ""
    return f"held-out loss {entry['mlm_loss']:.4f}{pairs}, general loss {entry['general_mlm_loss']:.4f}"


def _training(stage: PretrainingConfig, course: Course) -> TrainingConfig:
    """The loop's own settings; an epoch of it is what lies between two evaluations."""
    warmup = stage.warmup if stage.warmup_steps is None else stage.warmup_steps / course.stream.steps
    config = TrainingConfig(
        optimizer=stage.optimizer,
        learning_rate=(stage.learning_rate,),
        epochs=course.evaluations,
        schedule=stage.schedule,
        warmup=warmup,
        max_grad_norm=stage.max_grad_norm,
        weight_decay=stage.weight_decay,
        precision=stage.precision,
        seed=stage.seed,
        patience=None,
    )
    return config.model_copy(update={"metric": _METRIC})


def _work(course: Course, start: Mapping[str, float]) -> Work:
    stage, stream, edges = course.stage, course.stream, course.edges()
    groups = parameter_groups(course.network, learning_rate=stage.learning_rate, weight_decay=stage.weight_decay)
    moments = {"betas": (stage.beta1, stage.beta2), "eps": stage.epsilon}

    def plan(epoch: int) -> list[Step]:
        return stream.plan(edges[epoch], edges[epoch + 1])

    def validate(_: nn.Module, epoch: int) -> dict[str, Any]:
        read = course.read()
        loss = read["mlm_loss"] + read.get("pair_loss", 0.0)
        if not math.isfinite(loss):
            raise DivergenceFault("the held-out loss is no finite number", where=f"step {edges[epoch + 1]:,}")
        return read | {"step": edges[epoch + 1], "validation_loss": loss, _METRIC: -loss}

    return Work(
        plan=plan,
        loss_fn=lambda _, step, share: _losses(course, step, share),
        validate=validate,
        groups=[group | moments for group in groups],
        rows=sum(len(step.rows) for step in plan(0)),
        steps=stream.steps,
        epoch_name="evaluation",
        told=lambda entry: _told(entry, stream.steps),
        watch=lambda history: _watch(history, start, _warmed(course)),
        salvage=True,
    )


def _losses(course: Course, step: Step, share: Step) -> Iterator[Tensor]:
    """Parts of the step's mean loss over masked tokens, plus its mean loss over pairs."""
    batch = course.stream.batch(step, course.masking)
    words = max(1, int(batch.chosen.sum()))
    pairs = max(1, int((batch.pair_labels != NO_PAIR).sum()))
    for cut in share.cuts:
        found = guess(course.network, batch, np.searchsorted(batch.rows, cut), course.tokenizer.pad_token_id)
        yield found.word_loss / words + found.pair_loss / pairs


def _told(entry: Mapping[str, Any], steps: int) -> str:
    return (
        f"step {entry['step']:,}/{steps:,}  train loss {entry['train_loss']:.4f}  {figures(entry)}"
        f"  rate {entry['learning_rate']:.2e}  {entry['rows_per_second']:,.1f} rows/s"
    )


def _warmed(course: Course) -> int:
    stage = course.stage
    return math.ceil(stage.warmup * course.stream.steps) if stage.warmup_steps is None else stage.warmup_steps


def _watch(history: Sequence[Mapping[str, Any]], start: Mapping[str, float], warmed: int) -> str | None:
    """Why to stop: after warm-up, the mean of the last two readings of the held-out loss is above its start."""
    last = [entry["mlm_loss"] for entry in history if entry["step"] > warmed][-2:]
    if len(last) == 2 and sum(last) / 2 > start["mlm_loss"]:
        return (
            f"diverged by step {history[-1]['step']:,}: the held-out loss rose from {start['mlm_loss']:.4f} to "
            f"{sum(last) / 2:.4f} (mean of the last two); lower the learning rate"
        )
    return None


# What is left


def write(folder: Path, course: Course, outcome: Outcome, about: Mapping[str, Any]) -> None:
    """The new base: config, weights, tokenizer, fullbake.json and a picture of the curves, into an empty folder.

    about: JSON values that fullbake.json holds besides. Raises DivergenceFault where the weights are not finite.
    """
    for name, tensor in course.network.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise DivergenceFault("a weight is no finite number", where=name, remedy="Lower --learning-rate.")
    save_language_model(course.loaded, folder, None if course.stage.init == "random" else course.base)
    with quiet():
        course.tokenizer.save_pretrained(folder)
    storage.write_bytes(folder / "curves.png", plots.pretraining_figure(outcome.start, outcome.history))
    described = {"format": 1, "kind": "base", "base": course.base, **about, **describe(course, outcome)}
    files = hashing.hash_files(folder)
    storage.write_json(folder / "fullbake.json", described | {"files": files})


def describe(course: Course, outcome: Outcome) -> dict[str, Any]:
    """What a new base tells of itself: JSON values."""
    return {
        "further_pretraining": course.stage.model_dump(mode="json"),
        "transductive": course.stage.transductive,
        "corpus": course.facts,
        "own_head": course.loaded.own_head,
        "steps": course.stream.steps,
        "start": outcome.start,
        "history": outcome.history,
        "forgotten": outcome.end["general_mlm_loss"] - outcome.start["general_mlm_loss"],
        "versions": runtime.versions(),
    }
