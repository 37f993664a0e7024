import pyarrow as pa
import pytest

from fullbake.data.text_checks import MARKS, marked, script_shares


def test_scripts_are_shares_of_letters() -> None:
    assert script_shares(["abc, 123", "где"]) == {"Latin": 0.5, "Cyrillic": 0.5}
    shares = script_shares(["漢字かな", "한글 ไทย देव", "مرحبا"])
    assert set(shares) == {"Arabic", "Han", "Hiragana", "Hangul", "Thai", "Devanagari"}
    assert max(shares, key=lambda name: shares[name]) == "Arabic"
    assert script_shares(["12 !?"]) == {}


@pytest.mark.parametrize(
    ("part", "texts", "places"),
    [
        ("spaces alone", ["", "  \n", "a"], [0, 1]),
        ("U+FFFD", ["ok", "a\ufffdb"], [1]),
        ("read as", ["café", "cafÃ©", "donâ€™t", "itâs", "20 µm"], [1, 2]),
        ("control", ["a\tb\nc", "a\x07b"], [1]),
        ("markup", ["a < b > c", "<br />", "x &amp; y", "AT&T", "if a < b and b>c"], [1, 2]),
    ],
)
def test_marks(part: str, texts: list[str], places: list[int]) -> None:
    (pattern,) = [pattern for name, pattern in MARKS.items() if part in name]
    assert marked(pa.array(texts), pattern) == places
