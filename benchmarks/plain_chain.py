"""The peer of serve.py: the same chain as it is commonly written, on the same release, model and number of candidates.

A new Redis connection for each request, users and items as JSON documents fetched one call after another, recall loops over
Python dictionaries, feature rows as dictionaries that become arrays one value at a time, `jsonify`, gunicorn's default worker.
Run by serve.py; it takes the release and the Redis socket from its environment.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import redis
from flask import Flask, Response, jsonify, request

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.input_blocks import blocks_of_release, id_types_of, pack_inputs
from data_exchange_center.raw_columns import NUMPY
from data_exchange_center.release import Release, open_release
from data_exchange_center.workspace import read_array

RELEASE, SOCKET = "PLAIN_CHAIN_RELEASE", "PLAIN_CHAIN_REDIS"
CANDIDATES = 300


def store(release: Release, socket: str) -> None:
    """Writes one JSON document per user and per item, as a plain pipeline's export does."""
    connection = redis.Redis(unix_socket_path=socket)
    items = release.table("items", [c.ITEM_ID])[c.ITEM_ID].to_pylist()
    vectors = read_array(release.file("recall/user_vectors.npy"))
    users = release.table("users", [c.USER_ID])[c.USER_ID].to_pylist()
    vector_of = dict(zip(users, vectors, strict=True))
    features = {row[c.USER_ID]: row for row in release.table("user_features").to_pylist()}
    for profile in release.table("user_profiles").to_pylist():
        user = profile[c.USER_ID]
        document = {
            "features": features[user],
            "terms": profile["terms"],
            "history": [items[row] for row in profile["history"]],
            "last_timestamp": profile["last_timestamp"],
            "vector": vector_of[user].tolist(),
        }
        connection.set(f"user:{user}", json.dumps(document))
    for row in release.table("item_features").to_pylist():
        connection.set(f"item:{row[c.ITEM_ID]}", json.dumps(row))
    connection.close()


class PlainChain:
    """What the plain server keeps in memory."""

    def __init__(self, release: Release) -> None:
        items = release.table("items").to_pylist()
        self.spec: FeatureSpec = release.spec()
        self.id_types = id_types_of(release)
        self.blocks = blocks_of_release(release)
        self.ids = [item[c.ITEM_ID] for item in items]
        self.vectors = {
            item: vector
            for item, vector in zip(self.ids, read_array(release.file("recall/item_vectors.npy")), strict=True)
        }
        popularity: dict[Any, int] = defaultdict(int)
        for history in release.table("user_profiles", ["history"])["history"].to_pylist():
            for row in history:
                popularity[self.ids[row]] += 1
        self.popular = sorted(self.ids, key=lambda item: -popularity[item])
        self.by_term: dict[str, list[Any]] = defaultdict(list)
        terms = {item[c.ITEM_ID]: item.get(c.TERMS) or [] for item in items}
        for item in self.popular:
            for term in terms[item]:
                self.by_term[term].append(item)
        self.session = onnxruntime.InferenceSession(
            str(release.file("model/model.onnx")), providers=["CPUExecutionProvider"]
        )

    def candidates(self, user: dict[str, Any]) -> list[Any]:
        """Vector recall, then terms, then popular items, until there are enough."""
        seen = set(user["history"])
        vector = np.array(user["vector"])
        scored = [(float(np.dot(vector, self.vectors[item])), item) for item in self.ids if item not in seen]
        scored.sort(key=lambda pair: -pair[0])
        found = [item for _, item in scored[: CANDIDATES // 2]]
        for term in user["terms"][:3]:
            found += [item for item in self.by_term[term] if item not in seen][:50]
        found += [item for item in self.popular if item not in seen]
        return list(dict.fromkeys(found))[:CANDIDATES]

    def inputs(self, user_id: Any, user: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """The model's inputs, value by value."""
        made = {}
        for feature in self.spec.inputs:
            dtype = NUMPY[self.spec.dtype_of(feature, *self.id_types)]
            if feature.entity == "user":
                source = [{**user["features"], c.USER_ID: user_id}]
            elif feature.entity == "context":
                source = [{feature.name: user["last_timestamp"] + 1}]
            else:
                source = rows
            values = []
            for row in source:
                value = row.get(feature.name, feature.missing)
                if feature.is_list:
                    value = (list(value or []) + [feature.missing] * feature.length)[: feature.length]
                    if dtype is object:
                        value = [str(entry or "") for entry in value]
                elif value is None:
                    value = feature.missing
                values.append(value)
            made[feature.name] = np.array(values, dtype=dtype)
        return pack_inputs(self.blocks, made)


def create_app() -> Flask:
    """The plain server."""
    app = Flask("plain")
    chain = PlainChain(open_release(Path(os.environ[RELEASE]), verify=False))
    socket = os.environ[SOCKET]

    @app.post("/ml/rec")
    def recommend() -> Response:
        body = request.get_json()
        connection: Any = redis.Redis(unix_socket_path=socket)
        user = json.loads(connection.get(f"user:{body['userid']}"))
        rows = [json.loads(connection.get(f"item:{item}")) for item in chain.candidates(user)]
        connection.close()
        score, like = chain.session.run(["score", "like"], chain.inputs(body["userid"], user, rows))
        items = [
            {"itemid": row[c.ITEM_ID], "score": float(one), "like": float(other)}
            for row, one, other in zip(rows, score, like, strict=True)
        ]
        items.sort(key=lambda item: -item["score"])
        return jsonify({"item_list": items[: body["size"]]})

    return app
