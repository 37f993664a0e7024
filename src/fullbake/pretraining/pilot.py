"""Is further pretraining worth the hours here? How foreign the text is to the base, and a short pilot.

The pilot is the real stage cut short: same corpus, same loop, a few hundred steps under a rate that falls to 0. It
tells the direction and the cost, not the final size: a loss that hardly moves in 200 steps hardly will in 2,000. A base
without a masked-LM head gets a second pilot in which the new head alone learns, since most of the fall is that.
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
from fullbake.pretraining.run import PretrainingResult, PretrainingRun, prepare_run, run_pretraining

FEW_TOKENS: Final = 0.02
"""Nats. What a few hundred steps gain by less than this is not worth hours."""


def run_pilot(
    base: str | Path,
    sources: Sequence[DocumentSource],
    stage: PretrainingConfig,
    *,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a corpus and a short further pretraining of a base on it; nothing is saved.

    stage: with its `steps`. Returns JSON values: pieces_per_word and unknown_share ({"domain", "general"}), start and
    end (figures of held-out and general text), head_alone (held-out loss where only a new head learned; None where the
    base came with one), gain and forgotten (nats), steps, tokens_per_second, tokens, hours_a_pass, words (the answer,
    a sentence each). Raises as `pretraining.prepare` and `pretrain` do.
    """
    course = prepare_run(base, sources, stage, cache_dir=cache_dir)
    head_alone = None
    if not course.loaded.own_head:
        say("first with the encoder held fixed: what the new head learns by itself")
        freeze_all(course.network.model.base_model)
        head_alone = float(run_pretraining(course).end["mlm_loss"])
        course = prepare_run(base, sources, stage, cache_dir=cache_dir)
    started = time.perf_counter()
    outcome = run_pretraining(course)
    return _facts(base, course, outcome, head_alone, time.perf_counter() - started)


def _facts(
    base: str | Path, course: PretrainingRun, outcome: PretrainingResult, head_alone: float | None, seconds: float
) -> dict[str, Any]:
    domain, general = course.facts, _general_facts(base, course.stage)
    before = outcome.start["mlm_loss"] if head_alone is None else head_alone
    trained = sum(entry["seconds"] for entry in outcome.history)
    rate = _tokens_read(course) / trained
    facts = {
        "pieces_per_word": _both(domain, general, "tokens", "words"),
        "unknown_share": _both(domain, general, "unknown_tokens", "tokens"),
        "start": outcome.start,
        "end": outcome.end,
        "head_alone": head_alone,
        "gain": before - outcome.end["mlm_loss"],
        "forgotten": outcome.end["general_mlm_loss"] - outcome.start["general_mlm_loss"],
        "steps": course.stream.steps,
        "tokens": domain["tokens"],
        "tokens_per_second": rate,
        "seconds": seconds,
        "hours_a_pass": domain["tokens"] / rate / 3600,
    }
    return facts | {"words": describe_pilot(facts)}


def _general_facts(base: str | Path, stage: PretrainingConfig) -> dict[str, int]:
    return read_shard(general_text(), corpus_tokenizer_of(load_mlm_tokenizer(base), stage.language))[1]


def _both(domain: dict[str, Any], general: dict[str, int], over: str, under: str) -> dict[str, float]:
    return {name: facts[over] / max(1, facts[under]) for name, facts in (("domain", domain), ("general", general))}


def _tokens_read(course: PretrainingRun) -> int:
    """Tokens of all steps of the pilot, special ones included."""
    steps = course.stream.plan(0, course.stream.steps)
    return sum(int(course.stream.batch(step, course.masking).encoded.lengths.sum()) for step in steps)


def _moved(nats: float) -> str:
    return f"{'up' if nats > 0 else 'down'} by {abs(nats):.3f}"


def describe_pilot(facts: dict[str, Any]) -> list[str]:
    """The pilot in words."""
    pieces, gain, forgotten = facts["pieces_per_word"], facts["gain"], facts["forgotten"]
    foreign = pieces["domain"] / pieces["general"]
    words = [
        f"The base cuts a word of this text into {pieces['domain']:.2f} pieces ({pieces['general']:.2f} in general "
        "text): "
        + ("its words are foreign to the base." if foreign > 1.15 else "its words are mostly known to the base.")
    ]
    moved = f"{facts['steps']:,} steps took the held-out loss {_moved(-gain)} nats"
    if facts["head_alone"] is not None:
        moved += " beyond what a new head learns alone"
    words.append(f"{moved}, and the loss on general text {_moved(forgotten)}.")
    cost = f"One pass over all {facts['tokens']:,} tokens takes about {format_duration(facts['hours_a_pass'] * 3600)} here."
    if gain < FEW_TOKENS:
        words.append(f"Hardly worth it: the text teaches this base next to nothing at this rate. {cost}")
    elif forgotten > gain and facts["head_alone"] is None:
        words.append(f"It forgets more than it learns: try a lower --learning-rate first. {cost}")
    else:
        words.append(f"Worth a try, and let the task decide: train with it and without. {cost}")
    return words
