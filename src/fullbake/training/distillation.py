"""Train a student without attention on the scores of a teacher.

The student is a table of vectors for tokens and pairs of tokens, their mean, and a head (`models.static_encoder`). It
learns the teacher's probabilities (Hinton et al. 2015, arXiv 1503.02531), mixed with the true labels of texts that have
some. With a linear head its table has one number for each class and is fitted as a logistic regression is
(`training.linear_student`). With an mlp head, or more classes than a vector may have numbers, the table and the head
train by gradient descent, and the held-out texts choose the epoch.

In both, what the teacher knows of a token comes from its mean states: they are reduced by PCA and weighted by
a / (a + frequency) (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings"). A token that no
text holds has no mean state. Its vector is predicted from its input embedding by a ridge regression over the tokens
that do occur.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from fullbake.config.problems import SINGLE_LABEL, Problem
from fullbake.config.sections import TokensConfig, TrainingConfig
from fullbake.core import rng, stopping
from fullbake.core.errors import RecipeError
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.batching import Step, training_plan
from fullbake.models.encoder import config_with_labels
from fullbake.models.encoding import Encoded, span_positions
from fullbake.models.heads import build_head, divide_logits, output_layer
from fullbake.models.inference import logits_over
from fullbake.models.network import EncoderForTextClassification, EncoderHeadConfig
from fullbake.models.prediction import pool_windows
from fullbake.models.static_encoder import STUDENT_BYTES, StaticEncoder, StaticEncoderConfig, pair_buckets_of
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.linear_student import TableTexts, TokenParts, fit_table, soft_target_losses
from fullbake.training.loop import TrainingWork, fit
from fullbake.training.teacher_outputs import TeacherOutputs

FREQUENCY_WEIGHT: Final = 1e-3
"""The a of the first weights a / (a + frequency)."""

STATE_WIDTH: Final = 128
"""Numbers of a token's mean state that a linear student is fitted with; at most the teacher's own width."""

RIDGE: Final = 0.1
"""Penalty of the regression for tokens that do not occur, as a share of the mean variance of the embeddings."""

STUDENT_RATE: Final = 5e-3
"""Peak learning rate of gradient descent."""

BATCH_SIZE: Final = 128


@dataclass(frozen=True)
class StudentSettings:
    """The size of a student, and how long it trains. The defaults are measured (docs/results.md)."""

    width: int = 128
    """Numbers of a vector, at most the teacher's own width. With a linear head and at most as many classes, a vector
    has one number for each class instead."""

    pair_buckets: int = 32_749
    """Rows of the table that pairs of tokens share."""

    head: str = "linear"
    """`linear` or `mlp`."""

    epochs: int = 15
    """Passes over the texts of gradient descent: with an mlp head, or more classes than `width`."""

    seed: int = 0
    """Of the held-out texts, and in gradient descent of the head's weights and the order of the texts."""

    label_share: float = 0.5
    """Share of the true label in what the student learns of a text that has one; the rest is the teacher's score. From
    0, the teacher alone, to 1, the label alone."""

    def check(self, teacher_width: int, classes: int) -> "StudentSettings":
        """Return the settings with the width at most the teacher's.

        Raises:
            RecipeError: A number is below 1, the head is unknown, or the weights would be larger than STUDENT_BYTES.
        """
        for name in ("width", "pair_buckets", "epochs"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise RecipeError(
                    f"a student needs a whole number above 0 as {name}", where=_flag(name), got=repr(value)
                )
        if type(self.seed) is not int or self.seed < 0:
            raise RecipeError("the seed is a whole number from 0 on", where="--seed", got=repr(self.seed))
        share = self.label_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise RecipeError(
                "the label share is a number", where="--label-share", expected="from 0 to 1", got=repr(share)
            )
        if self.head not in ("linear", "mlp"):
            raise RecipeError(
                "there is no such head for a student", where="--head", expected="linear or mlp", got=repr(self.head)
            )
        fitted = StudentSettings(min(self.width, teacher_width), *list(asdict(self).values())[1:])
        if fitted.room_for_tokens(0, classes) < 1:
            raise RecipeError(
                f"a student's weights take at most {STUDENT_BYTES:,} bytes",
                where="--pair-buckets",
                expected=f"at most {STUDENT_BYTES // (fitted.vector_width(classes) + 4):,} rows of this width",
                got=f"{self.pair_buckets:,}",
                remedy="Lower --pair-buckets or --width.",
            )
        return fitted

    def is_fitted(self, classes: int) -> bool:
        """Return True if the table has a number for each class and is fitted in one piece."""
        return self.head == "linear" and classes <= self.width

    def vector_width(self, classes: int) -> int:
        """Return how many numbers a row of the table has."""
        return classes if self.is_fitted(classes) else self.width

    def room_for_tokens(self, vocabulary: int, classes: int) -> int:
        """Return how many rows for tokens fit beside the rest. vocabulary: Number of token ids."""
        width = self.vector_width(classes)
        hidden = width * (width + 8) if self.head == "mlp" else 0
        rest = 4 * (hidden + classes * (width + 1)) + 4 * vocabulary + 10_000
        return (STUDENT_BYTES - rest) // (width + 4) - self.pair_buckets


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# The first vectors


def first_vectors(outputs: TeacherOutputs, embeddings: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return a vector for every token id: the teacher's mean state of it, reduced and weighted.

    Args:
        outputs: What the teacher gave.
        embeddings: The teacher's input embeddings, (vocabulary, any width).
        width: Of the vectors; at most that of the states.

    Returns:
        (vocabulary, width); over the occurring tokens the mean square length is 1 before weighting.
    """
    ids, counts = outputs.token_ids, outputs.token_counts
    states = outputs.token_states.astype(np.float64)
    center = np.average(states, axis=0, weights=counts)
    states -= center
    _, directions = np.linalg.eigh(states.T @ states / len(states))
    axes = directions[:, ::-1][:, :width]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])  # either sign is an eigenvector
    known = states @ axes
    vectors = _regress(embeddings[ids], known, embeddings)
    vectors[ids] = known
    vectors /= max(float(np.sqrt((known**2).sum(axis=1).mean())), 1e-12)
    frequency = np.zeros(len(vectors))
    frequency[ids] = counts / counts.sum()
    weighted: NDArray[np.float32] = (vectors * (FREQUENCY_WEIGHT / (FREQUENCY_WEIGHT + frequency))[:, None]).astype(
        np.float32
    )
    return weighted


def _regress(inputs: NDArray[Any], targets: NDArray[np.float64], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """Fit a ridge regression of `targets` (rows, n) on `inputs` (rows, m), and predict for `wanted` (all, m)."""
    center = inputs.mean(axis=0, dtype=np.float64)
    centered = inputs - center
    gram = centered.T @ centered
    penalty = RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12)
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), centered.T @ (targets - targets.mean(axis=0)))
    predicted: NDArray[np.float64] = (wanted - center) @ weights + targets.mean(axis=0)
    return predicted


def assign_rows(outputs: TeacherOutputs, vocabulary: int, room: int) -> NDArray[np.int32]:
    """Return the row of the table of each token id, (vocabulary,), from 0.

    Every id has a row of its own while there is room. Else those that occur most have one, and all others share row 0.

    Args:
        outputs: What the teacher gave.
        vocabulary: Number of token ids.
        room: Most rows.
    """
    if vocabulary <= room:
        return np.arange(vocabulary, dtype=np.int32)
    order = np.argsort(-outputs.token_counts, kind="stable")
    own = np.sort(outputs.token_ids[order[: room - 1]])
    rows = np.zeros(vocabulary, np.int32)
    rows[own] = np.arange(1, len(own) + 1)
    return rows


# The student while it trains


class TrainedStudent(nn.Module):
    """A student with a table in fp32, for rows of table numbers one after another."""

    def __init__(self, table: Tensor, head: nn.Module) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.head = head

    def forward(self, rows: Tensor, offsets: Tensor, tokens: Tensor) -> Tensor:
        """Compute logits.

        Args:
            rows: Numbers of table rows of all texts, (n,).
            offsets: Where each text starts, (texts,).
            tokens: How many tokens each text has, (texts,).

        Returns:
            (texts, classes).
        """
        sums = functional.embedding_bag(rows, self.table, offsets, mode="sum", sparse=True)
        logits: Tensor = self.head(sums / tokens[:, None])
        return logits


@dataclass(frozen=True, eq=False)
class StudentRows:
    """Texts as numbers of table rows, with the probabilities to learn."""

    numbers: NDArray[np.int32]
    """Rows of the table, text after text: first those of its tokens, then those of its pairs."""

    tokens: NDArray[np.int64]
    """Tokens of each text, (texts,); it has twice as many numbers."""

    targets: NDArray[np.float32]
    """(texts, classes)."""

    def means(self, table_rows: int) -> Any:
        """Return how often each text has each row, divided by its tokens: a sparse array (texts, table_rows)."""
        ends = 2 * np.concatenate([np.zeros(1, np.int64), np.cumsum(self.tokens)])
        shares = np.repeat((1 / np.maximum(self.tokens, 1)).astype(np.float32), 2 * self.tokens)
        means = csr_array((shares, self.numbers.astype(np.int64), ends), shape=(len(self.tokens), table_rows))
        means.sum_duplicates()
        return means

    def batch(self, texts: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `TrainedStudent` is given for some texts."""
        ends = 2 * np.cumsum(self.tokens)
        counts = self.tokens[texts]
        places = span_positions(ends[texts] - 2 * counts, 2 * counts)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(2 * counts)[:-1]])
        return (
            torch.from_numpy(self.numbers[places].astype(np.int64)),
            torch.from_numpy(offsets),
            torch.from_numpy(counts.astype(np.float32)),
        )


def table_numbers(encoded: Encoded, rows: NDArray[np.int32], pair_buckets: int) -> NDArray[np.int32]:
    """Return the numbers of the table rows that each text reads, as `StudentRows.numbers`.

    Args:
        encoded: The texts.
        rows: The row of each token id.
        pair_buckets: Number of buckets; they come after the rows of tokens.
    """
    starts, lengths = encoded.offsets[:-1], encoded.lengths
    ids = torch.from_numpy(encoded.input_ids.astype(np.int64))[None]
    pairs = pair_buckets_of(ids, pair_buckets)[0].numpy()
    filled = starts[lengths > 0]  # the first token of a text has no token before it
    pairs[filled] = pair_buckets_of(ids[0, filled][:, None], pair_buckets)[:, 0].numpy()
    numbers = np.empty(2 * len(encoded.input_ids), np.int32)
    tokens = span_positions(2 * starts, lengths)
    numbers[tokens] = rows[encoded.input_ids]
    numbers[tokens + np.repeat(lengths, lengths)] = pairs + int(rows.max()) + 1
    return numbers


def soft_losses(problem_type: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each row with probabilities in nats, (rows,).

    Args:
        problem_type: As in config.json.
        logits: (rows, classes).
        targets: Probabilities, (rows, classes).
    """
    if problem_type == SINGLE_LABEL:
        return functional.cross_entropy(logits, targets, reduction="none")
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


# Training


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student is trained and judged on."""

    outputs: TeacherOutputs
    """Of all rows of `encoded`."""

    encoded: Encoded
    """All texts; of long ones each window is a row."""

    train: NDArray[np.int64]
    """Texts to train on."""

    validation: NDArray[np.int64]
    """Texts that choose the epoch and the temperature."""

    problem: Problem
    label_names: Sequence[str]
    tokens: TokensConfig
    pad_id: int
    metric: str
    """The teacher's metric, which the history shows."""

    pieces: Sequence[str]
    """Each token as text, as `models.tokenizer.token_pieces` gives them."""

    labels: NDArray[Any] | None = None
    """True labels of the texts, ids or a label matrix; None where there are none."""

    labeled: NDArray[np.bool_] | None = None
    """Whether each text has one, (texts,)."""

    def targets(self, label_share: float) -> NDArray[np.float32]:
        """Return the probabilities to learn of each row of `encoded`, (rows, classes).

        They are the teacher's. Of a text with a label, `label_share` of them is replaced by the label; of a text of
        several windows they are not, because its label need not be that of each window.
        """
        targets = self.problem.probabilities(self.outputs.logits)
        if self.labels is None or self.labeled is None:
            return targets.astype(np.float32)
        documents = np.arange(len(targets)) if self.encoded.documents is None else self.encoded.documents
        alone = np.bincount(documents, minlength=len(self.labeled)) == 1
        rows = np.flatnonzero((self.labeled & alone)[documents])
        truth = self.problem.label_matrix(self.labels[documents[rows]], targets.shape[1])
        targets[rows] += label_share * (truth - targets[rows])
        return targets.astype(np.float32)

    def rows_of(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `encoded` that belong to these texts, ascending."""
        documents = self.encoded.documents
        if documents is None:
            return np.sort(texts)
        return np.flatnonzero(np.isin(documents, texts))

    def pooled(self, logits: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Pool the logits of rows, as `rows_of` gives them, into those of texts."""
        documents = self.encoded.documents
        if documents is None:
            return logits
        own = np.unique(documents[rows], return_inverse=True)[1]
        return pool_windows(logits, own, self.tokens.window_pooling)


def train_student(
    teacher: Any, lesson: Lesson, settings: StudentSettings, checkpoints: Checkpoints | None
) -> tuple[PreTrainedModel, list[dict[str, Any]], float]:
    """Train a student of a teacher.

    Args:
        teacher: The teacher's network.
        lesson: What to train on.
        settings: As `StudentSettings.check` returns them.
        checkpoints: Where to save and to resume from; None saves nothing.

    Returns:
        The student, the history (an entry for each penalty or epoch), and the temperature that its logits were divided
        by.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was saved.
    """
    embeddings = teacher.get_input_embeddings().weight.detach().float().cpu().numpy()
    classes, vocabulary = len(lesson.label_names), len(embeddings)
    rows = assign_rows(lesson.outputs, vocabulary, settings.room_for_tokens(vocabulary, classes))
    numbers = table_numbers(lesson.encoded, rows, settings.pair_buckets)
    data = StudentRows(numbers, lesson.encoded.lengths, lesson.targets(settings.label_share))
    if settings.is_fitted(classes):
        vectors = first_vectors(lesson.outputs, embeddings, min(STATE_WIDTH, lesson.outputs.token_states.shape[1]))
        module, history = _fit_linear(lesson, data, row_means(vectors, rows), rows, settings)
    else:
        vectors = first_vectors(lesson.outputs, embeddings, settings.width)
        module = _new_student(row_means(vectors, rows), settings, classes)
        history = fit(module, _work(lesson, data, module, settings), _training(settings), checkpoints)
    student = _as_network(teacher, module, rows, lesson, settings)
    temperature = _fit_temperature(student, lesson, data)
    divide_logits(student, temperature)
    return student, history, temperature


def row_means(vectors: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the vector of each row of the table: that of its token, or the mean of the tokens that share it.

    Args:
        vectors: One for each token id, (vocabulary, width).
        rows: The row of each token id.
    """
    used = int(rows.max()) + 1
    means = np.zeros((used, vectors.shape[1]), np.float32)
    np.add.at(means, rows, vectors)
    means /= np.maximum(np.bincount(rows, minlength=used), 1)[:, None].astype(np.float32)
    return means


def _fit_linear(
    lesson: Lesson,
    data: StudentRows,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int32],
    settings: StudentSettings,
) -> tuple[TrainedStudent, list[dict[str, Any]]]:
    """Fit a student with a linear head in one piece. vectors: One for each row of the table that tokens have."""
    train, held = lesson.rows_of(lesson.train), lesson.rows_of(lesson.validation)
    texts = TableTexts(data.means(len(vectors) + settings.pair_buckets), data.targets)
    held_texts = texts.take(held)
    labels = _teacher_labels(lesson, held)

    def validate(table: NDArray[np.float32], bias: NDArray[np.float32]) -> dict[str, Any]:
        logits = held_texts.means @ table + bias
        loss = float(soft_target_losses(lesson.problem, logits, held_texts.targets).mean())
        scores = validation_scores(lesson.pooled(logits, held), labels, lesson.metric)
        return scores | {"validation_loss": loss, "neg_log_loss": -loss}

    own = np.bincount(rows, minlength=len(vectors))
    pieces = np.full(len(vectors), "", object)  # tokens that share a row have no characters in common
    pieces[rows] = np.where(own[rows] == 1, np.array(lesson.pieces, object), "")
    with stopping.interruptible():
        table, bias, history = fit_table(texts.take(train), TokenParts(list(pieces), vectors), lesson.problem, validate)
    head: Any = build_head("linear", len(bias), len(bias), dropout=0.0, layers=0, width=len(bias))
    layer = output_layer(head)
    layer.weight.data.copy_(torch.eye(len(bias)))
    layer.bias.data.copy_(torch.from_numpy(bias))
    return TrainedStudent(torch.from_numpy(table), head), history


def _teacher_labels(lesson: Lesson, held: NDArray[np.int64]) -> NDArray[Any]:
    """Return the teacher's plain decisions on the texts of these rows."""
    return lesson.problem.decide(lesson.problem.probabilities(lesson.pooled(lesson.outputs.logits[held], held)))


def _new_student(vectors: NDArray[np.float32], settings: StudentSettings, classes: int) -> TrainedStudent:
    """Return the student before gradient descent. vectors: One for each row of the table that tokens have."""
    table = np.zeros((len(vectors) + settings.pair_buckets, settings.width), np.float32)
    table[: len(vectors)] = vectors
    rng.seed_everything(settings.seed)
    width = settings.width
    head = build_head(settings.head, width, classes, dropout=0.0, layers=1, width=width)
    return TrainedStudent(torch.from_numpy(table), head)


def _training(settings: StudentSettings) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "learning_rate": (STUDENT_RATE,),
            "batch_size": BATCH_SIZE,
            "epochs": settings.epochs,
            "weight_decay": 0.0,
            "max_grad_norm": None,
            "precision": "fp32",
            "metric": "neg_log_loss",
            "seed": settings.seed,
        }
    )


def _work(lesson: Lesson, data: StudentRows, module: nn.Module, settings: StudentSettings) -> TrainingWork:
    """Return what the training loop runs."""
    train, held = lesson.rows_of(lesson.train), lesson.rows_of(lesson.validation)
    name = lesson.problem.name

    def plan(epoch: int) -> Sequence[Step]:
        steps = training_plan(
            np.ones(len(train), np.int64),
            batch_size=BATCH_SIZE,
            seed=settings.seed,
            epoch=epoch,
            token_budget=BATCH_SIZE,
            merge_last_single=settings.head == "mlp",
        )
        return [Step((train[step.rows],)) for step in steps]

    def loss(student: nn.Module, step: Step, share: Step) -> Iterator[Tensor]:
        for texts in share.micro_batches:
            losses = soft_losses(name, student(*data.batch(texts)), torch.from_numpy(data.targets[texts]))
            yield losses.sum() / len(step.rows)

    labels = _teacher_labels(lesson, held)

    def validate(student: nn.Module, _: int) -> dict[str, Any]:
        with torch.inference_mode():
            logits = student(*data.batch(held))
            soft = float(soft_losses(name, logits, torch.from_numpy(data.targets[held])).mean())
        scores = validation_scores(lesson.pooled(logits.numpy(), held), labels, lesson.metric)
        return scores | {"validation_loss": soft, "neg_log_loss": -soft}

    groups = [{"params": list(module.parameters()), "lr": STUDENT_RATE, "weight_decay": 0.0}]
    return TrainingWork(plan, loss, validate, groups, rows=len(train))


def _as_network(
    teacher: Any, module: TrainedStudent, rows: NDArray[np.int32], lesson: Lesson, settings: StudentSettings
) -> PreTrainedModel:
    """Return the trained student as a network of transformers."""
    base = getattr(teacher.config, "encoder", teacher.config)
    config = StaticEncoderConfig(
        vocab_size=len(rows),
        hidden_size=module.table.shape[1],
        token_rows=int(rows.max()) + 1,
        pair_buckets=settings.pair_buckets,
        max_position_embeddings=lesson.tokens.max_length or 0,
        type_vocab_size=int(getattr(base, "type_vocab_size", None) or 0),
        pad_token_id=base.pad_token_id,
    )
    own = EncoderHeadConfig(
        config, pooling="cls", head=settings.head, layers=1 if settings.head == "mlp" else 0, width=config.hidden_size
    )
    config_with_labels(own, lesson.label_names)
    own.problem_type = lesson.problem.name
    network: Any = EncoderForTextClassification(own)
    encoder = cast(StaticEncoder, network.encoder)
    encoder.token_rows.weight.data.copy_(torch.from_numpy(rows))
    encoder.set_table(module.table.detach())
    network.head.load_state_dict(module.head.state_dict())
    return cast(PreTrainedModel, network.eval())


def _fit_temperature(student: PreTrainedModel, lesson: Lesson, data: StudentRows) -> float:
    """Return the temperature under which the student's probabilities are nearest to its targets on validation."""
    from scipy.optimize import minimize_scalar

    rows = lesson.rows_of(lesson.validation)
    encoded = lesson.encoded.take(rows)
    own = Encoded(encoded.input_ids, encoded.offsets, encoded.token_type_ids)
    logits = torch.from_numpy(logits_over(student, own, tokens=lesson.tokens, pad_id=lesson.pad_id)).double()
    targets = torch.from_numpy(data.targets[rows]).double()

    def cost(log_temperature: float) -> float:
        return float(soft_losses(lesson.problem.name, logits / float(np.exp(log_temperature)), targets).mean())

    return float(np.exp(minimize_scalar(cost, bounds=(-1.5, 1.5), method="bounded", options={"xatol": 1e-4}).x))
