"""Small further pretrainings for tests: a few documents, a few steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fullbake.config.pretraining import PretrainingConfig
from fullbake.pretraining.documents import Decontamination
from fullbake.pretraining.run import PretrainingRun, prepare_run
from helpers.corpora import make_documents, source_of

TEXTS = make_documents(40)


def make_stage(**fields: Any) -> PretrainingConfig:
    """Return the settings of a further pretraining of a few steps, with some fields replaced."""
    short = {"objective": "mlm", "steps": 6, "max_length": 48, "batch_size": 8, "learning_rate": 1e-2, "evaluations": 3}
    return PretrainingConfig.model_validate(short | fields)


def make_run(
    base: Path,
    cache: Path,
    texts: Sequence[str] = TEXTS,
    decontamination: Decontamination | None = None,
    **fields: Any,
) -> PretrainingRun:
    """Return a small prepared run of a base on some texts; `fields` are settings of the stage."""
    return prepare_run(
        base, [source_of(texts)], make_stage(**fields), decontamination=decontamination, cache_dir=cache, processes=1
    )
