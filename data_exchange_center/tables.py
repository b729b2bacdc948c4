"""The schema of every table that one stage hands to the next, and the check at each hand-over.

Ids are int64 or string, as the log declares them, and the same in all tables of a run. A table may carry more columns than
its schema names (attributes that a feature spec refers to); it may not lack one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError

ID = "id"  # stands for int64 or string

STRINGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Table:
    """What a table promises.

    Attributes:
        name: used in messages.
        required: column -> Arrow type, or ID.
        optional: columns that may be absent; when present they have this type.
        key: columns that are unique together (empty: none).
        nullable: required columns that may hold nulls.
        allowed: column -> the values it may take.
    """

    name: str
    required: dict[str, pa.DataType | str]
    optional: dict[str, pa.DataType | str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    allowed: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def validate(self, table: pa.Table) -> pa.Table:
        """Returns the table unchanged, or raises DataError that names the first problem, its row and what is expected."""
        for column, expected in {**self.required, **self.optional}.items():
            if column not in table.column_names:
                if column in self.required:
                    raise DataError(
                        f"table {self.name}: column {column!r} is missing (has {table.column_names})", field=column
                    )
                continue
            self._check_type(table, column, expected)
        for column in self.required:
            values = table[column]
            if column not in self.nullable and values.null_count:
                row = pc.index(pc.is_null(values), True).as_py()
                raise DataError(
                    f"table {self.name}: {column!r} is null in row {row} ({values.null_count} such rows)", field=column
                )
            if pa.types.is_floating(values.type):
                finite = pc.fill_null(pc.is_finite(values), True)
                if not pc.all(finite, min_count=0).as_py():
                    row = pc.index(finite, False).as_py()
                    raise DataError(f"table {self.name}: {column!r} is not finite in row {row}", field=column)
        for column, values in self.allowed.items():
            known = pc.is_in(table[column], value_set=pa.array(values, table.schema.field(column).type))
            if not pc.all(known, min_count=0).as_py():
                row = pc.index(known, False).as_py()
                found = table[column][row].as_py()
                raise DataError(
                    f"table {self.name}: {column!r} is {found!r} in row {row}; allowed are {values}", field=column
                )
        self._check_key(table)
        return table

    def _check_type(self, table: pa.Table, column: str, expected: pa.DataType | str) -> None:
        actual = table.schema.field(column).type
        if expected == ID:
            if actual not in (pa.int64(), pa.string()):
                raise DataError(f"table {self.name}: id {column!r} is {actual}; ids are int64 or string", field=column)
        elif actual != expected:
            raise DataError(f"table {self.name}: {column!r} is {actual}, expected {expected}", field=column)

    def _check_key(self, table: pa.Table) -> None:
        if not self.key or not table.num_rows or (len(self.key) == 1 and _ascends(table[self.key[0]])):
            return
        groups = table.select(list(self.key)).group_by(list(self.key)).aggregate([([], "count_all")])
        if groups.num_rows != table.num_rows:
            worst = groups.filter(pc.greater(groups["count_all"], 1)).slice(0, 1).to_pylist()[0]
            raise DataError(
                f"table {self.name}: key {self.key} is not unique, first repeated: {worst}", field=self.key[0]
            )


def cast_column(rows: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column in the type that it is declared with.

    Raises:
        DataError: there is none, or its values do not fit; `field` names it.
    """
    if name not in rows.column_names:
        raise DataError(f"the rows have no column {name!r} (they have {', '.join(rows.column_names)})", field=name)
    try:
        return rows[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column {name!r} is {rows[name].type}, declared is {kind}: {error}", field=name) from error


def first_of_each(table: pa.Table, column: str) -> pa.Table:
    """The first row with each value of a column, in the table's order."""
    places = pa.table({column: table[column], "place": pa.array(range(len(table)))})
    return table.take(places.group_by(column).aggregate([("place", "min")])["place_min"].combine_chunks().sort())


def _ascends(values: pa.ChunkedArray) -> bool:
    """Whether each value is greater than the one before, which proves a long key unique without grouping it."""
    later, earlier = values.slice(1), values.slice(0, len(values) - 1)
    return bool(pc.all(pc.greater(later, earlier), min_count=0).as_py())


USERS = Table("users", {c.USER_ID: ID}, key=(c.USER_ID,))
ITEMS = Table(
    "items",
    {c.ITEM_ID: ID},
    optional={c.TITLE: pa.string(), c.TERMS: STRINGS, c.YEAR: pa.int64()},
    key=(c.ITEM_ID,),
)
_EVENT: dict[str, pa.DataType | str] = {
    c.USER_ID: ID,
    c.ITEM_ID: ID,
    c.TIMESTAMP: pa.int64(),
    c.POSITION: pa.int64(),
    c.RATING: pa.float32(),
    c.LABEL: pa.int8(),
}
INTERACTIONS = Table(
    "interactions", _EVENT, key=(c.POSITION,), nullable=frozenset({c.RATING}), allowed={c.LABEL: (0, 1)}
)
SPLIT_INTERACTIONS = Table(
    "split interactions",
    {c.ROW_ID: pa.int64(), **_EVENT, c.SPLIT: pa.string(), "early": pa.bool_()},  # early: in the cut of that name
    key=(c.ROW_ID,),
    nullable=frozenset({c.RATING}),
    allowed={c.LABEL: (0, 1), c.SPLIT: (c.TRAIN, c.TEST, c.ONLINE)},
)
FEATURE_ROWS = Table(
    "feature rows",  # plus one column per user and item feature of the spec
    {
        c.ROW_ID: pa.int64(),
        c.USER_ID: ID,
        c.ITEM_ID: ID,
        c.TIMESTAMP: pa.int64(),
        c.LABEL: pa.int8(),
        c.SPLIT: pa.string(),
        "early": pa.bool_(),
    },
    key=(c.ROW_ID,),
    allowed={c.LABEL: (0, 1), c.SPLIT: (c.TRAIN, c.TEST, c.ONLINE)},
)
USER_FEATURES = Table("user features", {c.USER_ID: ID, c.TIMESTAMP: pa.int64()}, key=(c.USER_ID,))
ITEM_FEATURES = Table("item features", {c.ITEM_ID: ID, c.TIMESTAMP: pa.int64()}, key=(c.ITEM_ID,))
ITEM_STANDING = Table(
    "item standing",  # what an event with an item is judged against at the snapshot, in units of 1/1024 (user_measures.py)
    {c.ITEM_ID: ID, "rate": pa.int64(), "value": pa.int64(), "popularity": pa.int64()},
    key=(c.ITEM_ID,),
)
RECENT = ("recent_rates", "recent_item_values")
USER_RECENT = Table(
    "user recent",  # what the newest events of a user were judged against, in units of 1/1024, oldest first
    {c.USER_ID: ID, **{name: pa.list_(pa.int64()) for name in RECENT}},
    key=(c.USER_ID,),
)
USER_PROFILES = Table(
    "user profiles",  # what the user store holds; one row per user
    {
        c.USER_ID: ID,
        "segment": pa.string(),  # popularity segment; "" is the global one
        "last_timestamp": pa.int64(),  # of the user's last known event, unix seconds
        "terms": STRINGS,  # preferred terms, best first
        "term_weights": pa.list_(pa.float32()),
        # every item the user interacted with in the known rows, oldest first, by (timestamp, position)
        "history": pa.list_(pa.int32()),  # item rows: places in the release's items table
        "history_labels": pa.list_(pa.int8()),
        "history_timestamps": pa.list_(pa.int64()),
    },
    # aligned with history: the rating where the log has one, else the label; what the affinity scores read
    # and, aligned with its newest rows, what these events were judged against (USER_RECENT)
    optional={"history_values": pa.list_(pa.float32()), **{name: pa.list_(pa.int64()) for name in RECENT}},
    key=(c.USER_ID,),
)


def same_id_type(users: pa.Table, items: pa.Table, interactions: pa.Table) -> None:
    """Raises DataError unless the ids of the three canonical tables have the same types and every event's ids are known."""
    for table, key in ((users, c.USER_ID), (items, c.ITEM_ID)):
        own, other = table.schema.field(key).type, interactions.schema.field(key).type
        if own != other:
            raise DataError(
                f"{key!r} is {own} in its own table and {other} in interactions; make them the same", field=key
            )
        known = pc.is_in(interactions[key], value_set=table[key].combine_chunks())
        if not pc.all(known, min_count=0).as_py():
            row = pc.index(known, False).as_py()
            raise DataError(
                f"interactions row {row}: {key} {interactions[key][row].as_py()!r} is not in its table", field=key
            )
