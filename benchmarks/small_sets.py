"""Eight small tasks drawn from public data, and two ways to fine-tune on them: fullbake's pieces and a plain loop.

Each task is drawn anew for each seed: training rows, validation rows and test rows that share no row. Where a set has a
test file, test rows come from it. The base is `demo`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from fullbake.config.problems import problem_of
from fullbake.config.recipe import Recipe
from fullbake.core.cache import Cache
from fullbake.data.labeled_files import read_labeled
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import fit_temperature
from fullbake.models import batching
from fullbake.models.encoding import Encoded
from fullbake.models.network import extract_head
from fullbake.models.prediction import encode
from fullbake.models.pretrained import resolve_base
from fullbake.training.job import Job, recipe_tokenizer, resolve_recipe
from fullbake.training.selection import TrainingRun
from fullbake.training.strategies import strategy_for


@dataclass(frozen=True)
class SmallSet:
    """A task.

    Attributes:
        train: the file of training and validation rows.
        test: the file of test rows; None takes them from `train`.
        fields: the recipe's fields on columns and length.
        rows: numbers of training, validation and test rows.
        each_class: the number of training rows of each class, in place of a plain random draw.
    """

    train: str
    test: str | None
    fields: dict[str, Any]
    rows: tuple[int, int, int] = (600, 300, 600)
    each_class: int | None = None


SETS = {
    "trec": SmallSet("trec_train.csv", "trec_test.csv", {"label": "coarse", "max_length": 48}),
    "sms_spam": SmallSet("sms_spam.csv", None, {"max_length": 48}),
    "sst2": SmallSet("sst2_train.csv", "sst2_dev.csv", {"max_length": 48}),
    "comments": SmallSet("comments.csv", None, {"label": "topic", "max_length": 48}, (720, 240, 240)),
    "banking77": SmallSet("banking77_train.csv", "banking77_test.csv", {"max_length": 48}, (1540, 500, 770), 20),
    "toxic": SmallSet(
        "jigsaw_8k.csv", None, {"text": "comment_text", "label": "toxic", "max_length": 48}, (1000, 400, 1000)
    ),
    "ag_news": SmallSet("ag_news_train_10k.csv", "ag_news_test.csv", {"text": "description", "max_length": 48}),
    "mrpc": SmallSet(
        "mrpc_train.csv", "mrpc_test.csv", {"text": "sentence1", "text_pair": "sentence2", "max_length": 64}
    ),
}


def draw(folder: Path, name: str, seed: int, scale: float = 1.0) -> Parts:
    """Return the rows of a task for a seed.

    Args:
        folder: holds the data sets; `comments` is the bundled sample.
        name: key of SETS.
        seed: of the draw.
        scale: multiplies the numbers of training and validation rows.
    """
    task = SETS[name]
    config = recipe_of(name).data
    source = folder / task.train if name != "comments" else bundled_comments()
    data = read_labeled(source, config)
    assert data.labels is not None
    random = np.random.default_rng(seed)
    order = random.permutation(len(data))
    counts = [round(task.rows[0] * scale), round(task.rows[1] * scale), task.rows[2]]
    if task.each_class is not None:
        first = [np.flatnonzero(data.labels[order] == label)[: round(task.each_class * scale)] for label in range(77)]
        chosen = np.concatenate(first)
        order = np.concatenate([order[chosen], np.delete(order, chosen)])
        counts[0] = len(chosen)
    train, validation, rest = np.split(order, [counts[0], counts[0] + counts[1]])
    if task.test is None:
        test = Part(data, np.sort(rest[: counts[2]]))
    else:
        other = read_labeled(folder / task.test, config, label_names=data.label_names)
        test = Part(other, np.sort(random.permutation(len(other))[: counts[2]]))
    return Parts(Part(data, np.sort(train)), Part(data, np.sort(validation)), test)


def bundled_comments() -> Path:
    """Return the file of the bundled comments."""
    return Path(str(resources.files("fullbake") / "resources" / "samples" / "comments.csv"))


def recipe_of(name: str, recipe: str = "finetune", **fields: Any) -> Recipe:
    """Return a shipped recipe for a task, with more fields."""
    return Recipe.load(recipe, **{"base": "demo"} | SETS[name].fields | fields)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return log loss in nats, macro-F1 and accuracy of logits (rows, classes)."""
    predicted = logits.argmax(axis=1)
    return {
        "log_loss": float(problem_of(labels).row_losses(logits, labels).mean()),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "accuracy": float((predicted == labels).mean()),
    }


def job_of(recipe: Recipe, parts: Parts, folder: Path) -> Job:
    """Return the job of a recipe on these rows. folder: holds the feature cache."""
    resolved = resolve_recipe(recipe)
    return Job(resolved, parts, recipe_tokenizer(resolved), "demo", Cache(folder, 1 << 40))


def scores_of_parts(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the scores of validation and test; log loss also after a temperature fitted on validation.

    Args:
        logits: of `validation` and `test`, (rows, classes).
        labels: class ids of both, (rows,).
    """
    found: dict[str, Any] = {name: scores(values, labels[name]) for name, values in logits.items()}
    temperature = fit_temperature(logits["validation"], labels["validation"])
    for name, values in logits.items():
        found[name]["scaled_log_loss"] = scores(values / np.float32(temperature), labels[name])["log_loss"]
    return found | {"temperature": temperature}


@contextmanager
def random_batches() -> Iterator[None]:
    """Within the block, fullbake's steps are batches of rows at random, not of rows of similar length."""

    def unsorted(shuffled: np.ndarray, _: np.ndarray, batch_size: int) -> np.ndarray:
        return shuffled.reshape(-1, batch_size)

    with patch.object(batching, "_sort_within_pools", unsorted):
        yield


def train_by_fullbake(job: Job, rate: float, *, head_std: float | None = None) -> dict[str, Any]:
    """Fine-tune at one rate; return the validation and test scores at the end.

    Args:
        job: the rows, and the tokenizer.
        rate: peak learning rate.
        head_std: standard deviation of the linear head's first weights; None leaves them as fullbake draws them.
    """
    strategy, test = strategy_for(replace(job, parts=replace(job.parts, test=None))), job.parts.test
    assert test is not None
    rows = _labeled(job, test)
    network = strategy.new_network()
    if head_std is not None:
        weight = extract_head(network).get_parameter("output.weight").data
        weight.mul_(head_std / weight.std())

    def validate(_: nn.Module, epoch: int) -> dict[str, Any]:
        return {"validation_loss": 0.0, "neg_log_loss": float(epoch)}  # the last epoch is kept

    strategy.fit(network, strategy.train, validate, TrainingRun(rate, "neg_log_loss", f"rate-{rate:g}"))
    held = {"validation": strategy.validation, "test": rows}
    return scores_of_parts(
        {name: strategy.logits(network, part) for name, part in held.items()},
        {name: part.labels for name, part in held.items()},
    )


def _labeled(job: Job, part: Part) -> Any:
    """Return a part as the strategy's own rows."""
    return strategy_for(replace(job, parts=Parts(part, None, None))).train


def train_by_plain_loop(
    job: Job, rate: float, *, standard: bool, epochs: int, seed: int, xavier: bool = False
) -> dict[str, Any]:
    """Fine-tune as a textbook does: shuffled batches of 32, padded to their longest, torch's own dropout.

    AdamW with weight decay 0.01, warmup over a tenth of the steps, then a linear fall; gradients clipped at 1.

    Args:
        job: the rows, and the tokenizer.
        rate: peak learning rate.
        standard: the architecture's own classification head, in place of a linear layer over the mean of the tokens.
        epochs: number of passes.
        seed: of the head's weights, the order of the rows and dropout.
        xavier: the linear layer starts as fullbake's does, in place of a standard deviation of 0.02.

    Returns:
        The validation and test scores at the end.
    """
    torch.manual_seed(seed)
    names = job.parts.train.source.label_names
    model = _PlainClassifier(len(names), standard)
    if xavier and model.head is not None:
        nn.init.xavier_uniform_(model.head.weight)
    parts = {"train": job.parts.train, "validation": job.parts.validation, "test": job.parts.test}
    rows = {name: _encode(job, part) for name, part in parts.items() if part is not None}
    size = 32
    steps = epochs * -(-len(rows["train"][1]) // size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows["train"][1]))
        for batch in order.split(size):
            logits = model(_inputs(job, rows["train"][0], batch.numpy()))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(rows["train"][1])[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    held = {name: rows[name] for name in ("validation", "test")}
    return scores_of_parts(
        {name: _plain_logits(job, model, encoded) for name, (encoded, _) in held.items()},
        {name: labels for name, (_, labels) in held.items()},
    )


class _PlainClassifier(nn.Module):
    """The base with a linear layer over the mean of the tokens, or under its standard head."""

    def __init__(self, classes: int, standard: bool) -> None:
        super().__init__()
        place = resolve_base("demo")
        if standard:
            self.base = AutoModelForSequenceClassification.from_pretrained(place, num_labels=classes)
            self.head = None
        else:
            self.base = AutoModel.from_pretrained(place, add_pooling_layer=False)
            self.head = nn.Linear(self.base.config.hidden_size, classes)
            nn.init.normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.float()

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.head is None:
            logits: torch.Tensor = self.base(**inputs).logits
            return logits
        hidden, mask = self.base(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
        return self.head((hidden * mask).sum(dim=1) / mask.sum(dim=1))  # type: ignore[no-any-return]


def _encode(job: Job, part: Part) -> tuple[Encoded, np.ndarray]:
    source = part.source.take(part.indices)
    return encode(source.texts, job.tokenizer, job.recipe.tokens, text_pair=source.text_pair), part.labels


def _inputs(job: Job, rows: Encoded, chosen: np.ndarray) -> dict[str, torch.Tensor]:
    picked = rows.take(chosen)
    cuts, types = picked.offsets[1:-1], picked.token_type_ids
    batch = {"input_ids": [row.tolist() for row in np.split(picked.input_ids, cuts)]}
    if types is not None:
        batch["token_type_ids"] = [row.tolist() for row in np.split(types, cuts)]
    return dict(job.tokenizer.pad(batch, return_tensors="pt"))


def _plain_logits(job: Job, model: nn.Module, rows: Encoded) -> np.ndarray:
    model.eval()
    order = np.argsort(rows.lengths, kind="stable")
    logits: np.ndarray | None = None
    with torch.inference_mode():
        for batch in np.split(order, range(64, len(order), 64)):
            found = model(_inputs(job, rows, batch)).numpy()
            logits = np.empty((len(rows), found.shape[1]), np.float32) if logits is None else logits
            logits[batch] = found
    assert logits is not None
    return logits
