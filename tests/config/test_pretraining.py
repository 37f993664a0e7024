"""The section further_pretraining of a recipe."""

import pytest
from pydantic import ValidationError

from fullbake.config.pretraining import PretrainingConfig


def test_lengths_are_the_phases_or_one_phase_of_max_length() -> None:
    assert PretrainingConfig().lengths == {128: 1.0}
    assert PretrainingConfig(max_length=64).lengths == {64: 1.0}
    assert PretrainingConfig.model_validate({"phases": "128:0.9,512:0.1"}).lengths == {128: 0.9, 512: 0.1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"phases": "16:0.9,32:0.2"}, "have to add up to 1, not to 1.1"),
        ({"steps": 5, "epochs": 1}, "steps and epochs exclude each other"),
        ({"phases": {16: 1.0}, "max_length": 16}, "phases and max_length exclude each other"),
        ({"batch_tokens": 64, "batch_size": 2}, "batch_tokens and batch_size exclude each other"),
        ({"mask_share": 0.8, "random_share": 0.3}, "have to add up to 1 or less"),
        ({"steps": 5, "warmup_steps": 5}, "has to be less than the 5 steps"),
    ],
)
def test_fields_that_conflict_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PretrainingConfig.model_validate(fields)
