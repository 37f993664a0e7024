"""A further pretraining before its first step: everything read, counted and checked, so that what cannot work is told
before any hour is spent.

A course is a pure function of base, corpus and stage; `pretraining` runs it.

Way 1's stage: a base goes on learning from raw text and comes out as a better base, or is stopped as it forgets.

`pretrain` runs a course through the loop; `write` leaves an ordinary Hugging Face folder. Between two evaluations the
loop sees an epoch like any other, so checkpoints, resuming and the choice of the best weights are its own. What is kept
is the evaluation with the lowest held-out loss: under a decaying rate the last one, unless the run went bad.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from fullbake.config.pretraining import PretrainingConfig
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
from fullbake.pretraining.examples import NO_PAIR, Masking
from fullbake.pretraining.forgetting import (
    ForgettingProbe,
    corpus_tokenizer_of,
    draw_general_eval_set,
    make_masking,
    make_phase,
    open_probe,
)
from fullbake.pretraining.mlm import EvalSet, draw_eval_set, evaluate_masked_lm, masked_lm_loss, standard_masking
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.loop import TrainingWork, fit

CORPUS_CACHE_BYTES: Final = 50 * 1024**3
"""Bound of the cache of corpora: 50 GiB hold some 8 billion tokens."""

DEFAULT_EPOCHS: Final = 3
DEFAULT_BATCH: Final = 32

TRIVIAL_SHARE: Final = 0.5
"""Of all documents: from here on, pairs are said to be too few or too easy."""

EVAL_SET_TOKENS: Final = 50_000
"""What an evaluation reads of held-out text, over all maskings."""


@dataclass(frozen=True, eq=False)
class PretrainingRun:
    """A further pretraining that has been checked and can begin.

    loaded: the base under its heads. domain: held-out text of the corpus. general: general text under the network's own
    head; probe: what measures it in its place where the base came without one. facts: of the corpus and its pairs, JSON
    values.
    """

    base: str
    stage: PretrainingConfig
    loaded: LoadedLanguageModel
    tokenizer: PreTrainedTokenizerFast
    stream: CorpusLoader
    masking: Masking
    domain: EvalSet
    general: EvalSet
    probe: ForgettingProbe | None
    facts: dict[str, Any]

    @property
    def network(self) -> LanguageModel:
        """What trains."""
        return self.loaded.network

    @property
    def evaluations(self) -> int:
        """How many there are: as many as asked, where there are steps enough."""
        return min(self.stage.evaluations, self.stream.steps)

    def edges(self) -> list[int]:
        """Steps taken before each evaluation, from 0."""
        edges: list[int] = np.linspace(0, self.stream.steps, self.evaluations + 1).round().astype(int).tolist()
        return edges

    def read(self) -> dict[str, float]:
        """How the network stands: figures of held-out text under their own names, of general text under general_*."""
        domain = evaluate_masked_lm(self.network, self.domain, self.stage.token_budget)
        if self.probe is None:
            general = evaluate_masked_lm(self.network, self.general, self.stage.token_budget)
        else:
            general = self.probe.read(self.network.model.base_model)
        return domain | {f"general_{name}": value for name, value in general.items() if name.startswith("mlm")}


def check_lengths(base: str | Path, stage: PretrainingConfig) -> None:
    """Raise RecipeError where a phase is longer than the base's positions."""
    limit, longest = max_positions(load_config(base)), max(stage.lengths)
    if longest > limit:
        raise RecipeError(
            "a phase is longer than the base can take",
            where=f"further pretraining, base {str(base)!r}",
            expected=f"at most {limit} tokens",
            got=str(longest),
            remedy=f"Pass --max-length {limit} or less, or --phases of such lengths.",
        )


def prepare_run(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    *,
    guard: Decontamination | None = None,
    cache_dir: str | Path | None = None,
    processes: int | None = None,
) -> PretrainingRun:
    """Build the corpus, load the base, and see that everything fits.

    base: with its tokenizer; its weights are not read under init `random`. guard: what must stay out of the corpus.
    Raises BaseModelError, DataError, RecipeError.
    """
    check_lengths(base, stage)
    tokenizer = load_mlm_tokenizer(base)
    cache = Cache(runtime.cache_dir(cache_dir) / "corpora", CORPUS_CACHE_BYTES)
    guard = guard or Decontamination()
    corpus = build_corpus(
        [guard.apply(source) for source in sources],
        corpus_tokenizer_of(tokenizer, stage.language),
        cache,
        processes=processes,
    )
    _check_objective(corpus, stage)
    kept, held = hold_out(corpus, stage.held_out)
    stream = _stream(corpus, kept, tokenizer, stage)
    masking = make_masking(
        tokenizer,
        probability=stage.mask_probability,
        mask=stage.mask_share,
        random=stage.random_share,
        whole_words=stage.whole_words,
    )
    loaded = _load(base, stage)
    facts = corpus.facts | {"fingerprint": corpus.fingerprint, "held_out_tokens": _tokens(corpus, held)}
    return PretrainingRun(
        str(base),
        stage,
        loaded,
        tokenizer,
        stream,
        masking,
        _domain(corpus, held, stream, tokenizer, stage),
        draw_general_eval_set(base, stage.probe_text, stage.language),
        None
        if loaded.own_head or stage.init == "random"
        else open_probe(base, text=stage.probe_text, cache_dir=cache_dir, language=stage.language),
        facts | _pair_facts(stream, stage),
    )


def _check_objective(corpus: Corpus, stage: PretrainingConfig) -> None:
    if stage.objective == "mlm+nsp" and corpus.facts["documents"] < 2:
        raise DataError(
            "next-sentence prediction needs a second document to draw from",
            expected="two documents at least",
            got="one",
            remedy="Part the text into documents by blank lines, or pass --objective mlm or mlm+sop.",
        )


def _load(base: str | Path, stage: PretrainingConfig) -> LoadedLanguageModel:
    pairs = stage.objective != "mlm"
    if stage.init == "random":
        loaded = new_language_model(load_config(base), pairs=pairs, seed=stage.seed)
    else:
        loaded = load_language_model(base, pairs=pairs, seed=stage.seed)
    loaded.network.to(runtime.device())
    return loaded


def _stream(corpus: Corpus, kept: Any, tokenizer: PreTrainedTokenizerFast, stage: PretrainingConfig) -> CorpusLoader:
    """The steps of all phases, counted out."""
    order = ReadingOrder(
        stage.objective,
        (stage.batch_size or DEFAULT_BATCH) * stage.gradient_accumulation,
        None if stage.batch_tokens is None else stage.batch_tokens * stage.gradient_accumulation,
        stage.token_budget,
        stage.short_probability,
        stage.seed,
    )
    phases = [make_phase(tokenizer, 0, length) for length in stage.lengths]
    stream = CorpusLoader(corpus, kept, phases, order)
    shares = list(stage.lengths.values())
    if stage.steps is not None:
        ends = [round(stage.steps * share) for share in np.cumsum(shares)]
        counts = np.diff([0, *ends[:-1], stage.steps]).tolist()
    else:
        epochs = stage.epochs or DEFAULT_EPOCHS
        counts = [round(epochs * share * stream.steps_per_epoch(phase)) for phase, share in enumerate(shares)]
    _check_steps(counts, stage)
    return CorpusLoader(corpus, kept, [replace(phase, steps=n) for phase, n in zip(phases, counts, strict=True)], order)


def _check_steps(counts: Sequence[int], stage: PretrainingConfig) -> None:
    lengths = [length for length, count in zip(stage.lengths, counts, strict=True) if count < 1]
    if lengths:
        raise RecipeError(
            f"the phase of {lengths[0]} tokens gets no step",
            where="further pretraining",
            expected="one step at least in each phase",
            got=f"{sum(counts):,} steps in all",
            remedy="Raise --steps or --epochs, or lower --batch-size.",
        )
    if stage.warmup_steps is not None and stage.warmup_steps >= sum(counts):
        raise RecipeError(
            f"the warm-up of {stage.warmup_steps:,} steps leaves none for the rest",
            where="further pretraining",
            got=f"{sum(counts):,} steps in all",
            remedy="Lower --warmup-steps, or give --warmup as a share.",
        )


def _tokens(corpus: Corpus, parts: Sequence[Sequence[tuple[int, int]]]) -> int:
    return sum(
        int(shard.sentence_ends[last] - shard.sentence_ends[first])
        for shard, spans in zip(corpus.shards, parts, strict=True)
        for first, last in spans
    )


def _domain(
    corpus: Corpus, held: Any, stream: CorpusLoader, tokenizer: PreTrainedTokenizerFast, stage: PretrainingConfig
) -> EvalSet:
    """Held-out text, masked as often as its size allows."""
    maskings = int(np.clip(EVAL_SET_TOKENS // max(1, _tokens(corpus, held)), 1, 4))
    parts = list(zip(corpus.shards, held, strict=True))
    masking = standard_masking(make_masking(tokenizer))
    phase = stream.phases[0]
    return draw_eval_set(parts, phase, stage.objective, masking, tokenizer.pad_token_id, maskings=maskings)


def _pair_facts(stream: CorpusLoader, stage: PretrainingConfig) -> dict[str, Any]:
    """How many pairs of each kind the first shards give, told; with a warning where they teach nothing."""
    facts = stream.corpus.facts
    single = facts["single_sentence_documents"] / facts["documents"]
    say(
        f"corpus: {facts['documents']:,} documents, {facts['sentences']:,} sentences, {facts['tokens']:,} tokens "
        f"({facts['unknown_tokens'] / facts['tokens']:.2%} unknown); {single:.0%} of the documents are one sentence"
    )
    if stage.objective == "mlm":
        return {}
    counts = count_pairs(stream.examples(0))
    pairs = counts["true_pairs"] + counts["false_pairs"]
    share = counts["false_pairs"] / pairs if pairs else math.nan
    kind = "random" if stage.objective == "mlm+nsp" else "swapped"
    say(f"pairs: {pairs:,}, {share:.1%} of them {kind}; {counts['rows_without_partner']:,} rows without a partner")
    if single >= TRIVIAL_SHARE or pairs < counts["rows_without_partner"]:
        warn(
            f"{single:.0%} of the documents are one sentence only, so there are few pairs to judge: "
            "--objective mlm learns the same from this text, and faster"
        )
    return counts | {"random_share": None if math.isnan(share) else share}


_METRIC: Final = "neg_held_out_loss"


@dataclass(frozen=True)
class PretrainingResult:
    """start: the figures before the first step. history: an entry an evaluation. end: the entry of what was kept."""

    start: dict[str, float]
    history: list[dict[str, Any]]

    @property
    def end(self) -> dict[str, Any]:
        """The entry whose weights were kept."""
        return next(entry for entry in self.history if entry["best"])


def run_pretraining(course: PretrainingRun, checkpoints: Checkpoints | None = None) -> PretrainingResult:
    """Train the course's network in place; it is left, in eval mode, with the best evaluation's weights.

    Raises DivergenceFault where the loss went bad before any evaluation; later, the run stops and says so in the last
    entry (`diverged`), and the last good weights stay.
    """
    stage = course.stage
    course.network.eval()
    with fast_layers(course.network), compiled_encoder(course.network.model):
        start = course.read()
        _tell_start(course, start)
        history = fit(course.network, _work(course, start), _training(stage, course), checkpoints)
    for entry in history:
        if "diverged" in entry:
            warn(f"{entry['diverged']}; stopped there, and the best base until then is kept")
    return PretrainingResult(start, history)


def _tell_start(course: PretrainingRun, start: Mapping[str, float]) -> None:
    known = math.log(course.network.config.vocab_size)
    if not course.loaded.own_head:
        say(
            "the base came without a masked-LM head: a new one, tied to its word embeddings, starts from nothing "
            f"(first loss {start['mlm_loss']:.2f}; guessing blindly costs ln(vocabulary) = {known:.2f})"
        )
    if course.network.pair is not None and not course.loaded.own_pair:
        say("the head that judges pairs is new too")
    say(f"before: {format_losses(start)}")


def format_losses(entry: Mapping[str, float]) -> str:
    """An evaluation's losses in words."""
    pairs = f", pairs {entry['pair_accuracy']:.1%} right" if "pair_accuracy" in entry else ""
    return f"held-out loss {entry['mlm_loss']:.4f}{pairs}, general loss {entry['general_mlm_loss']:.4f}"


def _training(stage: PretrainingConfig, course: PretrainingRun) -> TrainingConfig:
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


def _work(course: PretrainingRun, start: Mapping[str, float]) -> TrainingWork:
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

    return TrainingWork(
        plan=plan,
        loss_fn=lambda _, step, share: _losses(course, step, share),
        validate=validate,
        groups=[group | moments for group in groups],
        rows=sum(len(step.rows) for step in plan(0)),
        steps=stream.steps,
        epoch_name="evaluation",
        describe=lambda entry: _told(entry, stream.steps),
        watch=lambda history: _watch(history, start, _warmed(course)),
        keep_best_on_divergence=True,
    )


def _losses(course: PretrainingRun, step: Step, share: Step) -> Iterator[Tensor]:
    """Parts of the step's mean loss over masked tokens, plus its mean loss over pairs."""
    batch = course.stream.batch(step, course.masking)
    words = max(1, int(batch.chosen.sum()))
    pairs = max(1, int((batch.pair_labels != NO_PAIR).sum()))
    for cut in share.cuts:
        found = masked_lm_loss(course.network, batch, np.searchsorted(batch.rows, cut), course.tokenizer.pad_token_id)
        yield found.word_loss / words + found.pair_loss / pairs


def _told(entry: Mapping[str, Any], steps: int) -> str:
    return (
        f"step {entry['step']:,}/{steps:,}  train loss {entry['train_loss']:.4f}  {format_losses(entry)}"
        f"  rate {entry['learning_rate']:.2e}  {entry['rows_per_second']:,.1f} rows/s"
    )


def _warmed(course: PretrainingRun) -> int:
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


def write_base(folder: Path, course: PretrainingRun, outcome: PretrainingResult, about: Mapping[str, Any]) -> None:
    """The new base: config, weights, tokenizer, fullbake.json and a picture of the curves, into an empty folder.

    about: JSON values that fullbake.json holds besides. Raises DivergenceFault where the weights are not finite.
    """
    for name, tensor in course.network.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise DivergenceFault("a weight is no finite number", where=name, remedy="Lower --learning-rate.")
    save_language_model(course.loaded, folder, None if course.stage.init == "random" else course.base)
    with quiet_transformers():
        course.tokenizer.save_pretrained(folder)
    storage.write_bytes(folder / "curves.png", plots.pretraining_figure(outcome.start, outcome.history))
    described = {"format": 1, "kind": "base", "base": course.base, **about, **describe_base(course, outcome)}
    files = hashing.hash_files(folder)
    storage.write_json(folder / "fullbake.json", described | {"files": files})


def describe_base(course: PretrainingRun, outcome: PretrainingResult) -> dict[str, Any]:
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
