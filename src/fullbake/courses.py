"""A further pretraining before its first step: everything read, counted and checked, so that what cannot work is told
before any hour is spent.

A course is a pure function of base, corpus and stage; `pretraining` runs it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from transformers import PreTrainedTokenizerFast

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core import runtime
from fullbake.core.cache import Cache
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError, RecipeError
from fullbake.corpus import Corpus, build_corpus, hold_out
from fullbake.documents import Source
from fullbake.gauges import Gauge, draw_gauge, plain, read_gauge
from fullbake.guarding import Guard
from fullbake.masking import Masking
from fullbake.models.masked_lm import LanguageModel, Loaded, load_language_model, new_language_model
from fullbake.models.pretrained import load_config, max_positions
from fullbake.models.tokenizer import tokenizer_of
from fullbake.probing import Probe, draw_general, masking_of, open_probe, phase_of, reading_of
from fullbake.stream import Order, Stream, pair_facts

CACHE_BYTES: Final = 50 * 1024**3
"""Bound of the cache of corpora: 50 GiB hold some 8 billion tokens."""

DEFAULT_EPOCHS: Final = 3
DEFAULT_BATCH: Final = 32

TRIVIAL_SHARE: Final = 0.5
"""Of all documents: from here on, pairs are said to be too few or too easy."""

GAUGE_TOKENS: Final = 50_000
"""What an evaluation reads of held-out text, over all maskings."""


@dataclass(frozen=True, eq=False)
class Course:
    """A further pretraining that has been checked and can begin.

    loaded: the base under its heads. domain: held-out text of the corpus. general: general text under the network's own
    head; probe: what measures it in its place where the base came without one. facts: of the corpus and its pairs, JSON
    values.
    """

    base: str
    stage: PretrainingConfig
    loaded: Loaded
    tokenizer: PreTrainedTokenizerFast
    stream: Stream
    masking: Masking
    domain: Gauge
    general: Gauge
    probe: Probe | None
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
        domain = read_gauge(self.network, self.domain, self.stage.token_budget)
        if self.probe is None:
            general = read_gauge(self.network, self.general, self.stage.token_budget)
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


def prepare(
    base: str | Path,
    sources: Sequence[Source],
    stage: PretrainingConfig,
    *,
    guard: Guard | None = None,
    cache_dir: str | Path | None = None,
    processes: int | None = None,
) -> Course:
    """Build the corpus, load the base, and see that everything fits.

    base: with its tokenizer; its weights are not read under init `random`. guard: what must stay out of the corpus.
    Raises BaseModelError, DataError, RecipeError.
    """
    check_lengths(base, stage)
    tokenizer = tokenizer_of(base)
    cache = Cache(runtime.cache_dir(cache_dir) / "corpora", CACHE_BYTES)
    guard = guard or Guard(())
    corpus = build_corpus(
        [guard.over(source) for source in sources],
        reading_of(tokenizer, stage.language),
        cache,
        processes=processes,
    )
    _check_objective(corpus, stage)
    kept, held = hold_out(corpus, stage.held_out)
    stream = _stream(corpus, kept, tokenizer, stage)
    masking = masking_of(
        tokenizer,
        probability=stage.mask_probability,
        mask=stage.mask_share,
        random=stage.random_share,
        whole_words=stage.whole_words,
    )
    loaded = _load(base, stage)
    facts = corpus.facts | {"fingerprint": corpus.fingerprint, "held_out_tokens": _tokens(corpus, held)}
    return Course(
        str(base),
        stage,
        loaded,
        tokenizer,
        stream,
        masking,
        _domain(corpus, held, stream, tokenizer, stage),
        draw_general(base, stage.probe_text, stage.language),
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


def _load(base: str | Path, stage: PretrainingConfig) -> Loaded:
    pairs = stage.objective != "mlm"
    if stage.init == "random":
        loaded = new_language_model(load_config(base), pairs=pairs, seed=stage.seed)
    else:
        loaded = load_language_model(base, pairs=pairs, seed=stage.seed)
    loaded.network.to(runtime.device())
    return loaded


def _stream(corpus: Corpus, kept: Any, tokenizer: PreTrainedTokenizerFast, stage: PretrainingConfig) -> Stream:
    """The steps of all phases, counted out."""
    order = Order(
        stage.objective,
        (stage.batch_size or DEFAULT_BATCH) * stage.gradient_accumulation,
        None if stage.batch_tokens is None else stage.batch_tokens * stage.gradient_accumulation,
        stage.token_budget,
        stage.short_probability,
        stage.seed,
    )
    phases = [phase_of(tokenizer, 0, length) for length in stage.lengths]
    stream = Stream(corpus, kept, phases, order)
    shares = list(stage.lengths.values())
    if stage.steps is not None:
        ends = [round(stage.steps * share) for share in np.cumsum(shares)]
        counts = np.diff([0, *ends[:-1], stage.steps]).tolist()
    else:
        epochs = stage.epochs or DEFAULT_EPOCHS
        counts = [round(epochs * share * stream.steps_of_pass(phase)) for phase, share in enumerate(shares)]
    _check_steps(counts, stage)
    return Stream(corpus, kept, [replace(phase, steps=n) for phase, n in zip(phases, counts, strict=True)], order)


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
    corpus: Corpus, held: Any, stream: Stream, tokenizer: PreTrainedTokenizerFast, stage: PretrainingConfig
) -> Gauge:
    """Held-out text, masked as often as its size allows."""
    maskings = int(np.clip(GAUGE_TOKENS // max(1, _tokens(corpus, held)), 1, 4))
    parts = list(zip(corpus.shards, held, strict=True))
    masking = plain(masking_of(tokenizer))
    phase = stream.phases[0]
    return draw_gauge(parts, phase, stage.objective, masking, tokenizer.pad_token_id, maskings=maskings)


def _pair_facts(stream: Stream, stage: PretrainingConfig) -> dict[str, Any]:
    """How many pairs of each kind the first shards give, told; with a warning where they teach nothing."""
    facts = stream.corpus.facts
    single = facts["single_sentence_documents"] / facts["documents"]
    say(
        f"corpus: {facts['documents']:,} documents, {facts['sentences']:,} sentences, {facts['tokens']:,} tokens "
        f"({facts['unknown_tokens'] / facts['tokens']:.2%} unknown); {single:.0%} of the documents are one sentence"
    )
    if stage.objective == "mlm":
        return {}
    counts = pair_facts(stream.examples(0))
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
