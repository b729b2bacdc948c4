"""Small releases whose every part tells which release it is from, and the reading of those marks from an answer.

Release number k of the same users carries k in

    item ids                 1000 x (k + 1) + n                         the release that the process has open
    user vectors             first component USER_MARKS[k]              the user store
    item vectors             first component ITEM_MARKS[k]              the item index, and the arrays that recall scores come from
    term strengths           random, different in each release          the item index
    user features            age = AGE + k                              the feature store
    item features            year = YEAR + k                            the feature store's snapshot of items
    the model                like_logit = k + 1, give or take 0.1       the scorer

The marks of vectors are primes over ten, so a product of two names both. An answer with `explain` shows what each store
returned for it: features as scored, each channel's scores, the model's logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from data_exchange_center.recall_parts import VectorArrays
from data_exchange_center.recall_scores import RecallArrays
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from tests.factories import make_content, write_chain_release

USER_MARKS = (53, 59, 61, 67, 71, 73, 79, 83)
ITEM_MARKS = (2, 3, 5, 7, 11, 13, 17, 19)
LIMIT = len(USER_MARKS)
AGE, YEAR, IDS = 20, 1950, 1000
NOISE = 0.01  # of the other components, far below the distance of two products
TOLERANCE = 1e-4

_PAIRS = {
    round(user * item / 100, 2): (place, other)
    for place, user in enumerate(USER_MARKS)
    for other, item in enumerate(ITEM_MARKS)
}


def make_marked_release(settings: Settings, number: int, users: int = 60, items: int = 120) -> Release:
    """Writes release `number` (0 to LIMIT - 1) into the settings' store. Users are 1 to `users` in every release."""
    generator = np.random.default_rng(number)
    content = replace(
        make_content(generator, users, items, "int"),
        user_ids=list(range(1, users + 1)),
        item_ids=[IDS * (number + 1) + place for place in range(items)],
        ages=np.full(users, AGE + number, np.float32),
        years=np.full(items, YEAR + number, np.int64),
    )

    def mark(folder: Path) -> None:
        _mark_vectors(folder / "recall", number, generator)
        _mark_model(folder / "model" / "model.onnx", number)

    return write_chain_release(settings, number, content, generator, finish=mark)


def _mark_vectors(folder: Path, number: int, generator: np.random.Generator) -> None:
    arrays = RecallArrays.load(folder)

    def marked(shape: tuple[int, ...], mark: float, last: tuple[float, float]) -> np.ndarray:
        made = generator.normal(0, NOISE, shape).astype(np.float32)
        made[:, 0], made[:, -2], made[:, -1] = mark, *last
        return made

    vectors = arrays.vectors
    made = {
        **vars(vectors),
        "item_vectors": marked(vectors.item_vectors.shape, ITEM_MARKS[number] / 10, (0.0, 1.0)),
        "user_vectors": marked(vectors.user_vectors.shape, USER_MARKS[number] / 10, (1.0, 0.0)),
    }
    VectorArrays(**made).save(folder)


def _mark_model(path: Path, number: int) -> None:
    """like_logit becomes number + 1 + 0.1 tanh(what it was)."""
    model = onnx.load(str(path))
    graph = model.graph
    place = next(place for place, node in enumerate(graph.node) if "like_logit" in node.output)
    graph.node[place].output[0] = "unmarked"
    marking = [
        helper.make_node("Tanh", ["unmarked"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "tenth"], ["small"]),
        helper.make_node("Add", ["small", "mark"], ["like_logit"]),
    ]
    for offset, node in enumerate(marking, start=1):
        graph.node.insert(place + offset, node)
    for name, value in (("tenth", 0.1), ("mark", number + 1.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def origins(answer: dict[str, Any]) -> dict[str, set[int]]:
    """Part of the chain -> numbers of the releases that it came from, read from an explained answer.

    -1 stands for a value that no release holds. A part that the answer does not show is missing.
    """
    found: dict[str, set[int]] = {}
    for item in answer["item_list"]:
        for part, number in _marks(item):
            found.setdefault(part, set()).add(number)
    return found


def _marks(item: dict[str, Any]) -> Iterator[tuple[str, int]]:
    features = item["features"]
    yield "release opened", item["itemid"] // IDS - 1
    yield "user features", round(features["age"]) - AGE
    yield "item features", features["year"] - YEAR
    if item["logits"] is not None:
        yield "scorer", round(item["logits"]["like"]) - 1
    users, arrays = _of_product(features["recall_vector"])
    yield "user store", users
    yield "recall arrays", arrays
    for channel in ("vector", "term"):
        if channel in item["channels"]:
            same = abs(item["channels"][channel]["score"] - features[f"recall_{channel}"]) <= TOLERANCE * max(
                1.0, abs(features[f"recall_{channel}"])
            )
            yield f"item index, {channel}", arrays if same else -1
    if "vector" in item["channels"]:
        yield "item index", _of_product(item["channels"]["vector"]["score"])[1]


def _of_product(score: float) -> tuple[int, int]:
    near = min(_PAIRS, key=lambda product: abs(product - score))
    return _PAIRS[near] if abs(near - score) < 0.005 else (-1, -1)
