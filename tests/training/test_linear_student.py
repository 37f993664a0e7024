"""The table that is fitted in one piece: its parts, its gradient, its optimum, and what it says of unseen tokens."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.sparse import csr_array
from scipy.special import softmax

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.core import stopping
from fullbake.core.errors import Interrupted
from fullbake.training.linear_student import (
    PENALTIES,
    TableTexts,
    TableWeights,
    TokenParts,
    _Objective,
    character_groups,
    fit_table,
    soft_target_losses,
)

WORDS = ["", " sun", " sunny", " sunrise", " snow", " snowy", " snowfall", " the", " of", "ing"]
TOKENS, PAIRS, CLASSES = len(WORDS), 5, 3


def made_texts(texts: int = 40, seed: int = 0) -> TableTexts:
    """Return texts of 1 to 6 of the tokens; the last token is in none of them."""
    random = np.random.default_rng(seed)
    counts = np.zeros((texts, TOKENS + PAIRS), np.float32)
    for row in counts:
        length = random.integers(1, 7)
        for token in random.integers(1, TOKENS - 1, length):
            row[token] += 1
            row[TOKENS + token % PAIRS] += 1
        row /= length
    return TableTexts(csr_array(counts), random.dirichlet(np.ones(CLASSES), texts).astype(np.float32))


def made_tokens(width: int = 4) -> TokenParts:
    return TokenParts(WORDS, np.random.default_rng(1).normal(size=(TOKENS, width)).astype(np.float32))


def no_scores(table: np.ndarray, bias: np.ndarray) -> dict[str, float]:
    return {"validation_loss": 0.0}


def test_groups_of_characters_are_shared_by_tokens_that_look_alike():
    groups = character_groups(WORDS).toarray() > 0
    assert not groups[0].any()  # a special token
    sun, sunny, snow = groups[1], groups[2], groups[4]
    assert (sun & sunny).sum() > (sun & snow).sum() > 0
    assert sun.sum() == len(groups_of(" sun "))


def groups_of(text: str) -> set[str]:
    return {text[i : i + n] for n in range(2, 6) for i in range(len(text) - n + 1)}


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_gradient_is_that_of_the_loss(problem_type):
    texts = made_texts()
    parts = TableWeights(texts.means, made_tokens())
    objective = _Objective(texts, parts, problem_named(problem_type))
    weights = np.random.default_rng(2).normal(size=(parts.count + 1) * CLASSES)
    _, gradient = objective.value(weights, 1e-3)
    some = np.random.default_rng(3).choice(len(weights), 25, replace=False)

    def along(values):
        moved = weights.copy()
        moved[some] = values
        return objective.value(moved, 1e-3)[0]

    numeric = approx_fprime(weights[some], along, 1e-2)
    np.testing.assert_allclose(gradient[some], numeric, atol=2e-3)


def test_table_gives_the_logits_of_its_parts():
    texts, tokens = made_texts(), made_tokens()
    parts = TableWeights(texts.means, tokens)
    weights = np.random.default_rng(2).normal(size=(parts.count, CLASSES)).astype(np.float32)
    whole = parts.table(weights)
    np.testing.assert_allclose(whole[parts.used], parts.used_table(weights), rtol=1e-6)
    np.testing.assert_allclose(
        texts.means @ whole, texts.means[:, parts.used] @ parts.used_table(weights), rtol=1e-4, atol=1e-5
    )


def test_unseen_token_gets_a_vector_from_its_characters_and_its_state():
    """`sunny` is in no text: its vector is nearer to those of `sun` and `sunrise` than to that of `snow`."""
    counts = np.zeros((60, TOKENS), np.float32)
    targets = np.zeros((60, 2), np.float32)
    for row in range(60):
        counts[row, [1, 3] if row % 2 else [4, 6]] = 0.5
        targets[row, row % 2] = 1
    tokens = TokenParts(WORDS, np.zeros((TOKENS, 2), np.float32))
    table, _, _ = fit_table(TableTexts(csr_array(counts), targets), tokens, problem_named(SINGLE_LABEL), no_scores)
    assert table[2, 1] - table[2, 0] > 0.1 * (table[1, 1] - table[1, 0]) > 0
    assert table[5, 0] - table[5, 1] > 0


def test_pair_of_one_text_alone_stays_zero():
    means = csr_array(np.array([[0.5, 0.5, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]], np.float32))
    parts = TableWeights(means, TokenParts([" a", " b"], np.ones((2, 1), np.float32)))
    assert parts.used.tolist() == [0, 1, 3]
    assert not parts.table(np.ones((parts.count, 2), np.float32))[2].any()


def test_fit_finds_a_teacher_that_is_linear_in_the_tokens():
    means = made_texts(400).means
    truth = np.random.default_rng(5).normal(size=(TOKENS + PAIRS, CLASSES)) * 3
    targets = softmax(means @ truth, axis=1).astype(np.float32)
    held = TableTexts(means[300:], targets[300:])
    problem = problem_named(SINGLE_LABEL)

    def validate(table, bias):
        return {"validation_loss": float(soft_target_losses(problem, held.means @ table + bias, held.targets).mean())}

    texts = TableTexts(means[:300], targets[:300])
    table, bias, history = fit_table(texts, made_tokens(), problem, validate)
    found = softmax(held.means @ table + bias, axis=1)
    assert np.abs(found - held.targets).mean() < 0.02
    chosen = [entry for entry in history if entry["best"]]
    assert len(chosen) == 1
    assert chosen[0]["validation_loss"] == min(entry["validation_loss"] for entry in history)
    assert validate(table, bias)["validation_loss"] == pytest.approx(chosen[0]["validation_loss"])


def test_search_ends_when_the_held_out_loss_rises():
    losses = iter([3.0, 2.0, 2.5, 1.0])
    _, _, history = fit_table(
        made_texts(), made_tokens(), problem_named(SINGLE_LABEL), lambda *_: {"validation_loss": next(losses)}
    )
    assert [entry["validation_loss"] for entry in history] == [3.0, 2.0, 2.5]
    assert [entry["C"] for entry in history] == [1 / penalty for penalty in PENALTIES[:3]]
    assert [entry["best"] for entry in history] == [False, True, False]


def test_same_texts_give_the_same_bits():
    one, other = (fit_table(made_texts(), made_tokens(), problem_named(SINGLE_LABEL), no_scores)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_signal_stops_the_fit(monkeypatch):
    monkeypatch.setattr(stopping, "must_stop", lambda *, together=True: (15, False))
    with stopping.interruptible(), pytest.raises(Interrupted):
        fit_table(made_texts(), made_tokens(), problem_named(SINGLE_LABEL), no_scores)


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_losses_of_hard_targets_are_those_of_labels(problem_type):
    random, problem = np.random.default_rng(0), problem_named(problem_type)
    logits = random.normal(size=(6, CLASSES))
    labels = random.integers(0, 3, 6) if problem.exclusive else random.integers(0, 2, (6, CLASSES)).astype(np.uint8)
    targets = problem.label_matrix(labels, CLASSES).astype(np.float32)
    np.testing.assert_allclose(
        soft_target_losses(problem, logits, targets), problem.row_losses(logits, labels), rtol=1e-6
    )
