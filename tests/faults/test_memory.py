"""Memory does not grow over the epochs of training, nor over the rows of a prediction."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fullbake import Recipe, adapt, predict_file
from fullbake.classifier.model import Classifier
from fullbake.core import runtime

pytestmark = pytest.mark.slow

WORDS = ["river", "bread", "engine", "garden", "winter", "letter", "music", "stone"]
MEGABYTES_PER_PAGE = 1 / 256
"""A page has 4 KiB."""


def resident_memory() -> float:
    """Return the megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * MEGABYTES_PER_PAGE


def write_rows(path: Path, rows: int, longest: int = 100) -> Path:
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(3, longest))) for _ in range(rows)]
    path.write_text("text,label\n" + "".join(f"{text},{'yes' if n % 2 else 'no'}\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture
def classifier(tmp_path: Path, bases: Callable[..., Path]) -> Classifier:
    recipe = Recipe.load("finetune", base=str(bases("bert")), epochs=1, batch_size=16)
    return adapt(recipe, write_rows(tmp_path / "small.csv", 64))


class MemoryPerEpoch(logging.Handler):
    """Measures the memory at each line of the log about an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("epoch "):
            runtime.release_memory()
            self.sizes.append(resident_memory())


def test_training_does_not_grow_over_epochs(
    tmp_path: Path, bases: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    log, memory = logging.getLogger("fullbake"), MemoryPerEpoch()
    log.addHandler(memory)
    recipe = Recipe.load("finetune", base=str(bases("bert")), epochs=10, batch_size=16)
    try:
        with caplog.at_level("INFO", "fullbake"):
            adapt(recipe, write_rows(tmp_path / "rows.csv", 200), out=tmp_path / "out")
    finally:
        log.removeHandler(memory)
    sizes = memory.sizes
    assert len(sizes) == 10
    assert max(sizes[5:]) - max(sizes[2:5]) < 15, sizes


def test_prediction_does_not_grow_over_rows(tmp_path: Path, classifier: Classifier) -> None:
    few, many = write_rows(tmp_path / "few.csv", 4096, 12), write_rows(tmp_path / "many.csv", 5 * 4096, 12)
    predict_file(classifier, few, tmp_path / "few-scored.csv")
    after_few = resident_memory()
    predict_file(classifier, many, tmp_path / "many-scored.csv")
    assert resident_memory() - after_few < 15
