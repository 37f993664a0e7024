"""The comparisons of `speed.py`, which docs/benchmarks.md shows: what, against what, how often, and the aim."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rounds import Side


@dataclass(frozen=True)
class Against:
    """A peer, and the ratio to it that is aimed at: at least so many times its speed, or at most so many times its
    time. None: the row only shows the ratio."""

    side: Side
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Our side of some work and its peers. share_at_least: of the machine's matrix product, on real tokens alone.
    agreement: how far answers may lie apart, None where there is nothing to compare. normalized: whether to compare
    rows of unit length. quality: whether docs/benchmarks.md shows the scores of `quality.py` beside it."""

    work: str
    ours: Side
    peers: tuple[Against, ...]
    rounds: int
    warm_up: bool = True
    share_at_least: float | None = None
    agreement: float | None = None
    normalized: bool = False
    quality: bool = False


@dataclass(frozen=True)
class Size:
    """How much each comparison works on. slow: rows where one side takes minutes; padded: of these, where every row
    costs alike; every: of so many comments one is computed anew for the cold cache; features: rows that heads
    train on; dots: characters; rounds: of what is quick, and slow."""

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
    """Every comparison by its name. folder: of the data sets."""
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
            (Against(Side(peer, "peers:sentence_vectors", options), at_least),),
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
            (Against(Side("fullbake, computing them", "ours:cold_features", cold), 100),),
            rounds=size.rounds[1],
        ),
    }


def _frozen(folder: str, size: Size) -> dict[str, Comparison]:
    slow = {"folder": folder, "rows": min(size.slow, size.frozen), "of": size.frozen, "epochs": 3}
    return {
        "frozen-run": Comparison(
            f"a `frozen` run of 3 epochs on {size.frozen:,} comments, from text to scored bundle",
            Side("fullbake", "ours:frozen_run", {"folder": folder, "rows": size.frozen, "epochs": 3}),
            (Against(Side("the textbook: padded to 512, encoder in every epoch", "peers:textbook_run", slow), 18),),
            rounds=size.rounds[1],
            warm_up=False,
        )
    }


def _finetune(folder: str, size: Size) -> dict[str, Comparison]:
    def trainer(name: str, padding: str, rows: int, at_least: float) -> Against:
        options = {"folder": folder, "rows": rows, "of": size.slow, "batch_size": 16, "padding": padding}
        return Against(Side(f"Trainer, {name}", "peers:trainer_epoch", options), at_least)

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
            (Against(Side('`pipeline("text-classification", batch_size=32)`', "peers:piped_messages", options), 3),),
            rounds=size.rounds[1],
            warm_up=False,
            agreement=1e-4,
        )
    }


def _grids(_: str, size: Size) -> dict[str, Comparison]:
    def grid(kind: str, batch_size: int, against: Callable[[dict[str, Any]], Against]) -> Comparison:
        options = {"kind": kind, "rows": size.features, "batch_size": batch_size}
        return Comparison(
            f"12 `{kind}` heads trained together, batch {batch_size}, {size.features:,} rows of 384",
            Side("fullbake", "ours:grid_together", options | {"cells": 12}),
            (against(options),),
            rounds=size.rounds[0],
        )

    def in_turn(cells: int, name: str, options: dict[str, Any]) -> Side:
        return Side(name, "ours:grid_in_turn", options | {"cells": cells})

    return {
        "grid-linear": grid("linear", 16, lambda options: Against(in_turn(1, "one of them", options), at_most=2)),
        "grid-mlp": grid("mlp", 16, lambda options: Against(in_turn(12, "one after another", options), 1.8)),
        "grid-mlp-128": grid("mlp", 128, lambda options: Against(in_turn(12, "one after another", options))),
    }


def _edges(_: str, size: Size) -> dict[str, Comparison]:
    return {
        "start": Comparison(
            'the command `fullbake predict BUNDLE "one text"`',
            Side("fullbake", "ours:typed_text"),
            (Against(Side("importing torch and reading the weights, no more", "ours:bare_torch")),),
            rounds=size.rounds[0],
        ),
        "dots": Comparison(
            f"scores of one text of {size.dots // 10**6} MB that is all dots",
            Side("fullbake", "ours:scored_dots", {"characters": size.dots}),
            (),
            rounds=size.rounds[0],
        ),
    }
