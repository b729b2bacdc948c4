"""Lists of a cut, arranged from tables."""

from __future__ import annotations

import pyarrow as pa

from data_exchange_center.feature_spec import FeatureSpec
from offline.rank.number_tables import lists_of


def test_who_has_no_row_in_the_snapshot_has_no_list_and_labels_nobody_elses() -> None:
    key = {"type": "categorical", "dtype": "id", "key": True, "vocabulary": {"policy": "learned"}, "embedding": 2}
    features = [{"name": f"{entity}_id", "entity": entity, **key} for entity in ("user", "item")]
    spec = FeatureSpec.model_validate({"scene": "tiny", "features": features})
    items = pa.table(
        {"item_id": [10, 11], "timestamp": [0, 0]}
    )  # an even number, whose products with a missing place vanish
    users = pa.table({"user_id": [1, 2], "timestamp": [0, 0]})
    candidates = pa.table({"user_id": [1, 1, 2, 2, 3], "item_id": [10, 11, 10, 11, 10], "rank": [0, 1, 0, 1, 0]})
    chosen = pa.table({"user_id": [3, 2], "item_id": [10, 11]})
    lists = lists_of(candidates, chosen, users, items, spec, most=9, seed=0)
    assert lists.users["user_id"].to_pylist() == [2]
    assert lists.labels.tolist() == [[0, 1]]
