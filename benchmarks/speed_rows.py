"""The comparisons of `speed.py` and docs/benchmarks.md: the work, the sides, the number of rounds, and the aim."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rounds import Side


@dataclass(frozen=True)
class Peer:
    """What fullbake is compared with, and the aim. Without an aim the page only shows the ratio.

    Attributes:
        side: The other side.
        at_least: fullbake should be at least this many times as fast.
        at_most: fullbake should take at most this many times as long.
    """

    side: Side
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Some work that fullbake and its peers do.

    Attributes:
        work: The work, in words.
        ours: The side of fullbake.
        peers: The other sides.
        rounds: The number of rounds.
        warm_up: Call every side once before the first round.
        share_at_least: The aim for the speed on real tokens, as a share of the speed of a matrix product.
        agreement: The largest difference allowed between answers; None: answers are not compared.
        normalized: Scale rows to length 1 before they are compared.
        quality: Whether docs/benchmarks.md shows the scores of `quality.py` too.
    """

    work: str
    ours: Side
    peers: tuple[Peer, ...]
    rounds: int
    warm_up: bool = True
    share_at_least: float | None = None
    agreement: float | None = None
    normalized: bool = False
    quality: bool = False


@dataclass(frozen=True)
class Size:
    """The size of the work in each comparison.

    Attributes:
        news: News texts.
        comments: Comments for the caches; None: all.
        frozen: Comments for the frozen run.
        tuned: Comments for fine-tuning.
        slow: Comments where one side takes minutes.
        padded: Comments where all texts are padded to the same length, so that each takes the same time.
        messages: Messages to predict; None: all.
        every: One comment in this many is computed for the empty cache.
        features: Rows that heads train on.
        dots: Characters of the long text.
        rounds: Rounds of fast comparisons, and of slow ones.
    """

    news: int
    comments: int | None
    frozen: int
    tuned: int
    slow: int
    padded: int
    messages: int | None
    every: int
    features: int
    dots: int
    rounds: tuple[int, int]


SIZES: dict[Literal["usual", "full", "quick"], Size] = {
    "usual": Size(3000, None, 2000, 512, 128, 64, None, 5, 2000, 10**7, (5, 3)),
    "full": Size(3000, None, 2000, 512, 512, 512, None, 1, 2000, 10**7, (5, 3)),
    "quick": Size(16, 16, 60, 16, 16, 16, 16, 2, 160, 10**6, (1, 1)),
}


def comparisons(folder: str, size: Size) -> dict[str, Comparison]:
    """Return every comparison by its name. folder: holds the data sets."""
    makers: tuple[Callable[[str, Size], dict[str, Comparison]], ...] = (
        _features,
        _frozen,
        _finetune,
        _predict,
        _grids,
        _edges,
    )
    return {name: found for make in makers for name, found in make(folder, size).items()}


def _features(folder: str, size: Size) -> dict[str, Comparison]:
    def comparison(pooling: str, peer: str, at_least: float) -> Comparison:
        options = {"folder": folder, "rows": size.news, "pooling": pooling}
        return Comparison(
            f"features of {size.news:,} AG News test texts, `{pooling}`",
            Side("fullbake", "ours:news_features", options),
            (Peer(Side(peer, "peers:sentence_vectors", options), at_least),),
            rounds=size.rounds[0],
            share_at_least=0.8,
            agreement=1e-4,
            normalized=pooling == "mean",
        )

    name = "sentence-transformers `encode`"
    everything = size.comments or 8322
    cold = {"folder": folder, "rows": size.comments, "every": size.every}
    return {
        "features-cls": comparison("cls", f"{name}, first token embedding", 1.6),
        "features-mean": comparison("mean", f"{name}", 1.4),
        "warm-cache": Comparison(
            f"features of {everything:,} comments from a warm cache",
            Side("fullbake", "ours:warm_features", {"folder": folder, "rows": size.comments}),
            (Peer(Side("fullbake, computing them", "ours:cold_features", cold), 100),),
            rounds=size.rounds[1],
        ),
    }


def _frozen(folder: str, size: Size) -> dict[str, Comparison]:
    slow = {"folder": folder, "rows": min(size.slow, size.frozen), "of": size.frozen, "epochs": 3}
    return {
        "frozen-run": Comparison(
            f"a `frozen` run of 3 epochs on {size.frozen:,} comments, from text to scored bundle",
            Side("fullbake", "ours:frozen_run", {"folder": folder, "rows": size.frozen, "epochs": 3}),
            (Peer(Side("the common way: padded to 512, encoder in every epoch", "peers:textbook_run", slow), 18),),
            rounds=size.rounds[1],
            warm_up=False,
        )
    }


def _finetune(folder: str, size: Size) -> dict[str, Comparison]:
    def trainer(name: str, padding: str, rows: int, at_least: float) -> Peer:
        options = {"folder": folder, "rows": rows, "of": size.slow, "batch_size": 16, "padding": padding}
        return Peer(Side(f"Trainer, {name}", "peers:trainer_epoch", options), at_least)

    return {
        "finetune-epoch": Comparison(
            f"a `finetune` epoch on {size.slow} comments, batch 16",
            Side("fullbake", "ours:finetune_epoch", {"folder": folder, "rows": size.slow, "batch_size": 16}),
            (
                trainer("every text padded to 512", "max_length", size.padded, 18),
                trainer("dynamic padding", "longest", size.slow, 10),
                trainer('`train_sampling_strategy="group_by_length"`', "grouped", size.slow, 3),
            ),
            rounds=size.rounds[1],
            warm_up=False,
            quality=True,
        )
    }


def _predict(folder: str, size: Size) -> dict[str, Comparison]:
    options = {"folder": folder, "rows": size.messages}
    return {
        "predict-messages": Comparison(
            "prediction of `sms_spam.csv`, file to file",
            Side("fullbake", "ours:predicted_messages", options),
            (Peer(Side('`pipeline("text-classification", batch_size=32)`', "peers:piped_messages", options), 3),),
            rounds=size.rounds[1],
            warm_up=False,
            agreement=1e-4,
        )
    }


def _grids(_: str, size: Size) -> dict[str, Comparison]:
    def grid(kind: str, batch_size: int, peer: Callable[[dict[str, Any]], Peer]) -> Comparison:
        options = {"kind": kind, "rows": size.features, "batch_size": batch_size}
        return Comparison(
            f"12 `{kind}` heads trained together, batch {batch_size}, {size.features:,} rows of 384",
            Side("fullbake", "ours:heads_together", options | {"heads": 12}),
            (peer(options),),
            rounds=size.rounds[0],
        )

    def in_turn(heads: int, name: str, options: dict[str, Any]) -> Side:
        return Side(name, "ours:heads_in_turn", options | {"heads": heads})

    return {
        "grid-linear": grid("linear", 16, lambda options: Peer(in_turn(1, "one of them", options), at_most=2)),
        "grid-mlp": grid("mlp", 16, lambda options: Peer(in_turn(12, "one after another", options), 1.8)),
        "grid-mlp-128": grid("mlp", 128, lambda options: Peer(in_turn(12, "one after another", options))),
    }


def _edges(_: str, size: Size) -> dict[str, Comparison]:
    return {
        "start": Comparison(
            'the command `fullbake predict BUNDLE "one text"`',
            Side("fullbake", "ours:typed_text"),
            (Peer(Side("importing torch and reading the weights only", "ours:bare_torch")),),
            rounds=size.rounds[0],
        ),
        "dots": Comparison(
            f"scores of one text of {size.dots // 10**6} MB that is all dots",
            Side("fullbake", "ours:scored_dots", {"characters": size.dots}),
            (),
            rounds=size.rounds[0],
        ),
    }
