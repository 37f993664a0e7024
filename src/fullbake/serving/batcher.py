"""The queue: texts of many requests, computed together, long and short ones fairly.

Requests are put in order by start-time fair queueing (Goyal, Vin, Cheng 1996): each text gets a tag, the tokens that
its request has asked for so far, counted from the tag that was served when the request came. The lowest tag is computed
next. So a short request that comes while a long one is computed waits for the round that runs, not for the long
request; and the long one never waits for more than its share.

A round is computed in one thread and takes about ROUND_SECONDS; the event loop stays free. Which texts share a round
does not change their scores.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.model import Answers
from fullbake.serving.refusals import overloaded, too_large
from fullbake.serving.scorer import Prepared, TextScorer

ROUND_SECONDS: Final = 0.05
"""About how long a round takes. Longer ones fill batches better; shorter ones let short requests in sooner."""

_LEAST_ROUND: Final = 512
"""Fewest tokens of a round that is full."""

_FIRST_RATE: Final = 20_000.0
"""Tokens a second before any was measured."""

_SMOOTHING: Final = 0.2
"""Weight of the newest round in the measured rate."""

_SAFE_SHARE: Final = 0.8
"""The share of a request's time within which it must be expected to be answered, or it is refused. The rate changes
from round to round; with all of the time, about half of what is accepted at the limit would come too late."""

request_deadline: ContextVar[float | None] = ContextVar("request_deadline", default=None)
"""When the request that is worked on must be answered, in seconds of time.monotonic; None means within `timeout`."""

_log = logging.getLogger("fullbake.serving")


@dataclass(eq=False)
class _Waiting:
    """A request in the queue."""

    prepared: Prepared
    future: "asyncio.Future[Answers]"
    tag: float
    """The tag of its next text."""

    next: int = 0
    """The place of its next text."""

    computed: int = 0
    logits: NDArray[np.float32] | None = None
    answered_by: NDArray[np.object_] | None = None

    waiting_tokens: int = 0
    """Tokens of its texts that wait or are being computed."""


@dataclass(frozen=True)
class RoundFacts:
    """What was computed in a round."""

    texts: int
    tokens: int
    requests: int
    seconds: float


@dataclass(eq=False)
class Batcher:
    """The queue before one classifier, and the thread that computes.

    Args:
        scorer: The classifier.
        most_tokens: Most tokens that wait.
        timeout: Seconds in which requests are answered at the latest, where `request_deadline` says nothing else. What
            would probably take longer is refused at once.
        on_round: Called after each round.
    """

    scorer: TextScorer
    most_tokens: int
    timeout: float = 30.0
    on_round: Callable[[RoundFacts], object] = lambda _: None
    rate: float = _FIRST_RATE
    """Tokens a second of full rounds, as measured. A small round takes nearly as long as one of twice its tokens, so it
    lowers the rate only if it took as long as a full one."""

    waiting_tokens: int = 0
    """Tokens that wait or are being computed."""

    waiting_requests: int = 0
    _heap: list[tuple[float, int, _Waiting]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _served: float = 0.0
    """The tag that was served last."""

    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "compute"))

    async def until_idle(self) -> None:
        """Wait until all that was accepted is computed. A queue needs no other end: without work it has no task."""
        while self.waiting_requests:
            self._idle.clear()
            await self._idle.wait()

    async def answers(self, prepared: Prepared) -> Answers:
        """Compute the logits of a request's texts. When the caller is cancelled its texts leave the queue.

        Args:
            prepared: The texts, as `TextScorer.prepare` gives them.

        Raises:
            Refusal: The queue has no room (429), or never has room for so many tokens (413).
        """
        cost = int(prepared.costs.sum())
        self._admit(cost)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(prepared, loop.create_future(), self._served, waiting_tokens=cost)
        self.waiting_tokens += cost
        self.waiting_requests += 1
        heapq.heappush(self._heap, (waiting.tag, next(self._order), waiting))
        if self._task is None:
            self._task = loop.create_task(self._run())
        try:
            return await waiting.future
        finally:
            self.waiting_tokens -= waiting.waiting_tokens
            waiting.waiting_tokens = 0
            self.waiting_requests -= 1
            if not self.waiting_requests:
                self._idle.set()

    def _admit(self, cost: int) -> None:
        if cost > self.most_tokens:
            raise too_large(
                f"The texts have {cost:,} tokens, and at most {self.most_tokens:,} are taken at once. "
                "Send them in several requests."
            )
        expected, time_left = (self.waiting_tokens + cost) / self.rate, self._time_left()
        # with an empty queue nothing is refused for its time: a rate that was measured too low would never be corrected
        late = self.waiting_tokens > 0 and expected > _SAFE_SHARE * time_left
        if late or self.waiting_tokens + cost > self.most_tokens:
            raise overloaded(
                f"The queue is full: {self.waiting_tokens:,} tokens wait. Try again later.",
                max(expected - _SAFE_SHARE * time_left, (self.waiting_tokens + cost - self.most_tokens) / self.rate),
            )

    def _time_left(self) -> float:
        """Return the seconds in which the request that is worked on must be answered."""
        deadline = request_deadline.get()
        return self.timeout if deadline is None else deadline - time.monotonic()

    async def _run(self) -> None:
        """Compute rounds until nothing waits. A round that fails is an error for its requests, and for no others."""
        try:
            while parts := self._next_round():
                try:
                    facts = await self._compute(parts)
                except Exception as error:  # whatever it is, the requests of this round must hear of it
                    for waiting, _ in parts:
                        if not waiting.future.done():
                            waiting.future.set_exception(error)
                    continue
                self._note(facts)
        finally:
            self._task = None

    async def _compute(self, parts: Sequence[tuple[_Waiting, NDArray[np.int64]]]) -> RoundFacts:
        """Compute a round and hand out what was found."""
        started = time.perf_counter()
        wanted = [(waiting.prepared, places) for waiting, places in parts]
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self.scorer.answers, wanted)
        return self._hand_out(parts, found, time.perf_counter() - started)

    def _note(self, facts: RoundFacts) -> None:
        """Learn the rate from a round, and tell of it."""
        rate, full = facts.tokens / max(facts.seconds, 1e-6), self._round_tokens()
        if rate > self.rate or facts.tokens >= full / 2 or facts.seconds >= full / self.rate:
            self.rate += _SMOOTHING * (rate - self.rate)
        try:
            self.on_round(facts)
        except Exception:  # what counts rounds must not stop them
            _log.exception("a round could not be counted")

    def _round_tokens(self) -> int:
        """Return the tokens of a round that is full."""
        return max(_LEAST_ROUND, round(self.rate * ROUND_SECONDS))

    def _next_round(self) -> list[tuple[_Waiting, NDArray[np.int64]]]:
        """Take the texts with the lowest tags, until a round is full. Requests that are cancelled are left out.

        A round ends before a request of another kind (`Prepared.kind`).
        """
        room = self._round_tokens()
        taken: dict[int, tuple[_Waiting, list[int]]] = {}
        kind: object = None
        while self._heap and room > 0:
            tag, order, waiting = self._heap[0]
            if waiting.future.done():
                heapq.heappop(self._heap)
                continue
            cost = int(waiting.prepared.costs[waiting.next])
            if taken and (cost > room or waiting.prepared.kind != kind):
                break
            kind = waiting.prepared.kind
            taken.setdefault(id(waiting), (waiting, []))[1].append(waiting.next)
            room -= cost
            self._served = max(self._served, tag)
            waiting.next, waiting.tag = waiting.next + 1, tag + cost
            if waiting.next < len(waiting.prepared):
                heapq.heapreplace(self._heap, (waiting.tag, order, waiting))
            else:
                heapq.heappop(self._heap)
        return [(waiting, np.array(places, np.int64)) for waiting, places in taken.values()]

    def _hand_out(
        self, parts: Sequence[tuple[_Waiting, NDArray[np.int64]]], found: Answers, seconds: float
    ) -> RoundFacts:
        """Give each request its logits, and complete those that have all."""
        start, tokens = 0, 0
        for waiting, places in parts:
            end, cost = start + len(places), int(waiting.prepared.costs[places].sum())
            logits = found.logits[start:end]
            answered_by = None if found.answered_by is None else found.answered_by[start:end]
            start, tokens = end, tokens + cost
            if waiting.future.done():
                continue
            self.waiting_tokens -= cost
            waiting.waiting_tokens -= cost
            if waiting.logits is None:
                waiting.logits = np.empty((len(waiting.prepared), logits.shape[1]), np.float32)
                waiting.answered_by = None if answered_by is None else np.empty(len(waiting.prepared), np.object_)
            waiting.logits[places] = logits
            if waiting.answered_by is not None and answered_by is not None:
                waiting.answered_by[places] = answered_by
            waiting.computed += len(places)
            if waiting.computed == len(waiting.prepared):
                waiting.future.set_result(Answers(waiting.logits, waiting.answered_by))
        return RoundFacts(start, tokens, len(parts), seconds)
