"""The form in which texts are compared, and hashes of it.

Nothing heavy is imported here: scoring a classifier compares its rows with those of training by these hashes.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

TextSequence: TypeAlias = Union[Sequence[str], "pa.ChunkedArray"]
"""Texts in order: a sequence of strings, or an Arrow column."""


def normalize(text: str) -> str:
    """Return the form in which texts are compared: NFKC, case folded, NFKC again, whitespace collapsed."""
    if text.isascii():  # NFKC changes nothing there, and this is many times faster
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def text_hashes(texts: TextSequence) -> npt.NDArray[np.uint8]:
    """Hash each normalized text with BLAKE2b.

    Args:
        texts: (rows,) texts.

    Returns:
        (rows, 16) bytes; equal rows are equal texts.
    """
    digests = b"".join(_digest(normalize(text)) for text in each_text(texts))
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


def each_text(texts: TextSequence) -> Iterator[str]:
    """Yield the texts in order. Those of an Arrow column become strings some thousands at a time."""
    column: Any = texts
    if not hasattr(column, "chunks"):  # so an Arrow column is known without importing Arrow
        yield from column
        return
    for chunk in column.chunks:
        for start in range(0, len(chunk), 4096):
            yield from chunk.slice(start, 4096).to_pylist()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
