"""A further pretraining of the tests' own: some documents, a few steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fullbake.config.pretraining import PretrainingConfig
from fullbake.pretraining.documents import Decontamination
from fullbake.pretraining.run import PretrainingRun, prepare_run
from helpers.corpora import make_documents, source_of

TEXTS = make_documents(40)


def stage_of(**fields: Any) -> PretrainingConfig:
    """A further pretraining of a few steps."""
    short = {"objective": "mlm", "steps": 6, "max_length": 48, "batch_size": 8, "learning_rate": 1e-2, "evaluations": 3}
    return PretrainingConfig.model_validate(short | fields)


def make_run(
    base: Path, folder: Path, texts: Sequence[str] = TEXTS, decontamination: Decontamination | None = None, **fields: Any
) -> PretrainingRun:
    """A small course of a base over some texts, cached in `folder`."""
    return prepare_run(base, [source_of(texts)], stage_of(**fields), decontamination=decontamination, cache_dir=folder, processes=1)
