"""Rows of a catalog to Avro record bodies."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import NULL_INT, NULL_LONG, Column
from core.kernels.decorator import kernel

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

ROW_OK: Final = -1

_LONG: Final = 0
_INT: Final = 1
_FLOAT: Final = 2
_DOUBLE: Final = 3
_BOOLEAN: Final = 4
_STRING: Final = 5
_TIMESTAMP: Final = 6
_CODES: Final = {
    "long": _LONG,
    "timestamp-micros": _TIMESTAMP,
    "int": _INT,
    "float": _FLOAT,
    "double": _DOUBLE,
    "boolean": _BOOLEAN,
    "string": _STRING,
}
_MAX_BYTES: Final = {_LONG: 10, _INT: 5, _FLOAT: 4, _DOUBLE: 8, _BOOLEAN: 1, _STRING: 5, _TIMESTAMP: 10}

_FLOAT_EXPONENT: Final = np.uint32(0x7F800000)
_DOUBLE_EXPONENT: Final = np.uint64(0x7FF0000000000000)
_NULL_LONG: Final = NULL_LONG
_FIRST_MICROS: Final = -62_135_596_800_000_000
_LAST_MICROS: Final = 253_402_300_799_999_999
# of the years 1 to 9999: no reader can make a date of others
_NULL_INT: Final = NULL_INT


def plan_rows(table: tuple[Column, ...], dtype: np.dtype[np.void]) -> tuple[Int32, int]:
    """What :func:`encode_rows` does with each column, and an upper bound of a row's size [byte].

    The plan is (n_columns, 4) int32: type code, byte offset in the row, whether nullable, characters of a string.
    """
    plan = np.zeros((len(table), 4), np.int32)
    bound = 0
    for i, column in enumerate(table):
        field, offset = dtype.fields[column.name][:2]  # type: ignore[index]
        code = _CODES[column.avro_type]
        characters = field.itemsize // 4 if code == _STRING else 0
        plan[i] = code, offset, column.is_nullable, characters
        bound += 1 + _MAX_BYTES[code] + 4 * characters
    return plan, bound


@kernel
def _load4(data: UInt8, start: np.int64) -> np.uint64:
    """Four little-endian bytes as a number. Unsigned indices: a signed one costs a test for wrapping a byte."""
    i = np.uint64(start)
    return (
        np.uint64(data[i])
        | (np.uint64(data[i + np.uint64(1)]) << np.uint64(8))
        | (np.uint64(data[i + np.uint64(2)]) << np.uint64(16))
        | (np.uint64(data[i + np.uint64(3)]) << np.uint64(24))
    )


@kernel
def _load8(data: UInt8, start: np.int64) -> np.uint64:
    """Eight little-endian bytes as a number."""
    return _load4(data, start) | (_load4(data, start + 4) << np.uint64(32))


@kernel
def _store4(value: np.uint64, out: UInt8, position: np.int64) -> None:
    i = np.uint64(position)
    out[i] = np.uint8(value)
    out[i + np.uint64(1)] = np.uint8(value >> np.uint64(8))
    out[i + np.uint64(2)] = np.uint8(value >> np.uint64(16))
    out[i + np.uint64(3)] = np.uint8(value >> np.uint64(24))


@kernel
def _put_long(value: np.int64, out: UInt8, position: np.int64) -> np.int64:
    """Zigzag varint; returns the position behind it."""
    rest = (np.uint64(value) << np.uint64(1)) ^ np.uint64(value >> np.int64(63))
    while rest >= np.uint64(0x80):
        out[position] = np.uint8(rest & np.uint64(0x7F)) | np.uint8(0x80)
        rest >>= np.uint64(7)
        position += 1
    out[position] = np.uint8(rest)
    return position + 1


@kernel
def _put_utf8(data: UInt8, start: np.int64, n: np.int64, out: UInt8, position: np.int64) -> np.int64:
    """``n`` code points of four bytes as a length and UTF-8; -1 for a code point that no text has."""
    n_bytes = np.int64(0)
    for i in range(n):
        point = _load4(data, start + 4 * i)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            return np.int64(-1)
        n_bytes += 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
    position = _put_long(n_bytes, out, position)
    for i in range(n):
        point = _load4(data, start + 4 * i)
        if point < 0x80:
            out[position] = point
            position += 1
            continue
        n_more = 1 + (point >= 0x800) + (point >= 0x10000)
        lead = np.uint64(0xC0) if n_more == 1 else (np.uint64(0xE0) if n_more == 2 else np.uint64(0xF0))
        out[position] = lead | (point >> np.uint64(6 * n_more))
        for k in range(n_more):
            shift = np.uint64(6 * (n_more - 1 - k))
            out[position + 1 + k] = np.uint64(0x80) | ((point >> shift) & np.uint64(0x3F))
        position += 1 + n_more
    return position


@kernel
def _is_null(data: UInt8, i: np.int64, code: int) -> bool:
    """Whether a column other than a string holds its null, or no finite number, or no date."""
    if code == _FLOAT:
        return bool((_load4(data, i) & _FLOAT_EXPONENT) == _FLOAT_EXPONENT)
    if code == _DOUBLE:
        return bool((_load8(data, i) & _DOUBLE_EXPONENT) == _DOUBLE_EXPONENT)
    if code == _BOOLEAN:
        return bool(data[i] > 1)
    if code == _LONG:
        return bool(np.int64(_load8(data, i)) == _NULL_LONG)
    if code == _TIMESTAMP:
        micros = np.int64(_load8(data, i))
        return bool(micros < _FIRST_MICROS or micros > _LAST_MICROS)
    return bool(np.int32(_load4(data, i)) == _NULL_INT)


@kernel
def _encode_row(data: UInt8, row: np.int64, plan: Int32, out: UInt8, position: np.int64) -> tuple[np.int64, int]:
    """One record body; returns the position behind it and the first column that cannot be written, or ROW_OK."""
    for c in range(plan.shape[0]):
        code = plan[c, 0]
        i = row + plan[c, 1]
        n_characters = np.int64(plan[c, 3])
        if code == _STRING:
            while n_characters > 0 and _load4(data, i + 4 * (n_characters - 1)) == 0:
                n_characters -= 1
        if plan[c, 2]:
            is_null = n_characters == 0 if code == _STRING else _is_null(data, i, code)
            out[position] = 0 if is_null else 2
            position += 1
            if is_null:
                continue
        elif code != _STRING and _is_null(data, i, code):
            return position, c
        if code == _FLOAT:
            _store4(_load4(data, i), out, position)
            position += 4
        elif code == _DOUBLE:
            _store4(_load4(data, i), out, position)
            _store4(_load4(data, i + 4), out, position + 4)
            position += 8
        elif code == _BOOLEAN:
            out[position] = data[i]
            position += 1
        elif code == _STRING:
            end = _put_utf8(data, i, n_characters, out, position)
            if end < 0:
                return position, c
            position = end
        else:
            value = np.int64(_load8(data, i)) if code in (_LONG, _TIMESTAMP) else np.int64(np.int32(_load4(data, i)))
            position = _put_long(value, out, position)
    return position, ROW_OK


@kernel
def encode_rows(data: UInt8, rows: Int64, row_bytes: int, plan: Int32, out: UInt8, end: Int64, bad: Int32) -> None:
    """Encode rows of a structured array as Avro records, one after the other.

    A nullable column whose value is the null of :mod:`core.contracts.catalogs`, or not finite, or a time outside the
    years 1 to 9999, is written as null. A required one with such a value cannot be written: its row yields no bytes and
    is reported.

    Parameters
    ----------
    data : uint8, the array's memory, ``row_bytes`` a row.
    rows : (n_rows,) int64: which rows, in the order wanted.
    plan : (n_columns, 4) int32 from :func:`plan_rows`.
    out : output, at least n_rows times the plan's bound [byte].
    end : (n_rows,) int64 output: the byte behind each row.
    bad : (n_rows,) int32 output: the first column that cannot be written, or ROW_OK.
    """
    position = np.int64(0)
    for r in range(rows.size):
        behind, column = _encode_row(data, rows[r] * row_bytes, plan, out, position)
        bad[r] = column
        if column == ROW_OK:
            position = behind
        end[r] = position
