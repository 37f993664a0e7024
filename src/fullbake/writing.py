"""How texts are written: their scripts, and marks of a wrong encoding or of markup left over.

A character's script is the first word of its Unicode name (LATIN, CYRILLIC, CJK, ...): the standard library has no
script property, and for a share of letters that is near enough.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

MARKS: Final = {
    "nothing, or spaces alone": r"^\s*$",
    "replacement characters (U+FFFD)": "\ufffd",
    "UTF-8 read as Latin-1 or cp1252 (such as Ã© or â€™)": "Ã[\u0080-\u00bf]|â€[™œ“”\u0099\u009d]|Â[\u00a0-\u00bf]",
    "control characters": "[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]",
    "markup (tags or entities such as &amp;)": r"</?[A-Za-z][A-Za-z0-9]*( [^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#[0-9]+);",
}
"""What a text should hardly hold -> the regular expression (RE2) that finds it."""


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters in each script, the commonest first; {} where there is no letter."""
    counts: Counter[str] = Counter()
    for character, count in Counter("".join(texts)).items():
        if character.isalpha():
            counts[unicodedata.name(character, "UNNAMED").split()[0].removesuffix("-COMPATIBILITY")] += count
    total = sum(counts.values())
    return {name.capitalize() if name != "CJK" else "Han": count / total for name, count in counts.most_common()}


def marked(texts: pa.Array, pattern: str) -> list[int]:
    """Positions of the texts that hold a match of `pattern`."""
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    positions: list[int] = pc.call_function("indices_nonzero", [found]).to_pylist()
    return positions
