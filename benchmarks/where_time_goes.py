"""The share of each kind of operation in the time of features and of fine-tuning, by torch's profiler.

    python benchmarks/where_time_goes.py FOLDER_OF_DATA [TEXTS] [COMMENTS]

It profiles features (`cls` and `mean`) of AG News test texts and an epoch of fine-tuning on comments, as in speed.py,
with all fast layers. `outside torch` is tokenization, the random numbers of dropout, Python code between operations,
and writing to disk.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from machine import store_result
from ours import finetune_epoch, news_features
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "dense layers": ("aten::addmm", "aten::mm"),
    "attention": (
        "aten::bmm",
        "aten::baddbmm",
        "aten::_softmax",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "_Attention",
        "_AttentionBackward",
    ),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "norms and sums": (
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
        "aten::add",
        "aten::add_",
        "aten::sum",
    ),
    "dropout": ("_Drop", "_DropBackward", "aten::mul_", "aten::mul"),
    "optimizer": ("aten::_fused_adamw_", "aten::_foreach_norm", "aten::_foreach_mul_"),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::index_copy_", "aten::index_select"),
}


def main(folder: str, texts: int, comments: int) -> None:
    rows = [
        measured("features, `cls`", news_features(folder, texts, "cls")),
        measured("features, `mean`", news_features(folder, texts, "mean")),
        measured("fine-tuning", finetune_epoch(folder, comments, 16)),
    ]
    store_result("where_time_goes", rows, texts=texts, comments=comments)


def measured(work: str, run: Callable[[], Any]) -> dict[str, Any]:
    """Profile one call, after one that warms up."""
    run()
    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    seconds = time.perf_counter() - started
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key in names), "other operations")
        spent[kind] += event.self_cpu_time_total / 1e6
    spent["outside torch"] = seconds - sum(spent.values())
    shares = {kind: f"{spent[kind] / seconds:.1%}" for kind in [*KINDS, "other operations", "outside torch"]}
    return {"work": work, "seconds": seconds} | shares


if __name__ == "__main__":
    texts, comments = [*map(int, sys.argv[2:]), *(1000, 128)[len(sys.argv) - 2 :]]
    main(sys.argv[1], texts, comments)
