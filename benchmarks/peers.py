"""The other side of the speed comparisons: what people use today, used as its documentation says.

sentence-transformers is in the extra `bench` (`pip install -c constraints.txt -e '.[bench]'`).
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import Run
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)
from work import BASE, comments, messages, news

from fullbake.models.pretrained import resolve_base

FOLDER = str(resolve_base(BASE))


# sentence-transformers


def sentence_vectors(folder: str, rows: int, pooling: str) -> Callable[[], Run]:
    """Run `encode` with its defaults: take the vectors that it pools, or the first of the token embeddings."""
    from sentence_transformers import SentenceTransformer

    model, texts = SentenceTransformer(FOLDER, device="cpu"), news(folder, rows)

    def run() -> Run:
        if pooling == "mean":
            return Run(model.encode(texts, show_progress_bar=False))
        found = model.encode(texts, output_value="token_embeddings", show_progress_bar=False)
        return Run(np.stack([vectors[0].numpy() for vectors in found]))

    return run


# The common way to use a frozen base


def textbook_run(folder: str, rows: int, of: int, epochs: int) -> Callable[[], Run]:
    """Train the same head on the same rows as fullbake, with texts padded to 512 and the encoder run in every epoch.

    Args:
        folder: The folder of the data sets.
        rows: The rows to use.
        of: The rows of the whole work. The time is scaled to them, because all rows take the same time.
        epochs: The epochs to train.
    """
    texts, labels = comments(folder, rows)
    validation_rows = round(rows * 0.2)

    def run() -> Run:
        started = time.perf_counter()
        encoder = AutoModel.from_pretrained(FOLDER, dtype=torch.float32).eval().requires_grad_(False)
        head = _head(encoder.config.hidden_size)
        fixed, started = time.perf_counter() - started, time.perf_counter()
        data = _padded(texts, labels)
        train, validation = data[validation_rows:], data[:validation_rows]
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(epochs):
            _train_epoch(encoder, head, optimizer, train)
            score = f1_score(labels[:validation_rows], _predicted(encoder, head, validation), average="macro")
        with tempfile.TemporaryDirectory() as work_folder:
            torch.save({"encoder": encoder.state_dict(), "head": head.state_dict()}, Path(work_folder) / "weights.pt")
        seconds = time.perf_counter() - started
        return Run(seconds=seconds, scale=of / rows, fixed=fixed, facts={"f1_macro": float(score), "rows": rows})

    return run


def _head(width: int) -> nn.Sequential:
    blocks = [part for _ in range(2) for part in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())]
    return nn.Sequential(nn.Dropout(0.15), *blocks, nn.Linear(width, 2))


def _padded(texts: Sequence[str], labels: np.ndarray) -> list[tuple[dict[str, Tensor], int]]:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    found = tokenizer(list(texts), padding="max_length", truncation=True, max_length=512, return_tensors="pt")
    return [({name: found[name][row] for name in found}, int(labels[row])) for row in range(len(texts))]


def _train_epoch(encoder: nn.Module, head: nn.Sequential, optimizer: torch.optim.Optimizer, data: Any) -> None:
    head.train()
    for inputs, labels in DataLoader(data, batch_size=16, shuffle=True, drop_last=len(data) % 16 == 1):
        with torch.no_grad():
            vectors = encoder(**inputs).last_hidden_state[:, 0]
        output = head[-1]
        loss = nn.functional.cross_entropy(head(vectors), labels) + 0.01 * output.weight.square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _predicted(encoder: nn.Module, head: nn.Sequential, data: Any) -> np.ndarray:
    head.eval()
    with torch.no_grad():
        found = [head(encoder(**inputs).last_hidden_state[:, 0]).argmax(1) for inputs, _ in DataLoader(data, 16)]
    return torch.cat(found).numpy()


# transformers' Trainer


def trainer_epoch(folder: str, rows: int, of: int, batch_size: int, padding: str) -> Callable[[], Run]:
    """Train one epoch with the Trainer; the token ids are ready.

    Args:
        folder: The folder of the data sets.
        rows: The rows to train on.
        of: The rows of the whole work. The time is scaled to them.
        batch_size: Rows per step.
        padding: `max_length` pads every text to 512, `longest` to the longest of its batch; `grouped` does so with
            batches of texts of similar length.
    """
    texts, labels = comments(folder, rows)
    work = TrainerWork(texts, labels, batch_size, padding)

    def run() -> Run:
        _, seconds, loss = work.fit(seed=0, epochs=1)
        return Run(seconds=seconds, scale=of / rows, facts={"loss": loss, "rows": rows})

    return run


class TrainerWork:
    """Encoded texts for the Trainer."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray, batch_size: int, padding: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self.padding, self.batch_size = padding, batch_size
        self.rows = [self.encoded(text) | {"labels": int(label)} for text, label in zip(texts, labels, strict=True)]

    def encoded(self, text: str) -> dict[str, Any]:
        return dict(
            self.tokenizer(text, truncation=True, max_length=512, padding=self.padding == "max_length" and "max_length")
        )

    def fit(self, seed: int, epochs: int) -> tuple[Any, float, float]:
        """Return the trained model, the seconds of training alone, and the mean loss."""
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=2, dtype=torch.float32)
        with tempfile.TemporaryDirectory() as work_folder:
            trainer = Trainer(
                model=model,
                args=self._arguments(work_folder, seed, epochs),
                train_dataset=self.rows,
                data_collator=DataCollatorWithPadding(self.tokenizer),
            )
            started = time.perf_counter()
            done = trainer.train()
        return model, time.perf_counter() - started, float(done.training_loss)

    def _arguments(self, folder: str, seed: int, epochs: int) -> TrainingArguments:
        return TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=self.batch_size,
            learning_rate=5e-5,
            weight_decay=0.01,
            train_sampling_strategy="group_by_length" if self.padding == "grouped" else "random",
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )

    def scores(self, model: Any, texts: Sequence[str]) -> np.ndarray:
        """Return the logits of texts (texts, 2)."""
        model.eval()
        collate = DataCollatorWithPadding(self.tokenizer)
        rows = [dict(self.tokenizer(text, truncation=True, max_length=512)) for text in texts]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
        found = np.empty((len(rows), 2))
        with torch.no_grad():
            for part in np.array_split(np.array(order), math.ceil(len(order) / 16)):
                found[part] = model(**collate([rows[row] for row in part])).logits.numpy()
        return found


# transformers' pipeline


def piped_messages(folder: str, rows: int | None) -> Callable[[], Run]:
    """Run `pipeline("text-classification", batch_size=32)` on all messages, with the same weights as fullbake."""
    from ours import LABELS, classifier

    model_folder = tempfile.TemporaryDirectory()
    made = classifier()
    made.network.save_pretrained(model_folder.name)
    made.tokenizer.model_max_length = 512
    made.tokenizer.save_pretrained(model_folder.name)
    classify = pipeline(
        "text-classification", model=model_folder.name, device="cpu", batch_size=32, dtype=torch.float32
    )
    texts = messages(folder, rows)

    def run() -> Run:
        found = classify(texts, truncation=True, top_k=None)
        named = [{score["label"]: score["score"] for score in row} for row in found]
        return Run(np.array([[row[label] for label in LABELS] for row in named]))

    return run
