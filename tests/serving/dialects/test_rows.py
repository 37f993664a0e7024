"""Rows by the names of columns."""

import pytest
from helpers.served_models import make_source

from fullbake.serving.dialects.rows import json_type, texts_of_rows
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import ServedModel


def served(**kinds: bool) -> ServedModel:
    source = make_source("one", ("a", "b"), **kinds)
    return ServedModel(source, source.load(), None, None, 0.0)  # type: ignore[arg-type]


def test_texts_are_found_by_the_columns_of_training():
    assert texts_of_rows([{"text": "a", "id": 1}, {"text": "b"}], served()) == (["a", "b"], None)
    assert texts_of_rows([{"other": "c", "text": "a"}], served(pair=True)) == (["a"], ["c"])


@pytest.mark.parametrize(("row", "got"), [({}, "no such column"), ({"text": None}, "null"), ({"text": [1]}, "a list")])
def test_a_row_without_text_is_refused_with_its_number(row, got):
    with pytest.raises(Refusal, match=f"Row 2: a text is expected in 'text'; got {got}"):
        texts_of_rows([{"text": "a"}, row], served())


def test_too_many_rows_are_refused_before_they_are_read():
    with pytest.raises(Refusal, match="The request has 1,025 texts"):
        texts_of_rows([{}] * 1_025, served())


def test_json_values_have_names():
    values = ({}, [], "a", True, None, 1, 0.5)
    names = ["an object", "a list", "a text", "true or false", "null", "a number", "a number"]
    assert [json_type(value) for value in values] == names
