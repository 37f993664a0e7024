"""Where the tensors of a safetensors file are: its header, read and checked without any tensor library.

A graph names its weights by file, offset and length. Whoever writes or checks such a graph needs these numbers, which
the `safetensors` library does not give.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from fullbake.core.json_files import Shape, ShapeFault, check_plain_file, match_shape, parse_checked_json

ITEM_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Type of a tensor, as safetensors calls it -> bytes of one number. Types with less than a byte are not read here."""

_MOST_HEADER: Final = 100_000_000
"""Largest header in bytes; the `safetensors` library has the same limit."""

_LARGEST_FILE: Final = 2**53

_Amount = Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file."""

    dtype: str
    """One of ITEM_BYTES."""

    shape: tuple[int, ...]

    offset: int
    """Its first byte, counted from the start of the file."""

    length: int
    """Its bytes."""


class _Entry(Shape):
    """What a header says of a tensor."""

    dtype: str
    shape: Annotated[list[_Amount], Field(max_length=32)]
    data_offsets: Annotated[list[_Amount], Field(min_length=2, max_length=2)]


def read_weight_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by their names, in the order of the header. No tensor is read.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ShapeFault: It is no safetensors file, or a tensor is not inside it or not of its stated size.
    """
    check_plain_file(path, _LARGEST_FILE)
    total = path.stat().st_size
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if total < 8 or size > min(total - 8, _MOST_HEADER):
            raise ShapeFault("", "a safetensors file", "a file without its header")
        content = parse_checked_json(file.read(size))
    if not isinstance(content, dict):
        raise ShapeFault("", "an object as the header of a safetensors file", type(content).__name__)
    return {
        name: _read_entry(name, entry, 8 + size, total) for name, entry in content.items() if name != "__metadata__"
    }


def _read_entry(name: str, content: Any, start: int, total: int) -> StoredTensor:
    """Return one tensor. start: where the data of the file begins; total: the file's size. Both in bytes."""
    entry = match_shape(_Entry, content, within=(name,))
    if entry.dtype not in ITEM_BYTES:
        raise ShapeFault(f"{name}.dtype", f"one of {', '.join(ITEM_BYTES)}", entry.dtype[:20])
    first, end = entry.data_offsets
    length = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
    if end - first != length or start + end > total:
        raise ShapeFault(f"{name}.data_offsets", f"{length:,} bytes inside the file", f"{first:,} to {end:,}")
    return StoredTensor(entry.dtype, tuple(entry.shape), start + first, length)
