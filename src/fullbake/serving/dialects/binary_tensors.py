"""The extension of the open inference protocol for binary data: tensors behind the JSON of a body.

After extension_binary_data.md of triton-inference-server/server/docs/protocol. The header
Inference-Header-Content-Length says where the JSON ends; the parameter `binary_data_size` of a tensor says how many of
the bytes behind it are its own. Numbers are little-endian; a text is its length in 4 bytes, and UTF-8. Triton's clients
send and ask for binary data by default.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from fullbake.serving.refusals import Refusal, invalid

HEADER: Final = "inference-header-content-length"

_LENGTH: Final = struct.Struct("<I")
_NUMBERS: Final = {"FP64": "<f8", "BOOL": "?"}


def split_body(content: bytes, length: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of a body, and the bytes behind it.

    Args:
        content: The body.
        length: The value of the header; None if there is none.

    Raises:
        Refusal: The header is no number, or more than the body has.
    """
    if length is None:
        return content, b""
    if not (length.isascii() and length.isdecimal()) or int(length[:20]) > len(content):
        raise Refusal(400, "invalid", f"{HEADER} is {length[:40]!r}, and the body has {len(content):,} bytes.")
    place = int(length)
    return content[:place], content[place:]


class BinaryReader:
    """Reads the tensors behind the JSON, in the order of the JSON.

    Args:
        content: The bytes behind the JSON.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def read_texts(self, parameters: Mapping[str, Any], name: str, count: int) -> list[str]:
        """Return the texts of the next tensor.

        Args:
            parameters: The tensor's own.
            name: Of the tensor, for errors.
            count: How many texts its shape says.

        Raises:
            Refusal: The bytes are not those of texts.
        """
        size = parameters.get("binary_data_size")
        left = len(self._content) - self._place
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
            raise invalid(f"The tensor {name}: binary_data_size is {size!r:.40}, and {left:,} bytes are left.")
        end = self._place + size
        texts: list[str] = []
        while self._place < end:
            start = self._place + _LENGTH.size
            length = _LENGTH.unpack_from(self._content, self._place)[0] if start <= end else end
            if start + length > end:
                raise invalid(f"The tensor {name}: text {len(texts) + 1:,} is longer than the bytes of the tensor.")
            if len(texts) == count:
                raise invalid(f"The tensor {name} has more texts than its shape says: {count:,}.")
            try:
                texts.append(self._content[start : start + length].decode("utf-8"))
            except UnicodeDecodeError as error:
                raise invalid(f"The tensor {name}: text {len(texts) + 1:,} is not UTF-8.") from error
            self._place = start + length
        return texts

    def check_end(self) -> None:
        """Raise Refusal if bytes are left that belong to no tensor."""
        left = len(self._content) - self._place
        if left:
            raise invalid(f"{left:,} bytes behind the JSON belong to no tensor (binary_data_size).")


def pack(datatype: str, data: Sequence[Any]) -> bytes:
    """Return the values of a tensor as bytes.

    Args:
        datatype: BYTES, BOOL or FP64.
        data: The values, texts for BYTES.
    """
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return np.asarray(data, _NUMBERS[datatype]).tobytes()
