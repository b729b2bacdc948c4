"""Tables are checked at every hand-over; the first problem is named with its row."""

import pyarrow as pa
import pytest

from data_exchange_center.errors import DataError
from data_exchange_center.tables import INTERACTIONS, ITEMS, USERS, same_id_type


def interactions(**changes: pa.Array) -> pa.Table:
    columns = {
        "user_id": pa.array([1, 1, 2]),
        "item_id": pa.array([10, 11, 10]),
        "timestamp": pa.array([5, 5, 6]),
        "position": pa.array([0, 1, 2]),
        "rating": pa.array([4.0, None, 2.0], pa.float32()),
        "label": pa.array([1, 1, 0], pa.int8()),
    }
    return pa.table({**columns, **changes})


def test_a_valid_table_comes_back_unchanged() -> None:
    table = interactions()
    assert INTERACTIONS.validate(table) is table


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"timestamp": pa.array([5, None, 6])}, "'timestamp' is null in row 1"),
        ({"label": pa.array([1, 2, 0], pa.int8())}, "'label' is 2 in row 1"),
        ({"rating": pa.array([4.0, float("nan"), 2.0], pa.float32())}, "'rating' is not finite in row 1"),
        ({"user_id": pa.array([1.0, 1.0, 2.0])}, "id 'user_id' is double"),
        ({"timestamp": pa.array([5, 5, 6], pa.int32())}, "'timestamp' is int32, expected int64"),
        ({"position": pa.array([0, 1, 1])}, "not unique, first repeated: {'position': 1"),
    ],
)
def test_the_first_problem_is_named(changes: dict[str, pa.Array], says: str) -> None:
    with pytest.raises(DataError) as caught:
        INTERACTIONS.validate(interactions(**changes))
    assert says in caught.value.message


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="column 'label' is missing"):
        INTERACTIONS.validate(interactions().drop_columns(["label"]))


def test_empty_tables_are_valid() -> None:
    INTERACTIONS.validate(interactions().slice(0, 0))


def test_events_of_unknown_users_and_ids_of_two_types_are_refused() -> None:
    users = USERS.validate(pa.table({"user_id": [1, 2]}))
    items = ITEMS.validate(pa.table({"item_id": [10, 11]}))
    same_id_type(users, items, interactions())
    with pytest.raises(DataError, match="row 2: user_id 2 is not in its table"):
        same_id_type(users.slice(0, 1), items, interactions())
    with pytest.raises(DataError, match="'item_id' is string in its own table and int64"):
        same_id_type(users, pa.table({"item_id": ["10", "11"]}), interactions())


def test_a_key_is_unique_whether_or_not_it_ascends() -> None:
    for ids in ([1, 2, 3], [3, 1, 2], ["a", "b"], ["b", "a"], [7], []):
        USERS.validate(pa.table({"user_id": pa.array(ids, pa.string() if "a" in ids else pa.int64())}))
    for ids in ([1, 1, 2], [1, 2, 2], [2, 1, 2]):
        with pytest.raises(DataError, match="is not unique, first repeated"):
            USERS.validate(pa.table({"user_id": ids}))
