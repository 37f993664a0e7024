"""Before the first step: what is refused, how steps are counted, what is told of the corpus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import make_documents
from courses import TEXTS, make_course

from fullbake.core.errors import DataError, RecipeError
from fullbake.pretraining.documents import Guard

Bases = Callable[..., Path]


def test_phases_divide_the_steps(bases: Bases, tmp_path: Path) -> None:
    made = make_course(bases("bert"), tmp_path, steps=10, max_length=None, phases={16: 0.7, 48: 0.3})
    assert [phase.steps for phase in made.stream.phases] == [7, 3]
    lengths = [made.stream.batch(step, made.masking).encoded.lengths.max() for step in made.stream.plan(0, 10)]
    assert max(lengths[:7]) <= 16 < max(lengths[7:]) <= 48


def test_epochs_are_passes_over_the_corpus(bases: Bases, tmp_path: Path) -> None:
    one, two = (make_course(bases("bert"), tmp_path, steps=None, epochs=count) for count in (1, 2))
    assert two.stream.steps == 2 * one.stream.steps == 2 * one.stream.steps_of_pass(0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_length": 4096}, "a phase is longer than the base can take"),
        ({"steps": 1, "max_length": None, "phases": {16: 0.9, 48: 0.1}}, "gets no step"),
        ({"steps": None, "epochs": 1, "warmup_steps": 10_000}, "leaves none for the rest"),
    ],
)
def test_what_cannot_work_is_refused_first(bases: Bases, tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        make_course(bases("bert"), tmp_path, **fields)


def test_one_document_has_no_other_to_draw_from(bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a second document"):
        make_course(bases("bert"), tmp_path, TEXTS[:1], objective="mlm+nsp")


def test_texts_of_one_sentence_are_warned_of(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = make_documents(60, sentences=1)
    made = make_course(bases("bert"), tmp_path, texts, objective="mlm+nsp")
    assert made.facts["single_sentence_documents"] == 60
    assert "documents are one sentence only" in caplog.text


def test_held_back_texts_are_counted_and_left_out(bases: Bases, tmp_path: Path) -> None:
    made = make_course(bases("bert"), tmp_path, guard=Guard(TEXTS[:5]))
    again = make_course(bases("bert"), tmp_path, guard=Guard(TEXTS[:5]))
    assert made.facts["held_back_documents"] == again.facts["held_back_documents"] == 5
    assert made.facts["documents"] == 35
    assert make_course(bases("bert"), tmp_path, guard=Guard(TEXTS[:5], lets_in=True)).facts["documents"] == 40


@pytest.mark.parametrize(
    ("stage_fields", "edges"), [({"steps": 7, "evaluations": 3}, [0, 2, 5, 7]), ({"steps": 2}, [0, 1, 2])]
)
def test_evaluations_lie_evenly(bases: Bases, tmp_path: Path, stage_fields: Any, edges: list[int]) -> None:
    assert make_course(bases("bert"), tmp_path, **stage_fields).edges() == edges
