"""Fit the table of a student with a linear head in one piece, by L-BFGS.

With a linear head, a student's logits are linear in how often a text has each token and each pair of tokens. So a row
of the table needs one number for each class and no more, and its numbers are found as those of a logistic regression
are: the loss is convex, the strength of the penalty is chosen on held-out texts, and nothing depends on chance.

A number of its own for each token teaches nothing about tokens that few texts have. So the vector of a token is a sum
of three parts, each with weights to fit: its own; one for each group of characters in it, which `teach` and `teacher`
share; and a linear function of the teacher's mean state of it. The parts are added up at the end, and the student
reads one row for each token. Gradient descent over a table of 128 numbers a row took several times as long for
students that were less accurate than TF-IDF with logistic regression (docs/results.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fullbake.config.problems import Problem
from fullbake.core import stopping

PENALTIES: Final = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""Penalties of the squared weights that are tried, from the strongest on, until the held-out loss rises."""

CHARACTER_SHARE: Final = 1.0
"""Length of a token's characters beside that of the token itself."""

STATE_SHARE: Final = 0.3
"""Length of a text's mean state beside that of its tokens."""

GROUP_LENGTHS: Final = range(2, 6)
"""Characters in a group."""

STEPS_A_PENALTY: Final = 60
"""Most steps of the solver for a penalty. Each begins at the weights of the one before."""

TableNumbers = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TableTexts:
    """Texts as rows of a table, with what the student should give for them."""

    means: Any
    """How often a text has each row of the table, divided by its tokens: a sparse array (texts, rows of the table)."""

    targets: TableNumbers
    """Probabilities, (texts, classes)."""

    def take(self, texts: NDArray[np.int64]) -> "TableTexts":
        """Return some of the texts."""
        return TableTexts(self.means[texts], self.targets[texts])


@dataclass(frozen=True, eq=False)
class TokenParts:
    """What is known of the tokens: the first rows of the table."""

    pieces: Sequence[str]
    """Each token as text; one that begins a word begins with a space. Empty for special tokens."""

    states: TableNumbers
    """A vector from the teacher's states for each token, (tokens, any width)."""


def character_groups(pieces: Sequence[str]) -> Any:
    """Return which groups of characters each token has, a sparse array (tokens, groups).

    Args:
        pieces: As in TokenParts. A space is added at the end, so that endings differ from what stands within a word.
    """
    places: dict[str, int] = {}
    found: list[int] = []
    counts = np.zeros(len(pieces) + 1, np.int64)
    for token, piece in enumerate(pieces):
        text = f"{piece} " if piece else ""
        groups = {text[i : i + n] for n in GROUP_LENGTHS for i in range(len(text) - n + 1)}
        found += [places.setdefault(group, len(places)) for group in sorted(groups)]
        counts[token + 1] = len(groups)
    shape = len(pieces), max(len(places), 1)
    return csr_array((np.ones(len(found), np.float32), np.array(found, np.int64), np.cumsum(counts)), shape=shape)


class TableWeights:
    """The weights of all parts, and the table that they add up to."""

    def __init__(self, means: Any, tokens: TokenParts) -> None:
        """Scale the parts.

        Args:
            means: Of the training texts, as in TableTexts.
            tokens: The tokens; other rows of the table have a part of their own only.
        """
        texts, self.rows = means.shape
        self.tokens = len(tokens.pieces)
        frequency = np.bincount(means.indices, minlength=self.rows)
        rarity = (np.log((1 + texts) / (1 + frequency)) + 1).astype(np.float32)
        # A pair that one text alone has says nothing about other texts.
        self.used = np.flatnonzero(frequency >= np.where(np.arange(self.rows) < self.tokens, 1, 2))
        self.used_tokens = int(np.searchsorted(self.used, self.tokens))
        used = means[:, self.used]
        # Divided by this, the vector of a text of the mean length has about length 1.
        size = np.sqrt(used.multiply(used) @ rarity[self.used] ** 2).mean() if len(self.used) else 1.0
        self.own = rarity[self.used] / max(float(size), 1e-12)
        self.groups = self._scaled_groups(tokens.pieces, frequency) / max(float(size), 1e-12)
        mean_states = used[:, : self.used_tokens] @ tokens.states[self.used[: self.used_tokens]]
        length = max(float(np.sqrt((mean_states**2).sum(axis=1).mean())), 1e-12)
        self.states = tokens.states * np.float32(STATE_SHARE / length)
        self._known = self.used[: self.used_tokens]
        self._known_groups, self._known_states = self.groups[self._known], self.states[self._known]
        self._known_groups_t = self._known_groups.T.tocsr()

    def _scaled_groups(self, pieces: Sequence[str], frequency: NDArray[np.int64]) -> Any:
        """Return the groups of characters of each token, the rarer the larger, of the length CHARACTER_SHARE."""
        groups = character_groups(pieces)
        texts = max(int(frequency.max(initial=1)), 1)
        tokens = (groups.T @ (frequency[: self.tokens] > 0).astype(np.float32)) > 0
        shared = (groups.T @ np.ones(len(pieces), np.float32) > 1) & tokens  # a group of one token alone is that token
        often = np.minimum(groups.T @ frequency[: self.tokens].astype(np.float32), texts)
        rarity = (np.log((1 + texts) / (1 + often)) + 1) * shared
        groups = groups.multiply(rarity[None].astype(np.float32)).tocsr()[:, np.flatnonzero(shared)]
        lengths = np.sqrt(groups.multiply(groups).sum(axis=1))
        own = np.log((1 + texts) / (1 + np.minimum(frequency[: self.tokens], texts))) + 1
        scale = np.where(lengths > 0, CHARACTER_SHARE * own / np.maximum(lengths, 1e-12), 0).astype(np.float32)
        return groups.multiply(scale[:, None]).tocsr()

    @property
    def count(self) -> int:
        """Return the number of weights of a class."""
        count: int = len(self.own) + self.groups.shape[1] + self.states.shape[1]
        return count

    def used_table(self, weights: TableNumbers) -> TableNumbers:
        """Return the used rows of the table, (used, classes). weights: (count, classes)."""
        own, groups, states = np.split(weights, [len(self.own), len(self.own) + self.groups.shape[1]])
        table: TableNumbers = self.own[:, None] * own
        table[: self.used_tokens] += self._known_groups @ groups + self._known_states @ states
        return table

    def gradient(self, table: TableNumbers) -> TableNumbers:
        """Return the gradient of the weights, (count, classes). table: that of the used rows, (used, classes)."""
        known = table[: self.used_tokens]
        return np.concatenate([self.own[:, None] * table, self._known_groups_t @ known, self._known_states.T @ known])

    def table(self, weights: TableNumbers) -> TableNumbers:
        """Return the whole table, (rows, classes). Tokens that no text had have what their parts say."""
        _, groups, states = np.split(weights, [len(self.own), len(self.own) + self.groups.shape[1]])
        table = np.zeros((self.rows, weights.shape[1]), np.float32)
        table[: self.tokens] = self.groups @ groups + self.states @ states
        table[self.used] = self.used_table(weights)
        return table


def fit_table(
    train: TableTexts,
    tokens: TokenParts,
    problem: Problem,
    validate: Callable[[TableNumbers, TableNumbers], dict[str, Any]],
) -> tuple[TableNumbers, TableNumbers, list[dict[str, Any]]]:
    """Fit a table to targets.

    Args:
        train: The texts to fit.
        tokens: The first rows of the table.
        problem: Softmax or sigmoids.
        validate: (table, bias) -> scores, among them `validation_loss`, by which the penalty is chosen.

    Returns:
        The table (rows, classes), the bias (classes,), and the history: an entry for each penalty, with C, the inverse
        of the penalty.

    Raises:
        Interrupted: A signal asked to stop.
    """
    parts, classes = TableWeights(train.means, tokens), train.targets.shape[1]
    objective = _Objective(train, parts, problem)
    weights = np.zeros((parts.count + 1) * classes)
    weights[-classes:] = _prior_bias(train.targets, problem)
    history: list[dict[str, Any]] = []
    best: tuple[TableNumbers, TableNumbers] | None = None
    for trial, penalty in enumerate(PENALTIES):
        weights = objective.minimize(weights, penalty)
        matrix = weights.reshape(-1, classes).astype(np.float32)
        found = parts.table(matrix[:-1]), matrix[-1]
        entry = {"trial": trial + 1, "C": 1 / penalty, "train_loss": objective.loss(weights)} | validate(*found)
        history.append(entry)
        if trial and entry["validation_loss"] >= min(one["validation_loss"] for one in history[:-1]):
            break
        best = found
    chosen = min(history, key=lambda one: one["validation_loss"])
    for entry in history:
        entry["best"] = entry is chosen
    assert best is not None
    return *best, history


def _prior_bias(targets: TableNumbers, problem: Problem) -> NDArray[np.float64]:
    shares = np.clip(targets.mean(axis=0, dtype=np.float64), 1e-6, 1 - 1e-6)
    prior: NDArray[np.float64] = np.log(shares) if problem.exclusive else np.log(shares / (1 - shares))
    return prior


class _Objective:
    """The mean loss of the training texts, and the penalty of all weights but the bias."""

    def __init__(self, train: TableTexts, parts: TableWeights, problem: Problem) -> None:
        self.parts, self.problem, self.targets = parts, problem, train.targets
        self.means = train.means[:, parts.used]
        self.means_t = self.means.T.tocsr()

    def minimize(self, weights: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
        """Return the weights of the least loss, searched from `weights` on."""
        from scipy.optimize import minimize

        found: NDArray[np.float64] = minimize(
            self.value,
            weights,
            args=(penalty,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": STEPS_A_PENALTY, "maxcor": 6, "ftol": 1e-5, "gtol": 1e-6},
        ).x
        return found

    def value(self, weights: NDArray[np.float64], penalty: float) -> tuple[float, NDArray[np.float64]]:
        """Return loss and gradient. weights: flat, ((count + 1) * classes,); the bias comes last."""
        stopping.check()
        matrix = weights.reshape(-1, self.targets.shape[1])
        loss, errors = self._losses(matrix)
        gradient = np.empty_like(matrix)
        gradient[:-1] = self.parts.gradient(self.means_t @ errors)
        gradient[:-1] += penalty * matrix[:-1]
        gradient[-1] = errors.sum(axis=0, dtype=np.float64)
        return loss + penalty / 2 * float((matrix[:-1] ** 2).sum()), gradient.ravel()

    def loss(self, weights: NDArray[np.float64]) -> float:
        """Return the mean loss without the penalty."""
        return self._losses(weights.reshape(-1, self.targets.shape[1]))[0]

    def _losses(self, matrix: NDArray[np.float64]) -> tuple[float, TableNumbers]:
        """Return the mean loss, and its gradient by the logits (texts, classes)."""
        exact = matrix.astype(np.float32)
        logits = self.means @ self.parts.used_table(exact[:-1]) + exact[-1]
        share = 1 if self.problem.exclusive else logits.shape[1]
        errors = (self.problem.probabilities(logits).astype(np.float32) - self.targets) / np.float32(
            len(logits) * share
        )
        return float(soft_target_losses(self.problem, logits, self.targets).mean()), errors


def soft_target_losses(
    problem: Problem, logits: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the cross entropy of each row with probabilities, in nats, (rows,); over many labels their mean.

    Args:
        problem: Softmax or sigmoids.
        logits: (rows, classes).
        targets: Probabilities, (rows, classes).
    """
    exact = logits.astype(np.float64)
    if problem.exclusive:
        top = exact.max(axis=1, keepdims=True)
        exact = exact - top - np.log(np.exp(exact - top).sum(axis=1, keepdims=True))
        losses: NDArray[np.float64] = -(targets * exact).sum(axis=1)
        return losses
    means: NDArray[np.float64] = (np.logaddexp(0, exact) - targets * exact).mean(axis=1)
    return means
