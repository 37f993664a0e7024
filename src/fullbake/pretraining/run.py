"""Prepare, train and save a further pretraining, which trains a base on raw text and saves the result as a new base.

`prepare_run` reads, counts and checks everything, so that a run that cannot work is refused before hours are spent. It
is a pure function of base, corpus and settings. `run_pretraining` trains through the common loop; `write_base` saves an
ordinary Hugging Face folder.

For the loop, the steps between two evaluations are an epoch, so checkpoints, resuming and the choice of the best
weights are the loop's own. The weights with the lowest held-out loss are kept: under a decaying rate the last ones,
unless the loss diverged.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from fullbake.config.pretraining import DEFAULT_BATCH, DEFAULT_PASSES, PretrainingConfig
from fullbake.config.sections import TrainingConfig
from fullbake.core import hashing, runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError, DivergenceFault, RecipeError
from fullbake.evaluation import plots
from fullbake.models.batching import Step
from fullbake.models.encoder import parameter_groups
from fullbake.models.fast_layers import compiled_encoder, fast_layers
from fullbake.models.masked_lm import (
    LanguageModel,
    LoadedLanguageModel,
    load_language_model,
    new_language_model,
    save_language_model,
)
from fullbake.models.pretrained import load_config, max_positions, quiet_transformers
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.corpus import Corpus, build_corpus, hold_out
from fullbake.pretraining.data_loader import CorpusLoader, ReadingOrder, count_pairs
from fullbake.pretraining.documents import Decontamination, DocumentSource
from fullbake.pretraining.examples import NO_PAIR, Masking, Span
from fullbake.pretraining.familiarity import warn_of_unfamiliar_text
from fullbake.pretraining.forgetting import (
    ForgettingProbe,
    corpus_tokenizer_of,
    draw_general_eval_set,
    general_text,
    make_masking,
    make_phase,
    open_probe,
)
from fullbake.pretraining.mlm import EvalSet, draw_eval_set, evaluate_masked_lm, masked_lm_loss, standard_masking
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.loop import TrainingWork, fit

CORPUS_CACHE_BYTES: Final = 50 * 1024**3
"""Size of the cache of corpora at most, unless one corpus is larger: 50 GiB hold about 15 billion tokens."""

TRIVIAL_SHARE: Final = 0.5
"""Share of single-sentence documents from which on a warning says that there are too few pairs."""

EVALUATION_SHARE: Final = 0.1
"""Evaluations take at most this share of the time of the steps."""

_STEP_PASSES: Final = 2
"""A training step takes at least as long as so many forward passes (measured: 2.4, benchmarks/evaluation_cost.py)."""

MOST_EVALUATIONS: Final = 10

WANTED_EVAL_TOKENS: Final = 6_000
"""Tokens of an evaluation set, about 900 of them masked, from which on another evaluation is worth more than tokens."""

MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 1_200, 50_000
"""Limits of an evaluation set over all its maskings. With fewer tokens a loss says too little; more add no decimal."""


@dataclass(frozen=True, eq=False)
class PretrainingRun:
    """A further pretraining that has been checked and can start."""

    base: str
    """Folder, hub id or `demo`."""

    stage: PretrainingConfig
    """All settings."""

    loaded: LoadedLanguageModel
    """The base with its heads; training changes it."""

    tokenizer: PreTrainedTokenizerFast
    """The base's tokenizer."""

    loader: CorpusLoader
    """The steps of all phases."""

    masking: Masking
    """The masking of training; evaluation has the standard one."""

    held_out_set: EvalSet
    """Text of the corpus that is not trained on."""

    general_set: EvalSet | None
    """General text, evaluated under the network's own head. None with random weights, which have nothing to forget."""

    probe: ForgettingProbe | None
    """Measures general text instead if the base came without a masked-LM head."""

    evaluations: int
    """How many evaluations there are after the one before training."""

    corpus_facts: dict[str, Any]
    """Counts of the corpus and its pairs, JSON values."""

    @property
    def network(self) -> LanguageModel:
        """Return the language model that is trained."""
        return self.loaded.network

    @property
    def has_new_head(self) -> bool:
        """Return True if a masked-LM head is new to a base that was pretrained without one."""
        return self.probe is not None

    def evaluation_steps(self) -> list[int]:
        """Return after how many steps each evaluation takes place, evenly spaced; the first is 0, before training."""
        steps: list[int] = np.linspace(0, self.loader.steps, self.evaluations + 1).round().astype(int).tolist()
        return steps

    @property
    def warmup_steps(self) -> int:
        """Return how many steps the warm-up takes."""
        if self.stage.warmup_steps is not None:
            return self.stage.warmup_steps
        return math.ceil(self.stage.warmup * self.loader.steps)

    def evaluate(self) -> dict[str, float]:
        """Return the scores of the network as it is now.

        Those of held-out text have the names that `evaluate_masked_lm` gives; those of general text begin with
        `general_`, and are left out if there is nothing to forget.
        """
        held_out = evaluate_masked_lm(self.network, self.held_out_set, self.stage.token_budget)
        if self.probe is not None:
            general = self.probe.measure(self.network.model.base_model)
        elif self.general_set is not None:
            general = evaluate_masked_lm(self.network, self.general_set, self.stage.token_budget)
        else:
            return held_out
        return held_out | {f"general_{name}": value for name, value in general.items() if name.startswith("mlm")}


# Preparing


def check_lengths(base: str | Path, stage: PretrainingConfig) -> None:
    """Raise RecipeError if a phase has longer rows than the base can read."""
    limit, longest = max_positions(load_config(base)), max(stage.lengths)
    if longest > limit:
        raise RecipeError(
            "a phase has longer rows than the base can read",
            where=f"further pretraining, base {str(base)!r}",
            expected=f"at most {limit} tokens",
            got=str(longest),
            remedy=f"Pass --max-length {limit} or less, or --phases with such lengths.",
        )


def prepare_run(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    *,
    decontamination: Decontamination | None = None,
    cache_dir: str | Path | None = None,
    processes: int | None = None,
) -> PretrainingRun:
    """Build the corpus, load the base, check that they fit together, and say what the corpus holds.

    Args:
        base: folder, hub id or `demo`, with its tokenizer; its weights are not read under init `random`.
        sources: the raw text.
        stage: all settings.
        decontamination: the texts that the corpus must not hold; None removes nothing.
        cache_dir: where corpora and trained heads are kept.
        processes: how many processes tokenize; None starts one per processor if there is much text.

    Raises:
        BaseModelError: the base cannot be used.
        DataError: the text cannot be read, or there is too little of it.
        RecipeError: a setting does not fit the base or the corpus.
    """
    check_lengths(base, stage)
    tokenizer = load_mlm_tokenizer(base)
    decontamination = decontamination or Decontamination()
    corpus = build_corpus(
        [decontamination.apply(source) for source in sources],
        corpus_tokenizer_of(tokenizer, stage.language),
        # shards take about three quarters of the bytes of their text
        Cache(runtime.cache_dir(cache_dir) / "corpora", max(CORPUS_CACHE_BYTES, sum(s.size or 0 for s in sources))),
        processes=processes,
    )
    _check_objective(corpus, stage)
    train, held_out = hold_out(corpus, stage.held_out)
    loader = _make_loader(corpus, train, tokenizer, stage)
    pair_facts = _describe_pairs(loader, stage)
    _report_decontamination(corpus, stage)
    _report_corpus(corpus, pair_facts, stage)
    unknown = corpus.facts["unknown_tokens"] / corpus.facts["tokens"]
    warn_of_unfamiliar_text(sources, tokenizer, unknown, general_text(stage.probe_text) if may_forget(stage) else None)
    masking = make_masking(
        tokenizer,
        probability=stage.mask_probability,
        mask=stage.mask_share,
        random=stage.random_share,
        whole_words=stage.whole_words,
    )
    loaded = _load_language_model(base, stage)
    general_set, probe = _open_general_text(base, loaded, stage, cache_dir)
    whole = PretrainingRun(
        str(base),
        stage,
        loaded,
        tokenizer,
        loader,
        masking,
        _draw_held_out_set(corpus, held_out, loader, tokenizer, stage),
        general_set,
        probe,
        0,
        corpus.facts
        | {"fingerprint": corpus.fingerprint, "held_out_tokens": _count_tokens(corpus, held_out)}
        | pair_facts,
    )
    return _fit_evaluations(whole)


def with_steps(run: PretrainingRun, steps: int, *, batch_share: float = 1.0) -> PretrainingRun:
    """Return the run with other steps; the weights are the same objects.

    Args:
        run: the run.
        steps: how many steps, divided among its phases as before.
        batch_share: the size of a step over that of the run's steps.
    """
    stage = run.stage.model_copy(update={"steps": steps, "epochs": None})
    loader = run.loader
    rows, tokens = loader.order.batch_size, loader.order.batch_tokens
    order = replace(
        loader.order,
        batch_size=max(1, round(rows * batch_share)),
        batch_tokens=None if tokens is None else max(1, round(tokens * batch_share)),
    )
    resized = CorpusLoader(loader.corpus, loader.documents, loader.phases, order)
    shorter = _set_steps(resized, _divide_steps(steps, stage), stage)
    return _fit_evaluations(replace(run, stage=stage, loader=shorter))


def may_forget(stage: PretrainingConfig) -> bool:
    """Return True if general text is measured: random weights know nothing yet, so only on request (probe_text)."""
    return stage.init == "base" or stage.probe_text is not None


def _fit_evaluations(run: PretrainingRun) -> PretrainingRun:
    """Return the run with as many evaluations, on sets as large, as the time of its steps allows."""
    evaluations, tokens = plan_evaluations(run.stage, run.loader)
    general = None if run.general_set is None else run.general_set.shrink(tokens)
    probe = None if run.probe is None or general is None else replace(run.probe, eval_set=general)
    held_out = run.held_out_set.shrink(tokens)
    return replace(run, evaluations=evaluations, held_out_set=held_out, general_set=general, probe=probe)


def plan_evaluations(stage: PretrainingConfig, loader: CorpusLoader) -> tuple[int, int]:
    """Return how many evaluations follow the steps, and how many tokens each evaluation set has at most.

    There are two evaluations at least, before and after training, of `MIN_EVAL_TOKENS` in each set. A number that the
    user set is kept; then only the sets are made smaller.

    Args:
        stage: its number of evaluations; None fits it to the steps.
        loader: the steps.
    """
    trained = sum(phase.steps * loader.tokens_per_step(number) for number, phase in enumerate(loader.phases))
    affordable = EVALUATION_SHARE * _STEP_PASSES * trained / (2 if may_forget(stage) else 1)
    fitting = int(np.clip(affordable // WANTED_EVAL_TOKENS - 1, 1, MOST_EVALUATIONS))
    evaluations = min(stage.evaluations or fitting, loader.steps)
    return evaluations, int(np.clip(affordable / (evaluations + 1), MIN_EVAL_TOKENS, MAX_EVAL_TOKENS))


def _check_objective(corpus: Corpus, stage: PretrainingConfig) -> None:
    if stage.objective == "mlm+nsp" and corpus.facts["documents"] < 2:
        raise DataError(
            "next-sentence prediction needs a second document to draw from",
            expected="at least two documents",
            got="one",
            remedy="Separate documents by blank lines, or pass --objective mlm or mlm+sop.",
        )


def _load_language_model(base: str | Path, stage: PretrainingConfig) -> LoadedLanguageModel:
    pairs = stage.objective != "mlm"
    if stage.init == "random":
        loaded = new_language_model(load_config(base), pairs=pairs, seed=stage.seed)
    else:
        loaded = load_language_model(base, pairs=pairs, seed=stage.seed)
    loaded.network.to(runtime.device())
    return loaded


def _open_general_text(
    base: str | Path, loaded: LoadedLanguageModel, stage: PretrainingConfig, cache_dir: str | Path | None
) -> tuple[EvalSet | None, ForgettingProbe | None]:
    """Return the general text if forgetting is measured, and the probe if it must be measured under another head.

    That is the case for a base without a masked-LM head; `loaded` gets the probe's head as its start.
    """
    if not may_forget(stage):
        return None, None
    if loaded.own_head or stage.init == "random":
        return draw_general_eval_set(base, stage.probe_text, stage.language), None
    # the head that was trained on the frozen encoder is the better start: see benchmarks/head_starts.py
    probe = open_probe(base, text=stage.probe_text, cache_dir=cache_dir, language=stage.language)
    probe.copy_head_to(loaded.network)
    return probe.eval_set, probe


def _make_loader(
    corpus: Corpus, train: Sequence[Sequence[Span]], tokenizer: PreTrainedTokenizerFast, stage: PretrainingConfig
) -> CorpusLoader:
    """Return the loader with the steps of each phase counted."""
    order = ReadingOrder(
        stage.objective,
        (stage.batch_size or DEFAULT_BATCH) * stage.gradient_accumulation,
        None if stage.batch_tokens is None else stage.batch_tokens * stage.gradient_accumulation,
        stage.token_budget,
        stage.short_probability,
        stage.seed,
    )
    phases = [make_phase(tokenizer, 0, length) for length in stage.lengths]
    uncounted = CorpusLoader(corpus, train, phases, order)
    if stage.steps is not None:
        return _set_steps(uncounted, _divide_steps(stage.steps, stage), stage)
    # how many steps an epoch has is known only when its batches are planned
    epochs, shares = stage.epochs or DEFAULT_PASSES, stage.lengths.values()
    counts = [round(epochs * share * uncounted.steps_per_epoch(phase)) for phase, share in enumerate(shares)]
    return _set_steps(uncounted, counts, stage)


def _set_steps(loader: CorpusLoader, counts: Sequence[int], stage: PretrainingConfig) -> CorpusLoader:
    """Return the loader with so many steps in each phase; raise RecipeError if a phase or the warm-up gets too few."""
    _check_steps(counts, stage)
    phases = [replace(phase, steps=count) for phase, count in zip(loader.phases, counts, strict=True)]
    return CorpusLoader(loader.corpus, loader.documents, phases, loader.order)


def _divide_steps(steps: int, stage: PretrainingConfig) -> list[int]:
    """Return the steps of each phase, by their shares."""
    # rounding the ends, not the lengths, of phases makes them add up to all steps
    ends = [round(steps * share) for share in np.cumsum(list(stage.lengths.values()))]
    counts: list[int] = np.diff([0, *ends[:-1], steps]).tolist()
    return counts


def _check_steps(counts: Sequence[int], stage: PretrainingConfig) -> None:
    lengths = [length for length, count in zip(stage.lengths, counts, strict=True) if count < 1]
    if lengths:
        raise RecipeError(
            f"the phase of {lengths[0]} tokens gets no training step",
            where="further pretraining",
            expected="at least one step in each phase",
            got=f"{sum(counts):,} steps in all phases together",
            remedy="Raise --steps or --epochs, or lower --batch-size.",
        )
    if stage.warmup_steps is not None and stage.warmup_steps >= sum(counts):
        raise RecipeError(
            f"the warm-up of {stage.warmup_steps:,} steps leaves no steps for the rest of training",
            where="further pretraining",
            expected=f"less than {sum(counts):,} steps of warm-up",
            got=f"{stage.warmup_steps:,}",
            remedy="Lower --warmup-steps, or set the warm-up as a share: --warmup.",
        )


def _count_tokens(corpus: Corpus, documents: Sequence[Sequence[Span]]) -> int:
    return sum(
        int(shard.sentence_ends[last] - shard.sentence_ends[first])
        for shard, spans in zip(corpus.shards, documents, strict=True)
        for first, last in spans
    )


def _draw_held_out_set(
    corpus: Corpus,
    held_out: Sequence[Sequence[Span]],
    loader: CorpusLoader,
    tokenizer: PreTrainedTokenizerFast,
    stage: PretrainingConfig,
) -> EvalSet:
    """Mask the held-out text as training does not: in the standard way, in rows of the first phase."""
    parts = list(zip(corpus.shards, held_out, strict=True))
    masking = standard_masking(make_masking(tokenizer))
    phase = loader.phases[0]
    return draw_eval_set(parts, phase, stage.objective, masking, tokenizer.pad_token_id)


def _report_decontamination(corpus: Corpus, stage: PretrainingConfig) -> None:
    documents, paragraphs = corpus.facts["held_back_documents"], corpus.facts["held_back_paragraphs"]
    if not documents and not paragraphs:
        return
    found = (
        f"{documents:,} documents and {paragraphs:,} paragraphs of the corpus equal, or nearly equal, evaluation texts"
    )
    if stage.transductive:
        warn(f"{found}; they stay in the corpus (--transductive), and every score of this base will say so")
    else:
        say(f"{found}; they were removed")


def _describe_pairs(loader: CorpusLoader, stage: PretrainingConfig) -> dict[str, Any]:
    """Return the counts of pairs and `random_share`, the share of false ones (None without a pair); {} for `mlm`."""
    if stage.objective == "mlm":
        return {}
    counts = count_pairs(loader.examples(0))
    pairs = counts["true_pairs"] + counts["false_pairs"]
    return counts | {"random_share": counts["false_pairs"] / pairs if pairs else None}


def _report_corpus(corpus: Corpus, pair_facts: Mapping[str, Any], stage: PretrainingConfig) -> None:
    """Say how large the corpus is and how many pairs it gives, and warn if they are few."""
    facts = corpus.facts
    single = facts["single_sentence_documents"] / facts["documents"]
    say(
        f"corpus: {facts['documents']:,} documents, {facts['sentences']:,} sentences, {facts['tokens']:,} tokens "
        f"({facts['unknown_tokens'] / facts['tokens']:.2%} unknown); "
        f"{single:.0%} of the documents have only one sentence"
    )
    if stage.objective == "mlm":
        return
    pairs, alone = pair_facts["true_pairs"] + pair_facts["false_pairs"], pair_facts["rows_without_partner"]
    kind = "with a random second segment" if stage.objective == "mlm+nsp" else "with swapped segments"
    share = pair_facts["random_share"] or 0
    say(f"pairs: {pairs:,}, {share:.1%} of them {kind}; {alone:,} rows have no partner")
    if single >= TRIVIAL_SHARE or pairs < alone:
        warn(
            f"{single:.0%} of the documents have only one sentence, so there are few pairs to learn from: "
            "--objective mlm learns as much from this text, and faster"
        )


# Training


_METRIC: Final = "neg_held_out_loss"


@dataclass(frozen=True)
class PretrainingResult:
    """The evaluations of a run."""

    start: dict[str, float]
    """The scores before the first step."""

    history: list[dict[str, Any]]
    """One entry for each evaluation."""

    @property
    def end(self) -> dict[str, Any]:
        """Return the entry whose weights were kept."""
        return next(entry for entry in self.history if entry["best"])

    @property
    def forgotten(self) -> float | None:
        """Return by how much the loss on general text rose, in nats; None if it was not measured."""
        name = "general_mlm_loss"
        return float(self.end[name] - self.start[name]) if name in self.start else None


def run_pretraining(run: PretrainingRun, checkpoints: Checkpoints | None = None) -> PretrainingResult:
    """Train the run's network in place. Afterwards it has the best evaluation's weights and is in eval mode.

    If the loss diverges after an evaluation, training stops, the last entry of the history says why (`diverged`), and
    the best weights so far are kept.

    Args:
        run: the prepared run.
        checkpoints: where to save, and from which to resume; None saves nothing.

    Raises:
        DivergenceFault: the loss diverged before the first evaluation.
    """
    run.network.eval()
    with fast_layers(run.network), compiled_encoder(run.network.model):
        start = run.evaluate()
        _report_start(run, start)
        history = fit(run.network, _make_work(run, start), _loop_config(run), checkpoints)
    for entry in history:
        if "diverged" in entry:
            warn(f"training was stopped: {entry['diverged']}. The best base so far is kept")
    return PretrainingResult(start, history)


def _report_start(run: PretrainingRun, start: Mapping[str, float]) -> None:
    if not run.loaded.own_head:
        new = "the base has no masked-LM head: a new one trains with it, starting as the head that measures forgetting"
        if run.stage.init == "random":
            new = "all weights start at random"
        blind = math.log(run.network.config.vocab_size)
        say(f"{new}; the first loss is {start['mlm_loss']:.2f} (random guesses have ln(vocabulary) = {blind:.2f})")
    if run.network.pair is not None and not run.loaded.own_pair:
        say("the head that predicts pairs is new")
    general = "general loss: it rises if the base forgets"
    if run.general_set is None:
        general = "no general loss: weights that start at random have nothing to forget"
    say(f"held-out loss: text of the corpus that is not trained on; {general}")
    say(f"before training  {format_losses(start)}")


def format_losses(entry: Mapping[str, float]) -> str:
    """Return an evaluation's losses in words."""
    pairs = f"  pairs {entry['pair_accuracy']:.1%} right" if "pair_accuracy" in entry else ""
    general = f"  general loss {entry['general_mlm_loss']:.4f}" if "general_mlm_loss" in entry else ""
    return f"held-out loss {entry['mlm_loss']:.4f}{pairs}{general}"


def _loop_config(run: PretrainingRun) -> TrainingConfig:
    """Return the loop's settings; an epoch of the loop is the time between two evaluations."""
    stage = run.stage
    warmup = stage.warmup if stage.warmup_steps is None else stage.warmup_steps / run.loader.steps
    config = TrainingConfig(
        optimizer=stage.optimizer,
        learning_rate=(stage.learning_rate,),
        epochs=run.evaluations,
        schedule=stage.schedule,
        warmup=warmup,
        max_grad_norm=stage.max_grad_norm,
        weight_decay=stage.weight_decay,
        precision=stage.precision,
        seed=stage.seed,
        patience=None,  # a loss that rises in warm-up is normal; `_find_divergence` stops bad runs
    )
    return config.model_copy(update={"metric": _METRIC})


def _make_work(run: PretrainingRun, start: Mapping[str, float]) -> TrainingWork:
    stage, loader, evaluation_steps = run.stage, run.loader, run.evaluation_steps()
    groups = parameter_groups(run.network, learning_rate=stage.learning_rate, weight_decay=stage.weight_decay)
    adam = {"betas": (stage.beta1, stage.beta2), "eps": stage.epsilon}

    def plan(epoch: int) -> list[Step]:
        return loader.plan(evaluation_steps[epoch], evaluation_steps[epoch + 1])

    def validate(_: nn.Module, epoch: int) -> dict[str, Any]:
        scores = run.evaluate()
        step = evaluation_steps[epoch + 1]
        # the sum that training minimizes
        loss = scores["mlm_loss"] + scores.get("pair_loss", 0.0)
        if not math.isfinite(loss):
            raise DivergenceFault(
                "the held-out loss is not a finite number", where=f"step {step:,}", remedy="Lower --learning-rate."
            )
        return scores | {"step": step, "validation_loss": loss, _METRIC: -loss}

    def describe(entry: Mapping[str, Any]) -> str:
        return (
            f"step {entry['step']:,}/{loader.steps:,}  train loss {entry['train_loss']:.4f}  {format_losses(entry)}"
            f"  rate {entry['learning_rate']:.2e}  {entry['rows_per_second']:,.1f} rows/s"
        )

    return TrainingWork(
        plan=plan,
        loss_fn=lambda _, step, share: step_losses(run, step, share),
        validate=validate,
        groups=[group | adam for group in groups],
        rows=sum(len(step.rows) for step in plan(0)),
        steps=loader.steps,
        epoch_name="evaluation",
        describe=describe,
        watch=lambda history: _find_divergence(history, start, run.warmup_steps),
        keep_best_on_divergence=True,
    )


def step_losses(run: PretrainingRun, step: Step, share: Step) -> Iterator[Tensor]:
    """Yield the parts of a step's loss, a scalar for each micro-batch of this process's share.

    Over all processes the parts add up to the step's mean loss over masked tokens plus its mean loss over pairs.
    """
    batch = run.loader.batch(step, run.masking)
    tokens = max(1, int(batch.chosen.sum()))
    pairs = max(1, int((batch.pair_labels != NO_PAIR).sum()))
    for rows in share.micro_batches:
        found = masked_lm_loss(run.network, batch, np.searchsorted(batch.rows, rows), run.tokenizer.pad_token_id)
        yield found.word_loss / tokens + found.pair_loss / pairs


def _find_divergence(history: Sequence[Mapping[str, Any]], start: Mapping[str, float], warmup_steps: int) -> str | None:
    """Return why to stop: after warm-up, the mean of the last two held-out losses is above the one before training."""
    last = [entry["mlm_loss"] for entry in history if entry["step"] > warmup_steps][-2:]
    if len(last) == 2 and sum(last) / 2 > start["mlm_loss"]:
        return (
            f"the held-out loss rose from {start['mlm_loss']:.4f} before training to {sum(last) / 2:.4f} (mean of the "
            f"last two evaluations, step {history[-1]['step']:,}); lower --learning-rate"
        )
    return None


# Saving


def write_base(folder: Path, run: PretrainingRun, result: PretrainingResult, about: Mapping[str, Any]) -> None:
    """Write the new base into an empty folder: config, weights, tokenizer, fullbake.json and a plot of the losses.

    Args:
        folder: an empty folder.
        run: the run after training.
        result: its evaluations.
        about: further JSON values for fullbake.json.

    Raises:
        DivergenceFault: a weight is not a finite number.
    """
    # a base with a NaN would load without an error and only fail when a classifier is trained on it
    for name, tensor in run.network.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise DivergenceFault("a weight is not a finite number", where=name, remedy="Lower --learning-rate.")
    save_language_model(run.loaded, folder, None if run.stage.init == "random" else run.base)
    with quiet_transformers():
        run.tokenizer.save_pretrained(folder)
    storage.write_bytes(folder / "curves.png", plots.pretraining_figure(result.start, result.history))
    manifest = {"format": 1, "kind": "base", "base": run.base, **about, **describe_base(run, result)}
    files = hashing.hash_files(folder)
    storage.write_json(folder / storage.MANIFEST_FILE, manifest | {"files": files})


def describe_base(run: PretrainingRun, result: PretrainingResult) -> dict[str, Any]:
    """Return what fullbake.json says about how a base was made, JSON values."""
    return {
        "further_pretraining": run.stage.model_dump(mode="json"),
        "transductive": run.stage.transductive,
        "corpus": run.corpus_facts,
        "own_head": run.loaded.own_head,
        "steps": run.loader.steps,
        "start": result.start,
        "history": result.history,
        "eval_words": {
            "held_out": run.held_out_set.masked_tokens,
            "general": 0 if run.general_set is None else run.general_set.masked_tokens,
        },
        "forgotten": result.forgotten,
        "versions": runtime.versions(),
    }
