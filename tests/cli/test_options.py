"""Flags made from fields: every field once, its help the line under it."""

from typing import Any, get_args

import pytest

from fullbake.cli.options import ROW_FIELDS, TEXT_FIELDS, Flags, RowOptions, StageOptions, TextOptions, resume_mode
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import leaf_fields
from fullbake.core.errors import RecipeError


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


def test_three_resume_flags_give_one_mode() -> None:
    assert resume_mode(False, False, False) == "auto"
    assert [resume_mode(*flags) for flags in ((True, False, False), (False, True, False), (False, False, True))] == [
        "require",
        "anyway",
        "restart",
    ]
    with pytest.raises(RecipeError, match="exclude each other"):
        resume_mode(True, True, False)
