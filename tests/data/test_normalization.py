"""Texts are compared after NFKC, case folding and collapsing of white space, and hashed in that form."""

import numpy as np
import pyarrow as pa
import pytest

from fullbake.data.normalization import each_text, normalize, text_hashes

TEXTS = ["Straße  und\tmehr", "ﬁne", "", "x" * 9]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("A  B\n c ", "a b c"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁ", "fi"),
        ("ＦＵＬＬ", "full"),
        (" ", ""),
    ],
)
def test_form_ignores_case_width_and_white_space(text: str, form: str) -> None:
    assert normalize(text) == form


def test_hashes_are_those_of_the_forms() -> None:
    hashes = text_hashes([*TEXTS, "STRASSE UND MEHR"])
    assert (hashes[0] == hashes[-1]).all()
    assert len(np.unique(hashes, axis=0)) == len(TEXTS)


def test_column_of_arrow_is_read_chunk_by_chunk() -> None:
    column = pa.chunked_array([pa.array(TEXTS[:1], pa.large_string()), pa.array(TEXTS[1:], pa.large_string())])
    assert list(each_text(column)) == list(each_text(TEXTS)) == TEXTS
    assert (text_hashes(column) == text_hashes(TEXTS)).all()
