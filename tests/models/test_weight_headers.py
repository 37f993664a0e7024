"""Headers of safetensors files give the same tensors as the library, and wrong ones are refused."""

import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fullbake.core.json_files import ShapeFault
from fullbake.models.weight_headers import read_weight_header

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(5, dtype=np.int8),
    "c": np.zeros((0, 4), np.int64),
}


def write_header(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a safetensors file by hand."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)
    return path


def test_offsets_lead_to_the_data(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "w.safetensors", metadata={"format": "np"})
    content = (tmp_path / "w.safetensors").read_bytes()
    found = read_weight_header(tmp_path / "w.safetensors")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        stored = found[name]
        data = content[stored.offset : stored.offset + stored.length]
        assert data == array.tobytes()
        assert stored.shape == array.shape


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "where"),
    [
        ([], ""),
        ({"a": 1}, "a"),
        ({"a": ENTRY | {"dtype": "F99"}}, "a.dtype"),
        ({"a": ENTRY | {"shape": [-2]}}, "a.shape"),
        ({"a": ENTRY | {"shape": [3]}}, "a.data_offsets"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, "a.data_offsets"),
        ({"a": ENTRY | {"data_offsets": [4, 12]}}, "a.data_offsets"),
        ({"a": ENTRY | {"data_offsets": [0]}}, "a.data_offsets"),
        (b'{"a": 1, "a": 2}', "a"),
        (b"[" * 100_000, ""),
    ],
)
def test_wrong_header_is_refused(header: object, where: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as fault:
        read_weight_header(write_header(tmp_path / "w.safetensors", header, b"12345678"))
    if isinstance(fault.value, ShapeFault):
        assert fault.value.where.startswith(where)


def test_right_header_is_read(tmp_path: Path) -> None:
    assert read_weight_header(write_header(tmp_path / "w.safetensors", {"a": ENTRY}, b"12345678"))["a"].length == 8


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", 9) + b"{}"])
def test_file_without_a_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ShapeFault, match="without its header"):
        read_weight_header(tmp_path / "w.safetensors")


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_damaged_bytes_raise_nothing_else(place: int, byte: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = bytearray(json.dumps({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 16]}}).encode())
    content[place % len(content)] = byte
    write_header(path, bytes(content), b"1234567812345678")
    with suppress(ValueError):
        read_weight_header(path)
