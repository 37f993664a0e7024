"""Say whether further pretraining is worth its hours: how unfamiliar the text is to the base, and a short trial run.

The pilot is the real training cut short: the same loop on a sample of the text, at most a few hundred steps, with a
learning rate that falls to 0. It shows the direction and the cost, not the final gain; but a loss that hardly moves in
200 steps will hardly move in 2,000. Its time is bounded: the steps are timed first, and as many are run as fit.

For a base without a masked-LM head, a part of the fall of the loss comes from the new head alone. So the same steps are
also run with a frozen encoder, which takes about a third of the time.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core import stopping
from fullbake.core.console import format_duration, say
from fullbake.core.errors import DeadlinePassed, RecipeError
from fullbake.models.admission import admit
from fullbake.models.encoder import freeze_all
from fullbake.models.fast_layers import compiled_encoder, fast_layers
from fullbake.models.tokenizer import UNKNOWN_TOKENS_WARNING
from fullbake.pretraining.corpus import read_shard
from fullbake.pretraining.documents import DocumentSource, sample_documents
from fullbake.pretraining.forgetting import corpus_tokenizer_of, general_text
from fullbake.pretraining.run import (
    PretrainingResult,
    PretrainingRun,
    prepare_run,
    run_pretraining,
    step_losses,
    with_steps,
)

SMALL_GAIN: Final = 0.02
"""Nats. If a few hundred steps lower the loss by less than this, more steps are not worth hours."""

UNFAMILIAR: Final = 1.15
"""How many times more pieces per word than general text make a text unfamiliar."""

SAMPLE_SIZE: Final = 4_000_000
"""Characters of the text that a pilot reads, up to twice as many: more than 200 steps of 32 rows take."""

FEWEST_STEPS: Final = 20
"""Where fewer steps fit into the time, so many are run with smaller batches."""

_SMALLEST_BATCH: Final = 0.05
"""Share of a batch below which a pilot says nothing."""

USED_SHARE: Final = 0.85
"""Share of the time that is left which the steps are expected to take. The rest is for an inexact forecast."""

_HEAD_ALONE: Final = 0.4
"""Time of a step with a frozen encoder over that of a whole step."""

_OVERHEAD: Final = 1.2
"""Time of the optimizer and the evaluations: so many times that of forward and backward passes alone."""

_TIMED_STEPS: Final = 3


def run_pilot(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    *,
    budget: float | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a corpus and a short further pretraining of a base on it. Nothing but the cache is written.

    Args:
        base: folder, hub id or `demo`.
        sources: the raw text.
        stage: all settings, with the `steps` to run if the budget allows it.
        budget: seconds that all may take; None sets no limit.
        cache_dir: where corpora and trained heads are kept; None uses the default cache folder.

    Returns:
        JSON values: pieces_per_word and unknown_share (each with `domain` and `general`), start and end (scores of
        held-out and general text), own_head (False if a new masked-LM head is trained), head_alone (held-out loss if
        only that head learns; None without one, or if the time was too short), gain and forgotten (nats; forgotten is
        None if it is not measured), steps, tokens (of the whole text, estimated), sampled (share of the text that was
        read), tokens_per_second, seconds, expected_seconds (of the steps), budget_seconds, hours_a_pass (hours to read
        the text once), words (the answer in sentences).

    Raises:
        RecipeError: the budget is too short.
        Error: as `prepare_run` and `run_pretraining`.
    """
    started = time.monotonic()
    try:
        with stopping.deadline(lambda: budget is not None and time.monotonic() - started > budget):
            return _run(base, sources, stage, budget, started, cache_dir)
    except DeadlinePassed as passed:
        raise RecipeError(
            "the time is too short for a pilot",
            where="--budget",
            expected="enough to prepare the text and the base, and to train for some steps",
            got=f"{format_duration(budget or 0)}: {passed}",
            remedy="Raise --budget, or lower --max-length or --batch-size.",
        ) from None


def _run(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    budget: float | None,
    started: float,
    cache_dir: str | Path | None,
) -> dict[str, Any]:
    within = "" if budget is None else f", all within {format_duration(budget)}"
    say(f"pilot: a sample of the text is read, then the base is trained on it for some steps{within}")
    admit(base, weights=stage.init != "random", cache_dir=cache_dir)
    with stopping.interruptible():
        sample = sample_documents(sources, SAMPLE_SIZE)
        run = prepare_run(base, [sample.source], stage, cache_dir=cache_dir)
        step_seconds = _time_step(run) * _OVERHEAD * (1 + _HEAD_ALONE if run.has_new_head else 1)
    left = math.inf if budget is None else started + budget - time.monotonic()
    steps, batch_share = _fit_steps(run.loader.steps, USED_SHARE * left / step_seconds)
    if batch_share < _SMALLEST_BATCH:
        raise DeadlinePassed(f"{format_duration(max(0.0, left))} are left, and a step takes {step_seconds:.1f} s")
    expected = steps * batch_share * step_seconds
    say(f"pilot: {_describe_plan(steps, run.loader.steps, batch_share)}; they take about {format_duration(expected)}")
    run = with_steps(run, steps, batch_share=batch_share)
    if run.has_new_head:
        result, end, head_alone = _train_both(run, time.monotonic() + left / (1 + _HEAD_ALONE))
    else:
        result = run_pretraining(run)
        end, head_alone = result.end, None
    facts = _collect_facts(run, result, end, head_alone, sample.share)
    times = {"expected_seconds": expected, "budget_seconds": budget, "seconds": time.monotonic() - started}
    return facts | times | {"words": describe_pilot(facts)}


def _fit_steps(wanted: int, affordable: float) -> tuple[int, float]:
    """Return how many steps to run, and their size as a share of the wanted size.

    Args:
        wanted: how many steps.
        affordable: how many of the wanted size fit into the time. Fewer than FEWEST_STEPS are made smaller instead.
    """
    if affordable >= wanted:
        return wanted, 1.0
    steps = min(wanted, max(int(affordable), FEWEST_STEPS))
    return steps, min(1.0, affordable / steps)


def _describe_plan(steps: int, wanted: int, batch_share: float) -> str:
    smaller = f", each of {batch_share:.0%} of its size" if batch_share < 1 else ""
    reason = ", to keep to the time" if steps < wanted or smaller else ""
    return f"{steps:,} steps{f' in place of {wanted:,}' if steps < wanted else ''}{smaller}{reason}"


def _time_step(run: PretrainingRun) -> float:
    """Return the seconds of a step's forward and backward passes, the mean of some; no weight changes."""
    seconds = []
    run.network.train()
    with fast_layers(run.network), compiled_encoder(run.network.model):
        for step in run.loader.plan(0, min(_TIMED_STEPS, run.loader.steps)):
            stopping.check()
            started = time.perf_counter()
            for loss in step_losses(run, step, step):
                loss.backward()
            seconds.append(time.perf_counter() - started)
            run.network.zero_grad()
    run.network.eval()
    # the first step also pays for buffers and compiled code
    return sum(seconds[1:]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0]


def _train_both(run: PretrainingRun, until: float) -> tuple[PretrainingResult, dict[str, Any], float | None]:
    """Train everything, then from the same weights the new head alone.

    Args:
        run: the pilot.
        until: when the first part must be done, on the clock of time.monotonic; the second may take what is left.

    Returns:
        The result of the first part; its last evaluation that the second part has too; and the second part's held-out
        loss there, None if the time was up before its first evaluation.
    """
    encoder = run.network.model.base_model
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    say("pilot, part 1 of 2: everything learns")
    with stopping.deadline(lambda: time.monotonic() > until):
        result = run_pretraining(run)
    run.network.load_state_dict(before)
    freeze_all(encoder)
    say("pilot, part 2 of 2: only the new head learns, the encoder is frozen")
    try:
        alone = run_pretraining(run).history
    except DeadlinePassed:
        return result, result.history[-1], None
    last = min(len(alone), len(result.history)) - 1
    return result, result.history[last], float(alone[last]["mlm_loss"])


def _collect_facts(
    run: PretrainingRun,
    result: PretrainingResult,
    end: dict[str, Any],
    head_alone: float | None,
    share: float,
) -> dict[str, Any]:
    """Return the figures of a pilot that do not depend on its time limit.

    Args:
        run: the pilot; its tokenizer counts the pieces of general text.
        result: its evaluations.
        end: the one that counts.
        head_alone: see `run_pilot`.
        share: share of the whole text that the pilot's sample holds.
    """
    general = read_shard(general_text(), corpus_tokenizer_of(run.tokenizer, run.stage.language))[1]
    domain = run.corpus_facts
    tokens = round(domain["tokens"] / share)
    rate = _count_tokens(run, int(result.history[-1]["step"])) / sum(entry["seconds"] for entry in result.history)
    general_loss = "general_mlm_loss"
    before = result.start["mlm_loss"] if head_alone is None else head_alone
    return {
        "pieces_per_word": _compare(domain, general, "tokens", "words"),
        "unknown_share": _compare(domain, general, "unknown_tokens", "tokens"),
        "start": result.start,
        "end": end,
        "own_head": not run.has_new_head,
        "head_alone": head_alone,
        "gain": before - end["mlm_loss"],
        "forgotten": end[general_loss] - result.start[general_loss] if general_loss in end else None,
        "steps": end["step"],
        "tokens": tokens,
        "sampled": share,
        "tokens_per_second": rate,
        "hours_a_pass": tokens / rate / 3600,
    }


def _compare(domain: dict[str, Any], general: dict[str, int], over: str, under: str) -> dict[str, float]:
    return {name: facts[over] / max(1, facts[under]) for name, facts in (("domain", domain), ("general", general))}


def _count_tokens(run: PretrainingRun, steps: int) -> int:
    """Return the tokens of the first steps of the pilot, special ones included."""
    plan = run.loader.plan(0, steps)
    return sum(int(run.loader.batch(step, run.masking).encoded.lengths.sum()) for step in plan)


def describe_pilot(facts: dict[str, Any]) -> list[str]:
    """Return the answer of a pilot in sentences.

    Args:
        facts: what `run_pilot` returns.
    """
    gain, forgotten, head_alone = facts["gain"], facts["forgotten"], facts["head_alone"]
    what = "the held-out loss"
    if head_alone is not None:
        what += ", compared with training only a new head,"
    effect = f"After {facts['steps']:,} steps {what} {_describe_change(-gain)}"
    if forgotten is not None:
        effect += f", and the loss on general text {_describe_change(forgotten)}"
    if not facts["own_head"] and head_alone is None:
        effect += " (a part of it is due to the new head alone; the time was too short to measure that part)"
    once = format_duration(facts["hours_a_pass"] * 3600)
    cost = f"Reading all {facts['tokens']:,} tokens once takes about {once} here."
    unknown = facts["unknown_share"]["domain"]
    if unknown > UNKNOWN_TOKENS_WARNING:
        advice = f"Choose another base first: this one does not know {unknown:.0%} of the tokens of this text."
    elif gain < SMALL_GAIN:
        advice = "Not worth it: the base learns almost nothing from this text at this learning rate."
    elif forgotten is not None and forgotten > gain and facts["own_head"]:
        advice = "The base forgets more than it learns: try a lower --learning-rate first."
    else:
        advice = "Worth a try: train your classifier with and without it, and compare the two."
    return [_describe_words(facts), f"{effect}.", f"{advice} {cost}"]


def _describe_words(facts: dict[str, Any]) -> str:
    domain, general = facts["pieces_per_word"]["domain"], facts["pieces_per_word"]["general"]
    if facts["unknown_share"]["domain"] > UNKNOWN_TOKENS_WARNING:
        return f"The base does not know {facts['unknown_share']['domain']:.1%} of the tokens of this text."
    unfamiliar = domain / general > UNFAMILIAR
    return (
        f"The base splits a word of this text into {domain:.2f} pieces on average, and a word of general text into "
        f"{general:.2f}: the words of this text are {'unfamiliar' if unfamiliar else 'mostly familiar'} to the base."
    )


def _describe_change(nats: float) -> str:
    return f"is {abs(nats):.3f} nats {'higher' if nats > 0 else 'lower'}"
