"""Flags made from fields: every field once, its help the line under it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from fullbake.classifier import engines as bundle_engines
from fullbake.cli.options import (
    ROW_FIELDS,
    TEXT_FIELDS,
    Flags,
    RowOptions,
    StageOptions,
    TextOptions,
    apply_engine_threads,
    apply_threads,
    parse_threshold,
    resume_mode,
)
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import leaf_fields
from fullbake.core import runtime, storage
from fullbake.core.errors import OutputError, RecipeError


def helps(model: Any) -> dict[str, str]:
    return {name: str(field.metadata[0].help) for name, field in model.model_fields.items()}


def test_every_field_is_a_flag_with_its_line_as_help() -> None:
    assert set(helps(Flags)) == set(leaf_fields())
    for name, (_, field) in leaf_fields().items():
        assert helps(Flags)[name].startswith(field.description or "never")
    assert set(RowOptions.model_fields) == set(ROW_FIELDS)
    assert set(TextOptions.model_fields) == set(TEXT_FIELDS)


def test_further_pretraining_fields_are_flags_except_corpus() -> None:
    assert set(StageOptions.model_fields) == set(PretrainingConfig.model_fields) - {"corpus"}
    assert "One of: mlm, mlm+nsp, mlm+sop." in helps(StageOptions)["objective"]
    assert bool in get_args(StageOptions.model_fields["whole_words"].annotation)


def test_a_threshold_is_a_score_or_scores_by_label() -> None:
    assert parse_threshold(None) is None
    assert parse_threshold("0.8") == 0.8
    assert parse_threshold("a=b=0.5, c=1") == {"a=b": 0.5, "c": 1.0}
    for text in ("high", "a=high", "a=", ""):
        with pytest.raises(RecipeError, match="a threshold is a score"):
            parse_threshold(text)


def test_three_resume_flags_give_one_mode() -> None:
    assert resume_mode(False, False, False) == "auto"
    assert [resume_mode(*flags) for flags in ((True, False, False), (False, True, False), (False, False, True))] == [
        "require",
        "anyway",
        "restart",
    ]
    with pytest.raises(RecipeError, match="exclude each other"):
        resume_mode(True, True, False)


@pytest.fixture
def unfinished(tmp_path: Path) -> Iterator[Path]:
    """An output with an unfinished run of three threads beside it. torch's number of threads is restored."""
    folder = tmp_path / "m.unfinished"
    (folder / "rate-1e-05" / "step-000000003").mkdir(parents=True)
    storage.write_json(folder / "run.json", {"threads": 3})
    with runtime.restored_threads():
        yield tmp_path / "m"


def test_a_resumed_run_keeps_its_threads_unless_a_number_is_given(unfinished: Path) -> None:
    apply_threads("auto", unfinished)
    assert torch.get_num_threads() == 3
    apply_threads("2", unfinished)
    assert torch.get_num_threads() == 2
    for out, mode in ((unfinished, "restart"), (unfinished.with_name("other"), "auto"), (None, "auto")):
        apply_threads("auto", out, mode)
        assert torch.get_num_threads() == 2, "the environment of the tests gives the number, so that it stays"


def test_a_damaged_unfinished_run_is_reported(unfinished: Path) -> None:
    (unfinished.with_name("m.unfinished") / "run.json").write_text("[")
    with pytest.raises(OutputError, match="--restart"):
        apply_threads("auto", unfinished)


@pytest.mark.parametrize(("engines", "number"), [({"onnx"}, 2), ({"onnx", "torch"}, 2), ({"torch"}, 1)])
def test_threads_are_those_of_all_engines_of_a_bundle(
    engines: set[str], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cascade may have a student with a graph and a teacher without one."""
    monkeypatch.setattr(bundle_engines, "engines_of", lambda folder, wanted: engines)
    monkeypatch.setattr(runtime, "_session_threads", [1])
    with runtime.restored_threads():
        runtime.set_threads(1)
        apply_engine_threads("2", tmp_path, "auto")
        assert runtime.session_threads() == number
        assert runtime.threads() == (2 if "torch" in engines else 1)
