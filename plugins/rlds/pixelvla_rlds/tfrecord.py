"""Reading TFRecord files and the ``tf.train.Example`` messages in them, with NumPy alone.

A record is its length (uint64), the masked CRC-32C of these eight bytes, the payload, and the masked CRC-32C of the
payload, all little-endian. An Example is a protocol buffer with a map from names to lists of bytes, floats or integers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from pixelvla_core.errors import DataError

Value = list[bytes] | np.ndarray
_LANE = 512
_BITS = np.arange(32, dtype=np.uint32)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def records(path: Path, skip: int = 0) -> Iterator[bytes]:
    """Yield the payload of every record of a file but the first ``skip``, whose content is not read.

    Raises:
        DataError: the file ends within a record, or a checksum differs.
    """
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            if len(head) < 12:
                raise _damaged(path, number, "the file ends in its length")
            length, check = struct.unpack("<QI", head)
            if masked(head[:8]) != check:
                raise _damaged(path, number, "the checksum of its length differs")
            number += 1
            if number <= skip:
                file.seek(length + 4, os.SEEK_CUR)
                continue
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise _damaged(path, number - 1, f"the file ends {length + 4 - len(body)} bytes too early")
            if masked(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
                raise _damaged(path, number - 1, "the checksum of its content differs")
            yield body[:-4]


def _damaged(path: Path, number: int, why: str) -> DataError:
    return DataError(f"Record {number} of {path} is damaged: {why}. Download the file again.")


def masked(data: bytes) -> int:
    """Return the CRC-32C of some bytes, rotated and shifted as TFRecord stores it."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes.

    The bytes are cut into lanes whose remainders NumPy computes side by side; then neighbours are joined pairwise,
    because the remainder of AB is that of A, advanced by the length of B, plus that of B.
    """
    array = np.frombuffer(data, np.uint8)
    if len(array) < 4:
        state = 0xFFFFFFFF
        for byte in data:
            state = int(_table()[(state ^ byte) & 255]) ^ state >> 8
        return state ^ 0xFFFFFFFF
    count = 1 << max(0, (len(array) - 1) // _LANE).bit_length()
    padded = np.zeros(count * _LANE, np.uint8)  # leading zeros change nothing
    padded[-len(array) :] = array
    padded[len(padded) - len(array) :][:4] ^= 255  # the same as starting from all ones
    states: np.ndarray = np.zeros(count, np.uint32)
    lanes = padded.reshape(count, _LANE).T.copy()
    for column in lanes:
        states = _table()[(states ^ column) & 255] ^ states >> 8
    ahead = _advance()
    while len(states) > 1:
        states = _apply(ahead, states[::2]) ^ states[1::2]
        ahead = _apply(ahead, ahead)
    return int(states[0]) ^ 0xFFFFFFFF


@cache
def _table() -> np.ndarray:
    """uint32[256]: remainder of each byte."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    return table


@cache
def _advance() -> np.ndarray:
    """uint32[32]: what becomes of each bit of a remainder after a lane of zeros."""
    bits = np.left_shift(np.uint32(1), _BITS)
    for _ in range(_LANE):
        bits = _table()[bits & 255] ^ bits >> 8
    return bits


def _apply(operator: np.ndarray, states: np.ndarray) -> np.ndarray:
    """uint32[N]: a linear operator on remainders, given by what becomes of each bit."""
    chosen = np.where(states[:, None] >> _BITS & 1, operator, np.uint32(0))
    return np.bitwise_xor.reduce(chosen, axis=1)


def example(payload: bytes) -> dict[str, Value]:
    """Decode a ``tf.train.Example``: name -> list of bytes, float32[N] or int64[N].

    Raises:
        ValueError: it is none.
    """
    found: dict[str, Value] = {}
    try:
        for features in _submessages(payload, 1):
            for entry in _submessages(features, 1):
                fields = dict(_fields(entry))
                found[bytes(fields[1]).decode()] = _feature(fields.get(2, b""))
    except (IndexError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"no tf.train.Example ({type(error).__name__}: {error})") from error
    return found


def _feature(message: bytes) -> Value:
    for kind, content in _fields(message):
        if kind == 1:
            return list(_submessages(content, 1))
        if kind == 2:
            return _floats(content)
        if kind == 3:
            return _integers(content)
    return []


def _floats(message: bytes) -> np.ndarray:
    """Packed, or one by one."""
    return np.frombuffer(b"".join(value for number, value in _fields(message) if number == 1), "<f4")


def _integers(message: bytes) -> np.ndarray:
    values: list[int] = []
    for _, value in _fields(message):
        if isinstance(value, int):
            values.append(value)
            continue
        place = 0
        while place < len(value):
            one, place = _varint(value, place)
            values.append(one)
    return np.array(values, np.uint64).astype(np.int64)  # two's complement


def _submessages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == wanted)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of each field; integers of varint fields come as int."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield tag >> 3, value  # type: ignore[misc]
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field has wire type {kind}")
        if place + length > len(message):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
