"""The teacher's pass: logits and mean states equal a plain computation, and a killed pass continues."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.rows import make_rows, train

from fullbake.core import stopping
from fullbake.core.cache import Cache
from fullbake.core.errors import Interrupted
from fullbake.models.prediction import encode
from fullbake.training import teacher_outputs as module
from fullbake.training.teacher_outputs import capture_states, network_fingerprint, teacher_outputs

TEXTS = [text for text, _ in make_rows(40, seed=3)]


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def teacher(request, bases, tmp_path_factory):
    head = {"bert": "frozen-linear", "distilbert": "finetune"}[request.param]
    return train(bases(request.param), tmp_path_factory.mktemp("teacher"), head)


def outputs(teacher, folder: Path):
    encoded = encode(TEXTS, teacher.tokenizer, teacher.tokens)
    return encoded, teacher_outputs(
        teacher.network,
        encoded,
        tokens=teacher.tokens,
        pad_id=teacher.tokenizer.pad_token_id,
        teacher=network_fingerprint(teacher.network),
        cache=Cache(folder, 10**9),
    )


def test_logits_are_the_classifiers_own(teacher, tmp_path):
    _, found = outputs(teacher, tmp_path)
    np.testing.assert_allclose(found.logits, teacher.logits(TEXTS), atol=1e-4)


def test_states_are_the_means_of_each_token(teacher, tmp_path):
    encoded, found = outputs(teacher, tmp_path)
    sums, counts = {}, {}
    with capture_states(teacher.network) as states, torch.no_grad():
        for row in range(len(encoded)):
            states.clear()
            ids = encoded.input_ids[encoded.offsets[row] : encoded.offsets[row + 1]].astype(np.int64)
            teacher.network(torch.from_numpy(ids)[None])
            for token, state in zip(ids.tolist(), states[0][0].numpy(), strict=True):
                sums[token] = sums.get(token, 0) + state
                counts[token] = counts.get(token, 0) + 1
    assert found.token_ids.tolist() == sorted(sums)
    assert found.token_counts.tolist() == [counts[token] for token in sorted(sums)]
    expected = np.stack([sums[token] / counts[token] for token in sorted(sums)])
    np.testing.assert_allclose(found.token_states, expected, atol=1e-4)


def test_second_pass_comes_from_the_cache(teacher, tmp_path, monkeypatch):
    _, first = outputs(teacher, tmp_path)
    monkeypatch.setattr(module._Pass, "run", None)
    _, second = outputs(teacher, tmp_path)
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(first.token_states, second.token_states)


def test_interrupted_pass_continues_with_the_same_bits(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCHES_BETWEEN_SAVES", 1)
    _, whole = outputs(teacher, tmp_path / "whole")
    check, batches = stopping.check, []

    def stop_after_two() -> None:
        batches.append(1)
        if len(batches) == 3:
            raise Interrupted(2, 0, None)
        check()

    monkeypatch.setattr(module.stopping, "check", stop_after_two)
    with pytest.raises(Interrupted):
        outputs(teacher, tmp_path / "cut")
    batches.clear()
    monkeypatch.setattr(module.stopping, "check", lambda: batches.append(1))
    encoded, resumed = outputs(teacher, tmp_path / "cut")
    plan = module._Pass(teacher.network, encoded, teacher.tokens, 0).plan
    assert len(batches) == len(plan) - 2
    np.testing.assert_array_equal(whole.logits, resumed.logits)
    np.testing.assert_array_equal(whole.token_states, resumed.token_states)


def test_fingerprint_changes_with_a_weight(teacher):
    before = network_fingerprint(teacher.network)
    weight = next(teacher.network.parameters())
    old = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1
    after = network_fingerprint(teacher.network)
    with torch.no_grad():
        weight.copy_(old)
    assert before != after
    assert network_fingerprint(teacher.network) == before
