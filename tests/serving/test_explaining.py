"""Explanations through the queue are those of the library, whoever else asks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from helpers.running_server import cascade_of, of_pairs

from fullbake import Classifier
from fullbake.classifier.explanation import Explanation
from fullbake.serving.explaining import AT_ONCE, Explained, Explainer
from fullbake.serving.limits import Limits
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import ModelSource, ServedModel, Service

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXT = "we think the bank card price is very old food and a good game " * 3
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(FIXTURES / "bundle_0_1_0")


def served(
    classifier: Classifier,
    work: Callable[[Explainer, ServedModel], Awaitable[Result]],
    limits: Limits | None = None,
) -> Result:
    """Do something with the explainer of a service of one model."""

    class Source(ModelSource):
        def load(self) -> Classifier:
            return classifier

    async def run() -> Result:
        service = Service([Source("m", Path("m"))], limits or Limits())
        await service.start()
        return await work(Explainer(service), service.model())

    return asyncio.run(run())


def explain(classifier: Classifier, *texts: str, most_words: int = 100, **options: Any) -> Explanation:
    async def work(explainer: Explainer, model: ServedModel) -> Explanation:
        found = await explainer.explain(model, *texts, most_words=most_words, **options)
        assert found.tokens > 0
        return found.explanation

    return served(classifier, work)


def same(found: Explanation, expected: Explanation) -> bool:
    assert found.to_json().keys() == expected.to_json().keys()
    assert (found.predicted, found.labels, found.answered_by) == (
        expected.predicted,
        expected.labels,
        expected.answered_by,
    )
    assert np.array_equal(found.occlusion.parts, expected.occlusion.parts)
    return np.allclose(found.occlusion.effects, expected.occlusion.effects, atol=1e-5)


def test_effects_are_those_of_the_library(classifier: Classifier) -> None:
    assert same(explain(classifier, TEXT), classifier.explain(TEXT))
    few = explain(classifier, TEXT, most_words=6, labels=["money", "food"])
    assert same(few, classifier.explain(TEXT, max_parts=6, labels=["money", "food"]))


def test_windows_pairs_and_cascades_are_explained(classifier: Classifier) -> None:
    windows = classifier.with_first(None)
    windows.tokens = classifier.tokens.model_copy(update={"truncation": "windows", "stride": 8})
    found = explain(windows, TEXT)
    assert found.occlusion.windows > 1
    assert same(found, windows.explain(TEXT))
    pairs = of_pairs(classifier, "a", "b")
    assert same(explain(pairs, "old game", "bank card"), pairs.explain("old game", "bank card"))
    for margin, who in ((0.0, "student"), (None, "teacher")):
        cascade = cascade_of(classifier, classifier, margin)
        found = explain(cascade, TEXT)
        assert found.answered_by == who
        assert same(found, cascade.explain(TEXT))


def test_an_explanation_delays_no_other_request(classifier: Classifier) -> None:
    """A short request that comes while a long text is explained is answered before the explanation is complete."""

    async def work(explainer: Explainer, model: ServedModel) -> list[str]:
        model.batcher.rate = 1_000.0  # rounds of 512 tokens
        order = []

        async def explained() -> None:
            await explainer.explain(model, TEXT, most_words=100)
            order.append("explanation")

        async def scored() -> None:
            while model.batcher.waiting_tokens < 500:
                await asyncio.sleep(0)
            await explainer.service.score(model, ["game"])
            order.append("score")

        await asyncio.gather(explained(), scored())
        return order

    assert served(classifier, work) == ["score", "explanation"]


def test_a_cancelled_explanation_leaves_the_queue(classifier: Classifier) -> None:
    async def work(explainer: Explainer, model: ServedModel) -> tuple[int, int, int]:
        task = asyncio.ensure_future(explainer.explain(model, TEXT, most_words=100))
        while model.batcher.waiting_tokens < 500:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return explainer.running, model.batcher.waiting_tokens, model.batcher.waiting_requests

    assert served(classifier, work) == (0, 0, 0)


def test_what_is_too_much_is_refused(classifier: Classifier) -> None:
    async def refused(explainer: Explainer, model: ServedModel) -> int:
        with pytest.raises(Refusal) as caught:
            await explainer.explain(model, TEXT, most_words=100)
        assert explainer.running == 0
        return caught.value.status

    assert served(classifier, refused, replace(Limits(), explained_characters=10)) == 413
    assert served(classifier, refused, replace(Limits(), queue_tokens=100)) == 413


def test_only_a_few_explanations_are_computed_at_once(classifier: Classifier) -> None:
    async def work(explainer: Explainer, model: ServedModel) -> list[Any]:
        asked = (explainer.explain(model, TEXT, most_words=4) for _ in range(AT_ONCE + 2))
        return await asyncio.gather(*asked, return_exceptions=True)

    found = served(classifier, work)
    refusals = [one for one in found if isinstance(one, Refusal)]
    assert [one.status for one in refusals] == [429, 429]
    assert len([one for one in found if isinstance(one, Explained)]) == AT_ONCE
