"""Which words mattered, computed through the queue: each text without a word is a text of a request like any other.

`classifier.explanation` asks a predictor for logits, in a thread. Here that predictor hands the rows to the queue and
waits, so an explanation shares rounds with other requests, delays none of them by more than its share, and is refused
where the queue has no room.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.explanation import Explanation, explain_text
from fullbake.classifier.model import Answers, Classifier
from fullbake.classifier.occlusion import OcclusionScorer
from fullbake.config.sections import TokensConfig
from fullbake.models.encoding import Encoded
from fullbake.models.prediction import Predictor, padded_lengths
from fullbake.serving.refusals import overloaded, too_large
from fullbake.serving.scorer import Prepared
from fullbake.serving.service import ServedModel, Service

AT_ONCE: Final = 4
"""Explanations that are computed at the same time; each holds a thread and some hundred rows."""


@dataclass(frozen=True, eq=False)
class Explained:
    """An explanation, and what it cost."""

    explanation: Explanation
    tokens: int
    seconds: float


@dataclass(eq=False)
class Explainer:
    """Explains texts for a service.

    Args:
        service: The models.
    """

    service: Service
    running: int = 0
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "explain"))

    async def explain(
        self,
        model: ServedModel,
        text: str,
        text_pair: str | None = None,
        *,
        labels: Sequence[str] | None = None,
        most_words: int,
    ) -> Explained:
        """Show which words the answer to a text rests on.

        Args:
            model: By whom.
            text: The text.
            text_pair: The second text, for a classifier of pairs.
            labels: The labels to explain; None for those that are given.
            most_words: How many words are left out at most, one after another.

        Raises:
            Refusal: The text is of the wrong kind or too long, or there is no room.
            RecipeError: There is no such label.
        """
        most = model.limits.explained_characters
        if max(len(text), len(text_pair or "")) > most:
            raise too_large(f"Texts of at most {most:,} characters are explained.")
        if self.running >= AT_ONCE:
            raise overloaded(f"{self.running} explanations are being computed, and no more are taken at once.", 1.0)
        self.running += 1
        started = time.perf_counter()
        try:
            pairs = None if text_pair is None else [text_pair]
            scored = await self.service.score(model, [text], pairs)
            answered_by = None if scored.answered_by is None else str(scored.answered_by[0])
            own, predictor = _queued(model, answered_by)
            work = asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: explain_text(
                    OcclusionScorer(cast(Predictor, predictor), own.tokenizer, own.tokens, own.problem),
                    scored.classifier.decision,
                    [text, *(pairs or [])],
                    labels=labels,
                    max_parts=most_words,
                    answered_by=answered_by,
                ),
            )
            try:
                found = await asyncio.shield(work)
            except asyncio.CancelledError:
                predictor.stop()
                await asyncio.wait((work,))  # the thread ends at its next call, and its error is of no interest
                if not work.cancelled():
                    work.exception()
                raise
        finally:
            self.running -= 1
        return Explained(found, predictor.tokens, time.perf_counter() - started)


def _queued(model: ServedModel, answered_by: str | None) -> tuple[Classifier, "QueuedPredictor"]:
    """Return the classifier whose scores are explained, in a cascade the one that answered, and its predictor."""
    whole = model.classifier
    if whole.first is None:
        return whole, QueuedPredictor(model, None, asyncio.get_running_loop())
    own = whole.first.student if answered_by == "student" else whole
    return own, QueuedPredictor(model, own, asyncio.get_running_loop())


@dataclass(eq=False)
class QueuedPredictor:
    """A predictor that hands rows to the queue. Its calls come from a thread that is not the event loop's."""

    model: ServedModel
    member: Classifier | None
    """The classifier of a cascade that computes."""

    loop: asyncio.AbstractEventLoop
    tokens: int = 0
    """Tokens that were computed."""

    _waiting: "Future[Answers] | None" = None
    _stopped: bool = False

    @property
    def engine(self) -> str:
        """What computes."""
        return self.model.classifier.engine

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "explaining") -> NDArray[np.float32]:  # noqa: ARG002
        """Compute the logits of rows, (rows, classes); arguments as for `Predictor.logits`."""
        if self._stopped:
            raise CancelledError
        if tokens.truncation == "windows":  # all texts of a round have windows, or none
            encoded = replace(encoded, documents=np.arange(len(encoded)))
        costs = padded_lengths(encoded, tokens).astype(np.int64)
        prepared = Prepared([""] * len(encoded), encoded, costs, member=self.member)
        self.tokens += int(costs.sum())
        self._waiting = asyncio.run_coroutine_threadsafe(self.model.batcher.answers(prepared), self.loop)
        if self._stopped:
            self._waiting.cancel()
        found: NDArray[np.float32] = self._waiting.result().logits
        return found

    def stop(self) -> None:
        """Take its rows out of the queue, and end its thread."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
