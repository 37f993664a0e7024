"""An engine is loaded with its tokenizer and the limits of its network."""

from collections.abc import Callable
from pathlib import Path

from helpers.rows import train

from fullbake.classifier.engines import load_engine


def test_torch_comes_with_its_tokenizer_and_limits(bases: Callable[..., Path], tmp_path: Path) -> None:
    train(bases("bert"), tmp_path).save(tmp_path / "bundle")
    found = load_engine(tmp_path / "bundle")
    assert found.predictor.engine == "torch"
    assert (found.positions, found.segments) == (512, 2)
    assert found.rows > found.added_id >= 0
    assert found.tokenizer.is_fast
