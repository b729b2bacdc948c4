"""Categories as text to int64: hexadecimal ones by their value, all others by a fixed hash.

- up to 16 hexadecimal digits, in either case, are the number they spell; the topmost bit is the sign (two's complement), so
  that all 2^64 values have a place. Criteo's categories are 8 such digits;
- any other text is the 64-bit FNV-1a hash of its UTF-8 bytes (http://www.isthe.com/chongo/tech/comp/fnv), as int64;
- the empty text is missing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HEXADECIMAL = "^[0-9a-fA-F]{1,16}$"
_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def category_ids(texts: pa.Array) -> pa.Array:
    """Ids of categories.

    Args:
        texts: [rows] binary or string; null and empty mean missing.

    Returns:
        [rows] int64, null where missing.
    """
    values = _as_binary(texts)
    lengths, starts, data = _layout(values)
    longest = int(lengths.max(initial=0))
    if longest > 16 or not _HEXADECIMAL_BYTE[data].all() or (values.null_count and lengths[values.is_null()].any()):
        return _any_text(values)
    there = lengths != 0
    if longest == 8 and bool((lengths[there] == 8).all()):
        return spread(_eight_digits(data).view(np.int64), there, (starts - starts[0]) // 8)
    digits = _right_aligned(lengths, starts - starts[:1], data)
    high, low = _eight_digits(digits[:, :8]), _eight_digits(digits[:, 8:])
    numbers = (high << np.uint64(32)) | low
    return spread(numbers.view(np.int64), there, np.arange(len(there)))


def spread(dense: np.ndarray, there: np.ndarray, places: np.ndarray) -> pa.Array:
    """An array with `dense[places]` where a value is there and null where none is, without a loop over rows."""
    if there.all():
        return pa.array(dense)
    if not len(dense):
        return pa.nulls(len(there), pa.from_numpy_dtype(dense.dtype))
    values = pa.allocate_buffer(len(places) * dense.itemsize)  # from Arrow's pool, which has pages at hand
    np.take(dense, places, mode="clip", out=np.frombuffer(values, dense.dtype))
    bits = np.packbits(there, bitorder="little")
    return pa.Array.from_buffers(pa.from_numpy_dtype(dense.dtype), len(there), [pa.py_buffer(bits), values])


def fnv1a(texts: list[bytes]) -> np.ndarray:
    """64-bit FNV-1a of each text, [texts] uint64; one step for all texts at each position."""
    lengths = np.array([len(text) for text in texts], np.int64)
    order = np.argsort(-lengths, kind="stable")  # so that the texts that still have a byte are a prefix
    data = np.frombuffer(b"".join(texts[place] for place in order), np.uint8).astype(np.uint64)
    sorted_lengths = lengths[order]
    starts = np.cumsum(sorted_lengths) - sorted_lengths
    hashes = np.full(len(texts), _OFFSET)
    for position in range(int(lengths.max(initial=0))):
        left = int(np.searchsorted(-sorted_lengths, -position, side="left"))
        hashes[:left] = (hashes[:left] ^ data[starts[:left] + position]) * _PRIME
    result = np.empty_like(hashes)
    result[order] = hashes
    return result


def _as_binary(texts: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    return texts if texts.type == pa.binary() else texts.cast(pa.binary())


def _layout(values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths [rows] and starts [rows] of a binary array's values, and the bytes that these stand in."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    if data is None or not len(values):
        return np.diff(ends), ends[:-1], np.empty(0, np.uint8)
    return np.diff(ends), ends[:-1], np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]


def _right_aligned(lengths: np.ndarray, starts: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Texts of up to 16 digits with zeros before them, [rows, 16]."""
    if len(data) == 16 * len(lengths):
        return data.reshape(-1, 16)
    digits = np.full(16 * len(lengths), ord("0"), np.uint8)
    shift = 16 * np.arange(1, len(lengths) + 1) - lengths - starts  # of each text, from `data` to `digits`
    digits[np.arange(len(data)) + np.repeat(shift, lengths)] = data
    return digits.reshape(-1, 16)


def _eight_digits(data: np.ndarray) -> np.ndarray:
    """Values of texts of 8 hexadecimal digits each, uint64.

    All 8 digits of a text are worked on at once, as the bytes of one 64-bit word.
    """
    words = np.frombuffer(np.ascontiguousarray(data), "<u8")
    digits = (words & np.uint64(0x0F0F0F0F0F0F0F0F)) + np.uint64(9) * (
        (words >> np.uint64(6)) & np.uint64(0x0101010101010101)
    )
    digits = digits.byteswap()  # the first digit is the highest
    digits = (digits | (digits >> np.uint64(4))) & np.uint64(0x00FF00FF00FF00FF)
    digits = (digits | (digits >> np.uint64(8))) & np.uint64(0x0000FFFF0000FFFF)
    return (digits | (digits >> np.uint64(16))) & np.uint64(0x00000000FFFFFFFF)


_HEXADECIMAL_BYTE = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdefABCDEF", np.uint8))


def _any_text(values: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.binary_length(values), 0)
    there = pc.greater(lengths, 0)
    hexadecimal = pc.fill_null(pc.match_substring_regex(values, HEXADECIMAL), False)
    result = np.zeros(len(values), np.uint64)
    digits = values.filter(hexadecimal).cast(pa.string())
    if len(digits):
        spelled = pc.binary_join_element_wise("0x", digits, "")
        result[hexadecimal.to_numpy(zero_copy_only=False)] = spelled.cast(pa.uint64()).to_numpy()
    others = pc.and_not(there, hexadecimal)
    coded = values.filter(others).dictionary_encode()
    if len(coded):
        hashes = fnv1a(coded.dictionary.to_pylist())
        result[others.to_numpy(zero_copy_only=False)] = hashes[coded.indices.to_numpy()]
    return pa.array(result.view(np.int64), mask=~there.to_numpy(zero_copy_only=False))
