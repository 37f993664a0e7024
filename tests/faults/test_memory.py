"""Memory that does not grow: over epochs of training, over the rows of a prediction."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fullbake import Recipe, adapt, predict_file
from fullbake.classifier.model import Classifier
from fullbake.training import loop

pytestmark = pytest.mark.slow

WORDS = ["river", "bread", "engine", "garden", "winter", "letter", "music", "stone"]
MEGABYTES = 1 / 256
"""Of a page of 4 KiB."""


def held() -> float:
    """Megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * MEGABYTES


def write_rows(path: Path, rows: int, longest: int = 100) -> Path:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, longest))) for _ in range(rows)]
    path.write_text("text,label\n" + "".join(f"{text},{'yes' if n % 2 else 'no'}\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture
def classifier(tmp_path: Path, bases: Callable[..., Path]) -> Classifier:
    recipe = Recipe.load("finetune", base=str(bases("bert")), epochs=1, batch_size=16)
    return adapt(recipe, write_rows(tmp_path / "small.csv", 64))


def test_training_does_not_grow_over_epochs(
    tmp_path: Path, bases: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[float] = []
    close = loop._Training._close_epoch

    def measured(self: loop._Training) -> None:
        close(self)
        sizes.append(held())

    monkeypatch.setattr(loop._Training, "_close_epoch", measured)
    recipe = Recipe.load("finetune", base=str(bases("bert")), epochs=10, batch_size=16)
    adapt(recipe, write_rows(tmp_path / "rows.csv", 200), out=tmp_path / "out")
    assert len(sizes) == 10
    assert max(sizes[5:]) - max(sizes[2:5]) < 15, sizes


def test_prediction_does_not_grow_over_rows(tmp_path: Path, classifier: Classifier) -> None:
    few, many = write_rows(tmp_path / "few.csv", 4096, 12), write_rows(tmp_path / "many.csv", 5 * 4096, 12)
    predict_file(classifier, few, tmp_path / "few-scored.csv")
    after_few = held()
    predict_file(classifier, many, tmp_path / "many-scored.csv")
    assert held() - after_few < 15
