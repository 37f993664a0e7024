"""fullbake's side of the comparisons: each function prepares, and returns what is timed."""

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
from fullbake.models.inference import encode
from fullbake.models.pretrained import load_config, resolve_base
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.finetuning import FinetuneSettings, LabeledTexts, finetune
from fullbake.training.frozen import HeadSettings, LabeledFeatures, frozen_features
from fullbake.training.head_grid import train_heads
from fullbake.training.losses import make_training_loss

LABELS = ("0", "1")


class Pass:
    """Frozen features of some texts, as `adapt` takes them."""

    def __init__(self, texts: Sequence[str], pooling: Any, max_length: int) -> None:
        self.texts, self.tokens, self.pooling = texts, TokensConfig(max_length=max_length), pooling
        self.tokenizer = load_tokenizer(BASE)
        self.model = network.build_network(BASE, HeadConfig(kind="linear", pooling=pooling), LABELS, seed=0)

    def into(self, folder: str | Path) -> np.ndarray:
        """The features, from the cache in `folder` where it has them."""
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

    def needed(self) -> float:
        """Operations that the features need."""
        lengths = encode(self.texts, self.tokenizer, self.tokens).lengths
        return operations(lengths, load_config(BASE), first_token=self.pooling == "cls")


def news_features(folder: str, rows: int, pooling: str) -> Callable[[], Run]:
    """Features of AG News test texts, cut at 256 tokens as sentence-transformers cuts them for this base."""
    work = Pass(news(folder, rows), pooling, 256)
    facts = {"operations": work.needed()}

    def run() -> Run:
        with tempfile.TemporaryDirectory() as empty:
            return Run(np.array(work.into(empty)), facts=facts)

    return run


def warm_features(folder: str, rows: int | None) -> Callable[[], Run]:
    """Features of all comments from a cache that has them."""
    work = Pass(comments(folder, rows)[0], "cls", 512)
    kept = tempfile.TemporaryDirectory()
    work.into(kept.name)

    def run() -> Run:
        return Run(np.array(work.into(kept.name)))

    return run


def cold_features(folder: str, rows: int | None, every: int) -> Callable[[], Run]:
    """The same from an empty cache: every so many texts of them, scaled to all."""
    texts = comments(folder, rows)[0]
    work = Pass(texts[::every], "cls", 512)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as empty:
            work.into(empty)
        return Run(scale=len(texts) / len(work.texts))

    return run


def frozen_run(folder: str, rows: int, epochs: int) -> Callable[[], Run]:
    """`adapt` from a file of comments to a saved and scored bundle, from an empty cache."""
    texts, labels = comments(folder, rows)
    recipe = Recipe.load(
        "frozen-mlp", base=BASE, pooling="cls", text="text", label="label", epochs=epochs, folds=0, validation=0.2
    ).with_fields(patience=None)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as place:
            path = _written(Path(place) / "comments.csv", texts, labels)
            classifier = adapt(recipe, path, out=Path(place) / "bundle", cache_dir=Path(place) / "cache")
        return Run(facts={"f1_macro": _validation(classifier)})

    return run


def _validation(classifier: Classifier) -> float:
    return float(classifier.record.facts["metrics"]["validation"]["overall"]["f1_macro"]["value"])


def _written(path: Path, texts: Sequence[str], labels: np.ndarray) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels.tolist(), strict=True)])
    return path


def finetune_epoch(folder: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """One epoch of `finetune` on comments; tokens are ready, as they are for the Trainer."""
    texts, labels = comments(folder, rows)
    training = TrainingConfig(batch_size=batch_size, epochs=1, warmup=0)
    tuned = Tuned(texts, labels, training)
    needed = 3 * operations(tuned.train.encoded.lengths, load_config(BASE), first_token=True)

    def run() -> Run:
        _, history = tuned.fit(seed=0)
        return Run(seconds=history[0]["seconds"], facts={"operations": needed, "loss": history[0]["train_loss"]})

    return run


class Tuned:
    """Texts made ready to be fine-tuned on."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray, training: TrainingConfig) -> None:
        self.tokenizer, self.tokens = load_tokenizer(BASE), TokensConfig(max_length=512)
        self.train = LabeledTexts(encode(texts, self.tokenizer, self.tokens), labels)
        self.training = training

    def fit(self, seed: int) -> tuple[Any, list[dict[str, Any]]]:
        """(the trained network, its history); nothing is validated."""
        training = self.training.model_copy(update={"seed": seed})
        model = network.build_network(BASE, HeadConfig(), LABELS, seed=seed)
        objective = make_training_loss(training, self.train.labels, LABELS)
        pad_id = self.tokenizer.pad_token_id
        tuning = FinetuneSettings(HeadConfig(), training, self.tokens, pad_id, objective)
        return model, finetune(model, self.train, lambda _, epoch: _unjudged(training, epoch), tuning)


def _unjudged(training: TrainingConfig, epoch: int) -> dict[str, float]:
    """Later epochs are better, so that the last one is kept."""
    return {"validation_loss": 0.0, training.metric: float(epoch)}


def classifier() -> Classifier:
    """The base under a new standard head, the same in every process."""
    model = network.build_network(BASE, HeadConfig(kind="standard"), LABELS, seed=0)
    record = RunRecord({"columns": {"text": "text"}})
    return Classifier(model, load_tokenizer(BASE), TokensConfig(max_length=512), record)


def predicted_messages(folder: str, rows: int | None) -> Callable[[], Run]:
    """`predict_file` from a CSV of messages to a CSV of scores."""
    place = tempfile.TemporaryDirectory()
    texts = messages(folder, rows)
    source = _written(Path(place.name) / "messages.csv", texts, np.zeros(len(texts), dtype=int))
    ready = classifier()

    def run() -> Run:
        target = Path(place.name) / "scored.csv"
        predict_file(ready, source, target, overwrite=True)
        scores = [[float(row[f"score:{label}"]) for label in LABELS] for row in read_rows(target)]
        return Run(np.array(scores))

    return run


# The edges: a short text, a long one


def typed_text() -> Callable[[], Run]:
    """The whole command, in a process of its own."""
    place = tempfile.TemporaryDirectory()
    texts, labels = ["good food", "bad food", "a game", "the team"] * 10, np.arange(40) % 2
    path = _written(Path(place.name) / "rows.csv", [f"{text} {row}" for row, text in enumerate(texts)], labels)
    adapt(Recipe.load("frozen-linear", base=BASE, folds=0), path, out=Path(place.name) / "bundle")

    def run() -> Run:
        return _timed(["-m", "fullbake", "predict", f"{place.name}/bundle", "one text"])

    return run


def bare_torch() -> Callable[[], Run]:
    """What no command that computes with torch can do without: the import, and the weights in memory."""
    weights = Path(resolve_base(BASE)) / "model.safetensors"
    code = f"import torch; from safetensors.torch import load_file; load_file({str(weights)!r})"
    return lambda: _timed(["-c", code])


def _timed(arguments: list[str]) -> Run:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return Run(seconds=time.perf_counter() - started)


def scored_dots(characters: int) -> Callable[[], Run]:
    """One long text from string to scores, and the memory it took besides."""
    ready, text = classifier(), "." * characters
    ready.predict_proba(["good"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run() -> Run:
        ready.predict_proba([text])
        return Run(facts={"more MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024})

    return run


# Heads


def grid_together(cells: int, kind: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """All cells of a grid of heads trained at once."""
    grid = Grid(kind, rows, batch_size)
    return lambda: Run(grid.train([range(cells)]))


def grid_in_turn(cells: int, kind: str, rows: int, batch_size: int) -> Callable[[], Run]:
    """The cells of a grid of heads, one after another."""
    grid = Grid(kind, rows, batch_size)
    return lambda: Run(grid.train([[cell] for cell in range(cells)]))


class Grid:
    """Heads of other rates and seeds on the same features: random ones, since what they say takes no time."""

    def __init__(self, kind: str, rows: int, batch_size: int) -> None:
        random = np.random.default_rng(0)
        features = random.standard_normal((rows, 384), dtype=np.float32)
        self.train_rows = LabeledFeatures(features, (features[:, 0] > 0).astype(np.int64))
        self.kind, self.batch_size = kind, batch_size
        self.objective = make_training_loss(TrainingConfig(), self.train_rows.labels, LABELS)

    def train(self, groups: Sequence[Sequence[int]]) -> np.ndarray:
        """Train the cells of each group at once. Returns the output layers' weights, cell by cell."""
        weights = []
        for group in groups:
            heads = [self._head(cell) for cell in group]
            settings = [self._settings(cell) for cell in group]
            train_heads(heads, self.train_rows, lambda _, epoch: _unjudged(TrainingConfig(), epoch), settings)
            weights += [head.get_submodule("output").weight.detach().numpy().copy() for head in heads]
        return np.stack(weights)

    def _head(self, cell: int) -> torch.nn.Module:
        torch.manual_seed(cell)
        return build_head(self.kind, 384, len(LABELS), dropout=0.15, layers=2, width=384)

    def _settings(self, cell: int) -> HeadSettings:
        training = TrainingConfig(
            optimizer="adam",
            learning_rate=((1e-2, 3e-3, 1e-3, 3e-4)[cell % 4],),
            batch_size=self.batch_size,
            epochs=1,
            warmup=0,
            seed=cell // 4,
        )
        return HeadSettings(HeadConfig(kind=self.kind, width=384), training, self.objective)


# The machine


def matrix_product(size: int) -> Callable[[], Run]:
    """The most that the machine can do: a large product in fp32, the best of several."""
    one, other = torch.randn(size, size), torch.randn(size, size)

    def run() -> Run:
        seconds = []
        for _ in range(8):
            started = time.perf_counter()
            torch.mm(one, other)
            seconds.append(time.perf_counter() - started)
        return Run(facts={"operations_per_second": 2 * size**3 / min(seconds)})

    return run
