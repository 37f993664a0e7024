"""fullbake's side of the speed comparisons: each function prepares some work and returns the function that is timed."""

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import Run
from work import BASE, comments, messages, news, operations, read_rows

from fullbake import Classifier, Recipe, adapt, predict_file
from fullbake.classifier.model import RunRecord
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.cache import Cache
from fullbake.models import network
from fullbake.models.heads import build_head
from fullbake.models.prediction import encode
from fullbake.models.pretrained import load_config, resolve_base
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.finetuning import FinetuneSettings, LabeledTexts, finetune
from fullbake.training.frozen import HeadSettings, LabeledFeatures, frozen_features
from fullbake.training.head_grid import train_heads
from fullbake.training.losses import make_training_loss

LABELS = ("0", "1")


class FeatureWork:
    """Frozen features of some texts, computed as `adapt` computes them."""

    def __init__(self, texts: Sequence[str], pooling: Any, max_length: int) -> None:
        self.texts, self.tokens, self.pooling = texts, TokensConfig(max_length=max_length), pooling
        self.tokenizer = load_tokenizer(BASE)
        self.model = network.build_network(BASE, HeadConfig(kind="linear", pooling=pooling), LABELS, seed=0)

    def features(self, folder: str | Path) -> np.ndarray:
        """Return the features (texts, width), from the cache in `folder` if it holds them."""
        found: Any = frozen_features(
            self.model,
            lambda: encode(self.texts, self.tokenizer, self.tokens),
            key="features",
            cache=Cache(folder, 1 << 40),
            tokens=self.tokens,
            pad_id=self.tokenizer.pad_token_id,
        )
        values: np.ndarray = found.vectors
        return values

    def operations(self) -> float:
        """Return the number of floating-point operations that the features need."""
        lengths = encode(self.texts, self.tokenizer, self.tokens).lengths
        return operations(lengths, load_config(BASE), first_token=self.pooling == "cls")


def news_features(folder: str, rows: int, pooling: str) -> Callable[[], Run]:
    """Compute features of AG News test texts, cut to 256 tokens as sentence-transformers does for this base."""
    work = FeatureWork(news(folder, rows), pooling, 256)
    facts = {"operations": work.operations()}

    def run() -> Run:
        with tempfile.TemporaryDirectory() as empty:
            return Run(np.array(work.features(empty)), facts=facts)

    return run


def warm_features(folder: str, rows: int | None) -> Callable[[], Run]:
    """Read the features of all comments from a cache that holds them."""
    work = FeatureWork(comments(folder, rows)[0], "cls", 512)
    cache = tempfile.TemporaryDirectory()
    work.features(cache.name)

    def run() -> Run:
        return Run(np.array(work.features(cache.name)))

    return run


def cold_features(folder: str, rows: int | None, every: int) -> Callable[[], Run]:
    """Compute the same features with an empty cache, of one text in `every`; the time is scaled to all texts."""
    texts = comments(folder, rows)[0]
    work = FeatureWork(texts[::every], "cls", 512)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as empty:
            work.features(empty)
        return Run(scale=len(texts) / len(work.texts))

    return run


def frozen_run(folder: str, rows: int, epochs: int) -> Callable[[], Run]:
    """Run `adapt` from a file of comments to a saved and scored bundle, with an empty cache."""
    texts, labels = comments(folder, rows)
    recipe = Recipe.load(
        "frozen-mlp", base=BASE, pooling="cls", text="text", label="label", epochs=epochs, folds=0, validation=0.2
    ).with_fields(patience=None)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as made:
            path = _write_csv(Path(made) / "comments.csv", texts, labels)
            classifier = adapt(recipe, path, out=Path(made) / "bundle", cache_dir=Path(made) / "cache")
        return Run(facts={"f1_macro": _validation_f1(classifier)})

    return run


def _validation_f1(classifier: Classifier) -> float:
    return float(classifier.record.facts["metrics"]["validation"]["overall"]["f1_macro"]["value"])


def _write_csv(path: Path, texts: Sequence[str], labels: np.ndarray) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels.tolist(), strict=True)])
    return path


def finetune_epoch(folder: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """Train one epoch of `finetune` on comments; the token ids are ready, as they are for the Trainer."""
    texts, labels = comments(folder, rows)
    training = TrainingConfig(batch_size=batch_size, epochs=1, warmup=0)
    work = FinetuneWork(texts, labels, training)
    needed = 3 * operations(work.train.encoded.lengths, load_config(BASE), first_token=True)

    def run() -> Run:
        _, history = work.fit(seed=0)
        return Run(seconds=history[0]["seconds"], facts={"operations": needed, "loss": history[0]["train_loss"]})

    return run


class FinetuneWork:
    """Encoded texts to fine-tune on."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray, training: TrainingConfig) -> None:
        self.tokenizer, self.tokens = load_tokenizer(BASE), TokensConfig(max_length=512)
        self.train = LabeledTexts(encode(texts, self.tokenizer, self.tokens), labels)
        self.training = training

    def fit(self, seed: int) -> tuple[Any, list[dict[str, Any]]]:
        """Return the trained network and its history; nothing is validated."""
        training = self.training.model_copy(update={"seed": seed})
        model = network.build_network(BASE, HeadConfig(), LABELS, seed=seed)
        loss = make_training_loss(training, self.train.labels, LABELS)
        pad_id = self.tokenizer.pad_token_id
        tuning = FinetuneSettings(HeadConfig(), training, self.tokens, pad_id, loss)
        return model, finetune(model, self.train, lambda _, epoch: _no_validation(training, epoch), tuning)


def _no_validation(training: TrainingConfig, epoch: int) -> dict[str, float]:
    """Return scores that rise with the epoch, so that the last epoch counts as the best."""
    return {"validation_loss": 0.0, training.metric: float(epoch)}


def classifier() -> Classifier:
    """Return the base with a new standard head, the same in every process."""
    model = network.build_network(BASE, HeadConfig(kind="standard"), LABELS, seed=0)
    record = RunRecord({"columns": {"text": "text"}})
    return Classifier.of_network(model, load_tokenizer(BASE), TokensConfig(max_length=512), record)


def predicted_messages(folder: str, rows: int | None) -> Callable[[], Run]:
    """Run `predict_file` from a CSV of messages to a CSV of scores."""
    work_folder = tempfile.TemporaryDirectory()
    texts = messages(folder, rows)
    source = _write_csv(Path(work_folder.name) / "messages.csv", texts, np.zeros(len(texts), dtype=int))
    model = classifier()

    def run() -> Run:
        target = Path(work_folder.name) / "scored.csv"
        predict_file(model, source, target, overwrite=True)
        scores = [[float(row[f"score:{label}"]) for label in LABELS] for row in read_rows(target)]
        return Run(np.array(scores))

    return run


# One short text, one long text


def typed_text() -> Callable[[], Run]:
    """Run the whole command in a new process."""
    work_folder = tempfile.TemporaryDirectory()
    texts, labels = ["good food", "bad food", "a game", "the team"] * 10, np.arange(40) % 2
    path = _write_csv(Path(work_folder.name) / "rows.csv", [f"{text} {row}" for row, text in enumerate(texts)], labels)
    adapt(Recipe.load("frozen-linear", base=BASE, folds=0), path, out=Path(work_folder.name) / "bundle")

    def run() -> Run:
        return _timed(["-m", "fullbake", "predict", f"{work_folder.name}/bundle", "one text"])

    return run


def bare_torch() -> Callable[[], Run]:
    """Import torch and load the weights, which every command that computes with torch must do."""
    weights = Path(resolve_base(BASE)) / "model.safetensors"
    code = f"import torch; from safetensors.torch import load_file; load_file({str(weights)!r})"
    return lambda: _timed(["-c", code])


def _timed(arguments: list[str]) -> Run:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return Run(seconds=time.perf_counter() - started)


def scored_dots(characters: int) -> Callable[[], Run]:
    """Score one long text, and record how much more memory that takes."""
    model, text = classifier(), "." * characters
    model.predict_proba(["good"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run() -> Run:
        model.predict_proba([text])
        return Run(facts={"more MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024})

    return run


# Heads


def heads_together(heads: int, kind: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """Train this many heads together."""
    work = HeadsWork(kind, rows, batch_size)
    return lambda: Run(work.train([range(heads)]))


def heads_in_turn(heads: int, kind: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """Train this many heads one after another."""
    work = HeadsWork(kind, rows, batch_size)
    return lambda: Run(work.train([[head] for head in range(heads)]))


class HeadsWork:
    """Heads with different rates and seeds on the same random features; the time does not depend on their values."""

    def __init__(self, kind: str, rows: int, batch_size: int) -> None:
        random = np.random.default_rng(0)
        features = random.standard_normal((rows, 384), dtype=np.float32)
        self.train_rows = LabeledFeatures(features, (features[:, 0] > 0).astype(np.int64))
        self.kind, self.batch_size = kind, batch_size
        self.loss = make_training_loss(TrainingConfig(), self.train_rows.labels, LABELS)

    def train(self, groups: Sequence[Sequence[int]]) -> np.ndarray:
        """Train the heads of each group together. Return the weights of the output layers (heads, classes, width)."""
        weights = []
        for group in groups:
            heads = [self._head(number) for number in group]
            settings = [self._settings(number) for number in group]
            train_heads(heads, self.train_rows, lambda _, epoch: _no_validation(TrainingConfig(), epoch), settings)
            weights += [head.get_submodule("output").weight.detach().numpy().copy() for head in heads]
        return np.stack(weights)

    def _head(self, number: int) -> torch.nn.Module:
        torch.manual_seed(number)
        return build_head(self.kind, 384, len(LABELS), dropout=0.15, layers=2, width=384)

    def _settings(self, number: int) -> HeadSettings:
        training = TrainingConfig(
            optimizer="adam",
            learning_rate=((1e-2, 3e-3, 1e-3, 3e-4)[number % 4],),
            batch_size=self.batch_size,
            epochs=1,
            warmup=0,
            seed=number // 4,
        )
        return HeadSettings(HeadConfig(kind=self.kind, width=384), training, self.loss)


# The machine


def matrix_product(size: int) -> Callable[[], Run]:
    """Multiply two large fp32 matrices, and record the operations per second of the fastest of 8 products."""
    one, other = torch.randn(size, size), torch.randn(size, size)

    def run() -> Run:
        seconds = []
        for _ in range(8):
            started = time.perf_counter()
            torch.mm(one, other)
            seconds.append(time.perf_counter() - started)
        return Run(facts={"operations_per_second": 2 * size**3 / min(seconds)})

    return run
