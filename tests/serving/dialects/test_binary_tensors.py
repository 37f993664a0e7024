"""Tensors behind the JSON: what Triton's clients send, and bytes that lie."""

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.serving.dialects.binary_tensors import BinaryReader, pack, split_body
from fullbake.serving.refusals import Refusal


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=("Cs",)))), max_size=3))
def test_texts_are_read_as_they_were_packed(tensors: list[list[str]]) -> None:
    packed = [pack("BYTES", texts) for texts in tensors]
    reader = BinaryReader(b"".join(packed))
    for texts, content in zip(tensors, packed, strict=True):
        assert reader.read_texts({"binary_data_size": len(content)}, "'text'", len(texts)) == texts
    reader.check_end()


def test_numbers_are_packed_little_endian() -> None:
    assert pack("FP64", [0.5, 1.0]) == struct.pack("<2d", 0.5, 1.0)
    assert pack("BOOL", [True, False, True]) == b"\x01\x00\x01"
    assert np.frombuffer(pack("FP64", [1e-300]), "<f8").tolist() == [1e-300]


@pytest.mark.parametrize("size", [None, True, -1, 10**30, "8", 1.5, 100])
def test_size_that_the_body_does_not_have_is_refused(size: Any) -> None:
    with pytest.raises(Refusal, match="binary_data_size"):
        BinaryReader(b"\x01\x00\x00\x00a").read_texts({"binary_data_size": size}, "'text'", 1_000)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_bytes_are_texts_or_refused(content: bytes, size: int) -> None:
    reader = BinaryReader(content)
    with contextlib.suppress(Refusal):
        texts = reader.read_texts({"binary_data_size": size}, "'text'", 1_000)
        reader.check_end()
        assert pack("BYTES", texts) == content


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xff\xff\xff", "longer"), (b"\x01\x00\x00\x00\xff", "UTF-8")])
def test_texts_that_lie_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        BinaryReader(content).read_texts({"binary_data_size": len(content)}, "'text'", 1_000)


def test_more_texts_than_the_shape_says_are_not_read() -> None:
    with pytest.raises(Refusal, match="more texts than its shape says: 2"):
        BinaryReader(bytes(12)).read_texts({"binary_data_size": 12}, "'text'", 2)


def test_bytes_of_no_tensor_are_refused() -> None:
    with pytest.raises(Refusal, match="3 bytes"):
        BinaryReader(b"abc").check_end()


@pytest.mark.parametrize("length", ["-1", "9", "x", "", "1" * 5_000, "１"])
def test_header_that_the_body_does_not_have_is_refused(length: str) -> None:
    with pytest.raises(Refusal, match="inference-header-content-length"):
        split_body(b"{}", length)
    assert split_body(b"{}ab", "2") == (b"{}", b"ab")
    assert split_body(b"{}", None) == (b"{}", b"")
