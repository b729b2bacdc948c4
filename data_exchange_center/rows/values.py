"""Texts to values, column by column, and values to the shape that a column declares.

A converter takes a binary array (null: missing) and gives an array of the column's kind, or raises `pa.ArrowInvalid` when any of
the values is not one; `salvage` then finds which.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.rows.categories import category_ids
from data_exchange_center.rows.schema import ARROW, RowColumn

Converter = Callable[[pa.Array], pa.Array]
SHOWN = 60  # characters of a wrong value that a message quotes


def numbers(texts: pa.Array) -> pa.Array:
    """Decimal numbers, spaces around them allowed, as float32; not finite ones are refused."""
    trimmed = pc.ascii_trim(texts.cast(pa.string()), " \t")
    return finite(trimmed.cast(pa.float32()))


def integers(texts: pa.Array) -> pa.Array:
    """Decimal integers as int64."""
    return pc.ascii_trim(texts.cast(pa.string()), " \t").cast(pa.int64())


def strings(texts: pa.Array) -> pa.Array:
    """UTF-8 text."""
    return texts.cast(pa.string())


def labels(texts: pa.Array) -> pa.Array:
    """0 or 1 as float32, none missing."""
    return judged(numbers(texts))


def finite(values: pa.Array) -> pa.Array:
    """The numbers as they are; raises for an infinite one or one that is no number."""
    if not _is_finite(values):
        raise pa.ArrowInvalid("not finite")
    return values


def judged(values: pa.Array) -> pa.Array:
    """The labels as they are; raises for a missing one and for any but 0 and 1."""
    if values.null_count:
        raise pa.ArrowInvalid("a label is missing")
    plain = values.to_numpy()
    if not ((plain == 0) | (plain == 1)).all():
        raise pa.ArrowInvalid("not 0 or 1")
    return values


def _is_finite(values: pa.Array) -> bool:
    """Of the values that are there; what lies under a null does not count."""
    data = values.buffers()[1]
    if data is None or not len(values):
        return True
    plain = np.frombuffer(data, values.type.to_pandas_dtype())[values.offset : values.offset + len(values)]
    if np.isfinite(plain).all():
        return True
    return values.null_count != 0 and bool(pc.all(pc.is_finite(values), min_count=0).as_py())


def salvage(values: pa.Array, convert: Converter) -> tuple[pa.Array, np.ndarray]:
    """Converts what can be converted.

    Halves the values until those that cannot be are alone: a few wrong ones among many cost little.

    Returns:
        The converted values, null in place of the wrong ones, and the places of the wrong ones, ascending.
    """
    parts: list[pa.Array] = []
    wrong: list[int] = []
    left = [(0, len(values))]
    while left:
        start, length = left.pop()
        try:
            parts.append(convert(values.slice(start, length)))
        except pa.ArrowInvalid:
            if length == 1:
                parts.append(pa.nulls(1, convert(values.slice(0, 0)).type))
                wrong.append(start)
            else:
                half = length // 2
                left += [(start + half, length - half), (start, half)]
    made = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)  # which would copy a single one
    return made, np.array(wrong, np.int64)


def converter_of(column: RowColumn) -> Converter:
    """How the texts of a delimited file become the column's elements."""
    if column.label:
        return labels
    return {"float32": numbers, "int64": category_ids, "string": strings}[column.kind]


def not_a(column: RowColumn) -> str:
    """What a value that cannot be converted is not, for messages."""
    if column.label:
        return "not 0 or 1"
    return {"float32": "not a finite number", "int64": "not a 64-bit integer", "string": "not UTF-8 text"}[column.kind]


def shown(value: object) -> str:
    """A wrong value as a message quotes it: short, and safe to print."""
    if not isinstance(value, bytes | str):
        return str(value)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def shape_scalars(column: RowColumn, values: pa.Array) -> pa.Array:
    """One value or null a row, as the column declares it: missing ones filled, or lists of one element or none."""
    if column.is_list:
        there = pc.is_valid(values).to_numpy(zero_copy_only=False)
        return shape_lists(column, np.concatenate(([0], np.cumsum(there))), values.drop_null())
    if column.default is not None and values.null_count:
        return pc.fill_null(values, pa.scalar(column.default, ARROW[column.kind]))
    return values


def shape_lists(column: RowColumn, offsets: np.ndarray, elements: pa.Array) -> pa.Array:
    """Lists as a list column declares them; those of a fixed length are filled up with the default.

    Args:
        column: a list column.
        offsets: [rows + 1], where each row's elements start.
        elements: of all rows, one after the other; for a fixed length, no row has more (the parsers see to it).
    """
    if not column.length:
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), elements)
    lengths = np.diff(offsets)
    there = np.arange(column.length) < lengths[:, None]
    places = np.where(there, offsets[:-1, None] + np.arange(column.length), len(elements))
    default = pa.array([column.default], ARROW[column.kind])
    filled = pa.concat_arrays([elements, default]).take(pa.array(places.ravel()))
    return pa.FixedSizeListArray.from_arrays(filled, column.length)
