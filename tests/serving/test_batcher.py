"""The queue: the scores of each text, who is served first, what is bounded, and what is left out."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.classifier.model import Answers
from fullbake.models.encoding import Encoded
from fullbake.serving import batcher as batcher_module
from fullbake.serving.batcher import Batcher, request_deadline
from fullbake.serving.refusals import Refusal
from fullbake.serving.scorer import Prepared


class Clock:
    """The queue's time, which only rounds let pass: what is measured does not depend on the machine."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


CLOCK = Clock()


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batcher_module, "time", CLOCK)
        yield


class FakeScorer:
    """Gives each text its cost and its length as logits, takes `seconds` of CLOCK, and remembers the rounds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.rounds = seconds, []

    def answers(self, parts: Sequence[tuple[Prepared, Any]]) -> Answers:
        CLOCK.now += self.seconds
        self.rounds.append([part.texts[place] for part, places in parts for place in places])
        rows = [[part.costs[place], len(part.texts[place])] for part, places in parts for place in places]
        return Answers(np.array(rows, np.float32), None)


def prepared(costs: Sequence[int], name: str = "a") -> Prepared:
    empty = Encoded(np.empty(0, np.int32), np.zeros(1, np.int64))
    return Prepared([f"{name}{number}" for number in range(len(costs))], empty, np.array(costs, np.int64))


def queue(scorer: Any, **fields: Any) -> Batcher:
    return Batcher(scorer, **{"most_tokens": 100_000, "rate": 1.0, "timeout": 1e9, **fields})


@given(st.lists(st.lists(st.integers(1, 700), min_size=1, max_size=30), min_size=1, max_size=8))
def test_each_request_gets_the_logits_of_its_texts(requests: list[list[int]]) -> None:
    async def run() -> tuple[list[Answers], Batcher]:
        batcher = queue(FakeScorer(), most_tokens=10**9, timeout=1e12)
        return await asyncio.gather(*(batcher.answers(prepared(costs)) for costs in requests)), batcher

    found, batcher = asyncio.run(run())
    for answers, costs in zip(found, requests, strict=True):
        assert answers.logits[:, 0].tolist() == costs
    assert (batcher.waiting_tokens, batcher.waiting_requests) == (0, 0)


def test_short_request_waits_for_one_round_of_a_long_one() -> None:
    async def run(scorer: FakeScorer) -> None:
        first = asyncio.Event()
        batcher = queue(scorer, on_round=lambda _: first.set())
        long = asyncio.create_task(batcher.answers(prepared([400] * 20, "long")))
        await first.wait()
        await batcher.answers(prepared([10], "short"))
        assert not long.done()
        await long

    scorer = FakeScorer(0.02)
    asyncio.run(run(scorer))
    (place,) = [number for number, texts in enumerate(scorer.rounds) if "short0" in texts]
    assert place == 2  # one round was computed, and one had begun
    assert len(scorer.rounds) > 10


def test_long_request_is_not_starved_by_short_ones() -> None:
    async def run(scorer: FakeScorer) -> int:
        batcher, done = queue(scorer), 0
        long = asyncio.create_task(batcher.answers(prepared([300] * 10, "long")))

        async def client() -> None:
            nonlocal done
            while not long.done():
                await batcher.answers(prepared([200], "short"))
                done += 1

        await asyncio.gather(*(client() for _ in range(4)))
        return done

    assert asyncio.run(run(FakeScorer(0.001))) < 100  # in fair turns 4 clients x 3,000 / 200 tokens = 60


def test_full_queue_refuses_with_the_time_to_wait() -> None:
    async def run() -> Refusal:
        batcher = queue(FakeScorer(0.01), most_tokens=1_000, rate=100.0)
        first = asyncio.create_task(batcher.answers(prepared([900])))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await batcher.answers(prepared([200]))
        await first
        return refused.value

    refusal = asyncio.run(run())
    assert (refusal.status, refusal.kind) == (429, "overloaded")
    assert int(refusal.headers["retry-after"]) >= 1


def test_what_would_wait_longer_than_the_timeout_is_refused_at_once() -> None:
    async def run() -> None:
        batcher = queue(FakeScorer(0.01), rate=10.0, timeout=5.0)
        first = asyncio.create_task(batcher.answers(prepared([60])))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="The queue is full: 60 tokens"):
            await batcher.answers(prepared([1]))
        await first

    asyncio.run(run())


@pytest.mark.parametrize(("seconds", "refused"), [(1.0, True), (2.0, False)])
def test_request_is_refused_at_once_if_it_would_probably_miss_its_own_deadline(seconds: float, refused: bool) -> None:
    """10 tokens wait and it has 5: 1.5 seconds at 10 tokens a second."""

    async def ask(batcher: Batcher) -> Answers:
        request_deadline.set(CLOCK.now + seconds)
        return await batcher.answers(prepared([5]))

    async def run() -> None:
        batcher = queue(FakeScorer(0.01), rate=10.0)
        first = asyncio.create_task(batcher.answers(prepared([10])))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="The queue is full") if refused else contextlib.nullcontext():
            await asyncio.create_task(ask(batcher))
        await first

    asyncio.run(run())


def test_empty_queue_takes_a_request_of_which_it_expects_too_much() -> None:
    async def run() -> None:
        batcher = queue(FakeScorer(), rate=1.0, timeout=5.0)
        await batcher.answers(prepared([600]))
        assert batcher.rate > 100

    asyncio.run(run())


def test_request_larger_than_the_queue_is_too_large() -> None:
    async def run() -> None:
        with pytest.raises(Refusal) as refused:
            await queue(FakeScorer(), most_tokens=100).answers(prepared([60, 60]))
        assert refused.value.status == 413

    asyncio.run(run())


def test_cancelled_request_is_not_computed_any_more() -> None:
    async def run(scorer: FakeScorer) -> None:
        first = asyncio.Event()
        batcher = queue(scorer, on_round=lambda _: first.set())
        gone = asyncio.create_task(batcher.answers(prepared([400] * 10, "gone")))
        await first.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting_tokens == 0
        await batcher.answers(prepared([10], "other"))
        assert (batcher.waiting_tokens, batcher.waiting_requests) == (0, 0)

    scorer = FakeScorer(0.02)
    asyncio.run(run(scorer))
    assert (
        sum("gone" in text for texts in scorer.rounds for text in texts) == 2
    )  # of the round that was computed, and of the one that had begun


def test_failure_reaches_the_requests_of_its_round_and_no_others() -> None:
    class Broken(FakeScorer):
        def answers(self, parts: Sequence[tuple[Prepared, Any]]) -> Answers:
            if any(part.texts[0].startswith("bad") for part, _ in parts):
                raise ValueError("no memory")
            return super().answers(parts)

    async def run() -> None:
        batcher = queue(Broken())
        with pytest.raises(ValueError, match="no memory"):
            await batcher.answers(prepared([10], "bad"))
        assert (await batcher.answers(prepared([10]))).logits.shape == (1, 2)
        assert (batcher.waiting_tokens, batcher.waiting_requests) == (0, 0)

    asyncio.run(run())


def test_rate_follows_the_rounds_and_until_idle_waits_for_all() -> None:
    async def run() -> Batcher:
        batcher = queue(FakeScorer(0.01), rate=1.0)
        tasks = [asyncio.create_task(batcher.answers(prepared([500]))) for _ in range(3)]
        await asyncio.sleep(0)
        await batcher.until_idle()
        assert all(task.done() for task in tasks)
        return batcher

    assert asyncio.run(run()).rate > 1_000


def test_small_rounds_do_not_lower_the_rate_and_full_ones_do() -> None:
    async def run() -> list[float]:
        batcher = queue(FakeScorer(0.01), rate=100_000.0)
        rates = []
        for costs in ([20], [5_000], [5_000]):
            for _ in range(4):
                await batcher.answers(prepared(costs))
            rates.append(batcher.rate)
        batcher.scorer.seconds = 0.06
        for _ in range(20):
            await batcher.answers(prepared([5_000]))
        return [*rates, batcher.rate]

    light, full, faster, slower = asyncio.run(run())
    assert light == 100_000.0  # 20 tokens in 0.01 s are 2,000 a second
    assert 100_000.0 < full < faster < 500_000.0
    assert slower < 120_000.0


def test_queue_goes_on_after_a_round_that_cannot_be_counted_or_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    class Short(FakeScorer):
        def answers(self, parts: Sequence[tuple[Prepared, Any]]) -> Answers:
            found = super().answers(parts)
            return Answers(found.logits[:0], None) if parts[0][0].texts[0] == "short0" else found

    async def run() -> None:
        batcher = queue(Short(), on_round=lambda _: 1 / 0)
        assert (await batcher.answers(prepared([10]))).logits.shape == (1, 2)
        with pytest.raises(ValueError, match="shape"):
            await batcher.answers(prepared([10, 20], "short"))
        assert (await batcher.answers(prepared([10]))).logits.shape == (1, 2)
        assert (batcher.waiting_tokens, batcher.waiting_requests) == (0, 0)

    asyncio.run(run())
    assert caplog.text.count("could not be counted") == 2
