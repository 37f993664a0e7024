"""Models by name, bounds of a request, and a bundle that is loaded anew under load."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fullbake import Classifier
from fullbake.core.errors import BundleError, RecipeError
from fullbake.serving.limits import Limits
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import ModelSource, Service, describe_model

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = [f"the cook and the bank {'play ' * number}" for number in range(20)]


def test_scores_under_many_requests_are_those_of_the_library(served):
    async def run() -> list[np.ndarray]:
        service = Service([served()])
        await service.start()
        work = [service.score(service.model(), TEXTS[number:]) for number in range(len(TEXTS))]
        return [scored.probabilities for scored in await asyncio.gather(*work)]

    wanted = served().load().predict_proba(TEXTS)
    for number, found in enumerate(asyncio.run(run())):
        np.testing.assert_allclose(found, wanted[number:], atol=1e-5)


def test_model_is_found_by_name_and_the_first_one_without(served):
    async def run() -> None:
        service = Service([served(name="a"), served(name="b")])
        with pytest.raises(Refusal, match="starting"):
            service.model("a")
        await service.start()
        assert (service.model().name, service.model("b").name) == ("a", "b")
        with pytest.raises(Refusal) as refused:
            service.model("bb")
        assert refused.value.status == 404
        assert "'a', 'b'" in refused.value.message
        assert "Did you mean" in refused.value.message

    asyncio.run(run())


def test_each_model_has_limits_of_its_own(served):
    async def run() -> None:
        small = Limits(texts=2, queue_tokens=50, timeout=7.0)
        service = Service([served(name="a"), replace(served(name="b"), limits=small)])
        await service.start()
        a, b = service.model("a"), service.model("b")
        await service.score(a, ["a"] * 3)
        for texts, said in ((["a"] * 3, "at most 2 are taken"), (["food " * 60] * 2, "at most 50 are taken")):
            with pytest.raises(Refusal, match=said):
                await service.score(b, texts)
        assert (a.batcher.timeout, b.batcher.timeout) == (30.0, 7.0)
        assert (await service.reload("b")).limits == small
        assert describe_model(b)["limits"]["texts"] == 2

    asyncio.run(run())


def test_two_models_of_one_name_are_refused(served):
    with pytest.raises(RecipeError, match="two bundles have the name 'a'"):
        Service([served(name="a"), served(name="a")])


@pytest.mark.parametrize(
    ("texts", "pair", "status", "words"),
    [
        ([], None, 422, "no text"),
        (["a"] * 5, None, 413, "5 texts, and at most 4"),
        (["a" * 101], None, 413, "101 characters, and at most 100"),
        (["a"], ["b"], 422, "classifies single texts, not pairs"),
        (["\ud800"], None, 422, "surrogate"),
    ],
)
def test_requests_beyond_the_limits_are_refused(served, texts, pair, status: int, words: str):
    async def run() -> None:
        service = Service([served()], Limits(texts=4, characters=100))
        await service.start()
        with pytest.raises(Refusal, match=words) as refused:
            await service.score(service.model(), texts, pair)
        assert refused.value.status == status

    asyncio.run(run())


def test_reload_switches_and_finishes_what_the_old_model_accepted(tmp_path: Path):
    folder = Path(shutil.copytree(FIXTURES / "bundle_0_1_0", tmp_path / "bundle"))

    async def run() -> tuple[np.ndarray, list[str], list[str]]:
        service = Service([ModelSource("m", folder)])
        await service.start()
        before = service.model()
        accepted = asyncio.create_task(service.score(before, TEXTS))
        await asyncio.sleep(0)
        shutil.rmtree(folder)
        shutil.copytree(FIXTURES / "bundle_0_1_0_multilabel", folder)
        await service.reload("m")
        after = await service.score(service.model(), TEXTS[:1])
        late = await service.score(before, TEXTS[:1])  # it was accepted before the switch, and tokenized after it
        assert late.logits.shape[1] == len(before.classifier.label_names)
        (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(Refusal, match="stays as it is"):
            await service.reload("m")
        assert service.ready
        return (await accepted).logits, list(after.classifier.label_names), list(service.model().classifier.label_names)

    logits, after, now = asyncio.run(run())
    np.testing.assert_allclose(logits, Classifier.load(FIXTURES / "bundle_0_1_0").logits(TEXTS), atol=1e-5)
    assert after == now == list(Classifier.load(FIXTURES / "bundle_0_1_0_multilabel").label_names)


def test_bundle_that_cannot_be_loaded_is_an_error_at_the_start(tmp_path: Path):
    with pytest.raises(BundleError):
        asyncio.run(Service([ModelSource("m", tmp_path)]).start())


def test_description_tells_no_path(served, tmp_path: Path):
    async def run() -> str:
        service = Service([replace(served(), folder=FIXTURES / "bundle_0_1_0")])
        await service.start()
        return str(describe_model(service.model()))

    words = asyncio.run(run())
    assert "food" in words
    assert str(FIXTURES) not in words
    assert "bases/" not in words
