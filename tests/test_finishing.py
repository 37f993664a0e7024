from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bases import FAMILIES

from fullbake.config.problems import SINGLE_LABEL
from fullbake.config.sections import DecisionConfig, HeadConfig, TokensConfig
from fullbake.evaluation.calibration import aim_of, judged
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.models import network
from fullbake.models.heads import divide_logits
from fullbake.models.inference import encode, logits_over
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.selection import Trained, finish

Bases = Callable[..., Path]
TOKENS = TokensConfig(max_length=24)
TEXTS = ["a good game", "the bank of the water", "never think of the market price"]


def scored(model: Any, base: Path) -> np.ndarray:
    tokenizer = load_tokenizer(base)
    return logits_over(model, encode(TEXTS, tokenizer, TOKENS), tokens=TOKENS, pad_id=tokenizer.pad_token_id)


@pytest.mark.parametrize("head", ["standard", "linear", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_temperature_goes_into_the_weights_of_every_family(bases: Bases, family: str, head: str) -> None:
    base = bases(family)
    model = network.build(base, HeadConfig(kind=head), ("a", "b", "c"), seed=0)  # type: ignore[arg-type]
    before = scored(model, base)
    divide_logits(model, 2.5)
    np.testing.assert_allclose(scored(model, base), before / 2.5, atol=1e-6)


def test_scores_that_are_too_sure_are_calmed_and_the_network_with_them(bases: Bases) -> None:
    base = bases("bert")
    model = network.build(base, HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    before = scored(model, base)
    random = np.random.default_rng(0)
    honest = random.normal(size=(2000, 2)).astype(np.float32)
    labels = (random.random(2000) < probabilities(honest, SINGLE_LABEL)[:, 1]).astype(np.int64)
    done = finish(Trained(model, [], honest * 3, 0.0), labels, ("no", "yes"), DecisionConfig(thresholds="f1"))
    temperature = done.calibration["temperature"]
    assert temperature == pytest.approx(3, rel=0.15)
    assert done.calibration["after"]["ece"] < done.calibration["before"]["ece"]
    np.testing.assert_allclose(scored(model, base), before / temperature, atol=1e-6)
    np.testing.assert_allclose(done.logits, honest * 3 / temperature, rtol=1e-5)
    assert done.decision.positive == 1
    (entry,) = done.thresholds
    scores = judged(labels, done.logits, done.decision)
    assert scores["per_class"][1]["f1"]["value"] == pytest.approx(entry["f1"])
    assert scores["calibration"] == done.calibration["after"]


def test_calibration_can_be_left_out(bases: Bases) -> None:
    base = bases("bert")
    model = network.build(base, HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    before = scored(model, base)
    logits = np.array([[1, 0], [0, 1]], dtype=np.float32)
    done = finish(Trained(model, [], logits, 0.0), np.array([0, 1]), ("no", "yes"), DecisionConfig(calibrate=False))
    assert done.calibration["temperature"] == 1
    assert np.array_equal(scored(model, base), before)
    assert done.decision == Decision(SINGLE_LABEL, ("no", "yes"))


def test_a_floor_that_nothing_reaches_is_warned_of(bases: Bases, caplog: pytest.LogCaptureFixture) -> None:
    model = network.build(bases("bert"), HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    logits = np.array([[0, 3], [0, 2], [0, 1]], dtype=np.float32)
    config = DecisionConfig(at_precision=0.9)
    finish(Trained(model, [], logits, 0.0), np.array([0, 1, 0]), ("no", "yes"), config)
    assert any("'yes' does not reach" in message for message in caplog.messages)


def test_what_auto_means() -> None:
    assert aim_of(DecisionConfig(), multi_label=True).thresholds == "f1"
    assert aim_of(DecisionConfig(), multi_label=False).plain
    assert aim_of(DecisionConfig(at_recall=0.9), multi_label=True).thresholds == "default"
    assert aim_of(DecisionConfig(thresholds="default"), multi_label=True).plain
