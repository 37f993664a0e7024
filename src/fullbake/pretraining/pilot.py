"""Say whether further pretraining is worth its hours: how unfamiliar the text is to the base, and a short trial run.

The pilot is the real training cut short: the same corpus and loop, a few hundred steps, with a learning rate that falls
to 0. It shows the direction and the cost, not the final gain; but a loss that hardly moves in 200 steps will hardly
move in 2,000. A base without a masked-LM head gets a run before it in which only the new head learns, because most of
the fall of the loss comes from the head.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core.console import format_duration, say
from fullbake.models.encoder import freeze_all
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.corpus import read_shard
from fullbake.pretraining.documents import DocumentSource
from fullbake.pretraining.forgetting import corpus_tokenizer_of, general_text
from fullbake.pretraining.run import PretrainingRun, prepare_run, run_pretraining

SMALL_GAIN: Final = 0.02
"""Nats. If a few hundred steps lower the loss by less than this, more steps are not worth hours."""

UNFAMILIAR: Final = 1.15
"""How many times more pieces per word than general text make a text unfamiliar."""


def run_pilot(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    *,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a corpus and a short further pretraining of a base on it. Nothing but the cache is written.

    Args:
        base: folder, hub id or `demo`.
        sources: the raw text.
        stage: all settings, with its `steps`.
        cache_dir: where corpora and trained heads are kept; None uses the default cache folder.

    Returns:
        JSON values: pieces_per_word and unknown_share (each with `domain` and `general`), start and end (scores of
        held-out and general text), head_alone (held-out loss if only a new head learns; None if the base came with a
        head), gain and forgotten (nats), steps, tokens, tokens_per_second, seconds, hours_a_pass (hours to read the
        corpus once), words (the answer in sentences).

    Raises:
        Error: as `prepare_run` and `run_pretraining`.
    """
    run = prepare_run(base, sources, stage, cache_dir=cache_dir)
    head_alone = None
    if not run.loaded.own_head:
        say("pilot, part 1 of 2: only the new head learns, the encoder is frozen")
        freeze_all(run.network.model.base_model)
        head_alone = float(run_pretraining(run).end["mlm_loss"])
        say("pilot, part 2 of 2: everything learns")
        run = prepare_run(base, sources, stage, cache_dir=cache_dir)  # the first part changed the weights
    started = time.perf_counter()
    result = run_pretraining(run)
    seconds = time.perf_counter() - started
    before = result.start["mlm_loss"] if head_alone is None else head_alone
    general = read_shard(general_text(), corpus_tokenizer_of(load_mlm_tokenizer(base), stage.language))[1]
    domain = run.corpus_facts
    rate = _count_tokens(run) / sum(entry["seconds"] for entry in result.history)
    facts = {
        "pieces_per_word": _compare(domain, general, "tokens", "words"),
        "unknown_share": _compare(domain, general, "unknown_tokens", "tokens"),
        "start": result.start,
        "end": result.end,
        "head_alone": head_alone,
        "gain": before - result.end["mlm_loss"],
        "forgotten": result.end["general_mlm_loss"] - result.start["general_mlm_loss"],
        "steps": run.loader.steps,
        "tokens": domain["tokens"],
        "tokens_per_second": rate,
        "seconds": seconds,
        "hours_a_pass": domain["tokens"] / rate / 3600,
    }
    return facts | {"words": describe_pilot(facts)}


def _compare(domain: dict[str, Any], general: dict[str, int], over: str, under: str) -> dict[str, float]:
    return {name: facts[over] / max(1, facts[under]) for name, facts in (("domain", domain), ("general", general))}


def _count_tokens(run: PretrainingRun) -> int:
    """Return the tokens of all steps of the pilot, special ones included."""
    steps = run.loader.plan(0, run.loader.steps)
    return sum(int(run.loader.batch(step, run.masking).encoded.lengths.sum()) for step in steps)


def describe_pilot(facts: dict[str, Any]) -> list[str]:
    """Return the answer of a pilot in sentences.

    Args:
        facts: what `run_pilot` returns.
    """
    domain, general = facts["pieces_per_word"]["domain"], facts["pieces_per_word"]["general"]
    gain, forgotten, head_alone = facts["gain"], facts["forgotten"], facts["head_alone"]
    unfamiliar = domain / general > UNFAMILIAR
    familiar = (
        f"The base splits a word of this text into {domain:.2f} pieces on average, and a word of general text into "
        f"{general:.2f}: the words of this text are {'unfamiliar' if unfamiliar else 'mostly familiar'} to the base."
    )
    what = "the held-out loss"
    if head_alone is not None:
        what += ", compared with training only a new head,"
    effect = (
        f"After {facts['steps']:,} steps {what} {_describe_change(-gain)}, and the loss on general text "
        f"{_describe_change(forgotten)}."
    )
    cost = (
        f"Reading all {facts['tokens']:,} tokens once takes about {format_duration(facts['hours_a_pass'] * 3600)} here."
    )
    if gain < SMALL_GAIN:
        advice = "Not worth it: the base learns almost nothing from this text at this learning rate."
    elif forgotten > gain and head_alone is None:
        advice = "The base forgets more than it learns: try a lower --learning-rate first."
    else:
        advice = "Worth a try: train your classifier with and without it, and compare the two."
    return [familiar, effect, f"{advice} {cost}"]


def _describe_change(nats: float) -> str:
    return f"is {abs(nats):.3f} nats {'higher' if nats > 0 else 'lower'}"
