"""The rates that docs/explanation/scale.md plans with: each step of further pretraining on one core.

    python benchmarks/scale.py FOLDER_OF_DATA

Text is the first part of the IMDb reviews, the base is demo, rows have 128 tokens, batches 32 rows. Rates are per
second of processor time on one thread, except that of checkpoints, which is by the clock (disks do not wait on a
processor). Memory a document is that of the lists of what is trained on and what is held out, of a made-up corpus.
"""

import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import store_result

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core import hashing
from fullbake.core.cache import Cache
from fullbake.models.fast_layers import fast_layers
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.corpus import Corpus, Shard, build_corpus, hold_out
from fullbake.pretraining.documents import Decontamination, file_source
from fullbake.pretraining.forgetting import corpus_tokenizer_of
from fullbake.pretraining.run import PretrainingRun, prepare_run, step_losses
from fullbake.training.checkpoints import Checkpoint, CheckpointInterval, Checkpoints

CHARACTERS = 12_000_000
STEPS = 8
DOCUMENTS = 400_000
rows: list[dict[str, Any]] = []


@contextmanager
def measured(
    step: str, unit: str, amount: Callable[[], float], *, clock: Callable[[], float] = time.process_time
) -> Iterator[None]:
    """Store the rate of a block: its amount in units, divided by its seconds."""
    started = clock()
    yield
    note(step, amount() / (clock() - started), unit)


def note(step: str, value: float, unit: str) -> None:
    rows.append({"step": step, "value": float(f"{value:.4g}"), "unit": unit})
    print(rows[-1], flush=True)


def write_text(folder: Path, target: Path) -> int:
    """Write some megabytes of reviews, one line a paragraph, a blank line between; return the bytes."""
    texts = pq.read_table(folder / "imdb_unlabelled.parquet", columns=["text"])["text"].to_pylist()
    size = 0
    with target.open("w", encoding="utf-8") as file:
        for text in texts:
            size += file.write(text.replace("<br /><br />", "\n") + "\n\n")
            if size >= CHARACTERS:
                break
    return target.stat().st_size


def measure_text(file: Path, size: int, cache: Path) -> None:
    megabytes = size / 1e6
    with measured("hash of the text", "MB/s", lambda: megabytes):
        hashing.file_sha256(file)
    source = Decontamination().apply(file_source(file))
    with measured("reading the text", "MB/s", lambda: megabytes):
        documents = sum(1 for _ in source.read())
    note("bytes of a document", size / documents, "bytes")
    tokenizer = corpus_tokenizer_of(load_mlm_tokenizer("demo"))
    with measured("tokenizing", "MB/s", lambda: megabytes):
        corpus = build_corpus([source], tokenizer, Cache(cache / "corpora", 1 << 40), processes=1)
    note("tokens of a byte", corpus.facts["tokens"] / size, "tokens")
    written = sum(path.stat().st_size for path in cache.rglob("*.npy"))
    note("shards of a byte of text", written / size, "bytes")


def measure_steps(run: PretrainingRun) -> None:
    loader = run.loader
    tokens = loader.corpus.facts["tokens"]
    with measured("rows and plan of a shard", "tokens/s", lambda: tokens):
        loader._build_shard_epoch(loader._shard_epochs(0, 0)[0])
    steps = loader.plan(0, STEPS)
    sizes = [int(loader.batch(step, run.masking).encoded.lengths.sum()) for step in steps]
    with measured("masking a step", "tokens/s", lambda: float(sum(sizes))):
        for step in steps:
            loader.batch(step, run.masking)
    parameters = [p for p in run.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    run.network.train()
    seconds = []
    with fast_layers(run.network):
        for step, size in zip(steps, sizes, strict=True):
            started = time.process_time()
            for loss in step_losses(run, step, step):
                loss.backward()
            for parameter in parameters:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.to_dense()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append((time.process_time() - started) / size)
    note("training", 1 / statistics.median(seconds), "tokens/s")
    note("gradients", sum(p.nbytes for p in parameters), "bytes")
    measure_checkpoint(run)


def measure_checkpoint(run: PretrainingRun) -> None:
    weights = {name: tensor.detach().numpy() for name, tensor in run.network.state_dict().items()}
    size = 4 * sum(array.nbytes for array in weights.values())
    arrays = dict.fromkeys(("model", "best", "first", "second"), weights)  # two moments are as large
    with tempfile.TemporaryDirectory() as made:
        checkpoints = Checkpoints(Path(made), CheckpointInterval(steps=1), "run")
        with measured("writing and verifying a checkpoint", "MB/s", lambda: size / 1e6, clock=time.perf_counter):
            checkpoints.save(Checkpoint(1, arrays, {}))
        with measured("reading a checkpoint", "MB/s", lambda: size / 1e6, clock=time.perf_counter):
            checkpoints.newest()
    note("a checkpoint", size, "bytes")


def measure_documents() -> None:
    random = np.random.default_rng(0)
    ends = np.arange(0, 8 * DOCUMENTS + 8, 8)
    shard = Shard(
        np.zeros(0, np.uint16),
        np.zeros(0, bool),
        np.arange(0, 20 * (8 * DOCUMENTS + 1), 20),
        ends,
        random.integers(0, 1 << 62, len(ends) - 1, np.uint64),
    )
    corpus = Corpus((shard,), "made up", {"tokens": int(shard.sentence_ends[-1])})
    tracemalloc.start()
    kept = hold_out(corpus, 0.01)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 2
    note("memory of a document", now / DOCUMENTS, "bytes")
    note("memory of a document at most, while some are held out", peak / DOCUMENTS, "bytes")
    with measured("holding out documents", "documents/s", lambda: float(DOCUMENTS)):
        hold_out(corpus, 0.01)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "reviews.txt"
        measure_text(file, write_text(folder, file), Path(made))
        stage = PretrainingConfig(objective="mlm", max_length=128, batch_size=32, steps=STEPS)
        measure_steps(prepare_run("demo", [file_source(file)], stage, cache_dir=made, processes=1))
    measure_documents()
    store_result("scale", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
