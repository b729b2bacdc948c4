"""The peer of serve_stack.py: the same chain on the same servers, as it is commonly written.

Each request opens a new connection to Redis, Elasticsearch, Feast and Triton, asks one after another, reads whole `_source`
documents from kNN, speaks HTTP and JSON with Feast's feature server and with Triton, and fetches the features of all items in
one feature request. Same release, same model, same number of candidates; gunicorn's default worker. The feature server's
answer becomes the model's inputs value by value. It takes the servers' addresses from its environment.
"""

from __future__ import annotations

import json
import os
from typing import Any

import redis
import requests
from elasticsearch import Elasticsearch, helpers
from flask import Flask, Response, jsonify, request

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import Feature
from data_exchange_center.release import Release
from data_exchange_center.workspace import read_array

CONFIG = "PLAIN_STACK"
INDEX, PREFIX = "plain-items", "plain:user:"
CANDIDATES = 300
TIMEOUT_S = 30
DATATYPES = {"TYPE_INT64": "INT64", "TYPE_FP32": "FP32", "TYPE_STRING": "BYTES"}


def store(release: Release, redis_url: str, elastic_url: str) -> None:
    """Writes one JSON document per user into Redis and one per item into an index with the client's defaults."""
    vectors = read_array(release.file("recall/user_vectors.npy"))
    ids = release.table("items", [c.ITEM_ID])[c.ITEM_ID].to_pylist()
    with redis.Redis.from_url(redis_url) as connection:
        for profile, vector in zip(release.table("user_profiles").to_pylist(), vectors, strict=True):
            document = {
                "terms": profile["terms"],
                "history": [ids[row] for row in profile["history"]],
                "last_timestamp": profile["last_timestamp"],
                "vector": vector.tolist(),
            }
            connection.set(f"{PREFIX}{profile[c.USER_ID]}", json.dumps(document))
    item_vectors = read_array(release.file("recall/item_vectors.npy"))
    client = Elasticsearch(elastic_url, request_timeout=120)
    vector_field = {
        "type": "dense_vector",
        "dims": item_vectors.shape[1],
        "index": True,
        "similarity": "max_inner_product",
    }
    client.indices.create(index=INDEX, mappings={"properties": {"vector": vector_field, "terms": {"type": "keyword"}}})
    documents = release.table("items").to_pylist()
    helpers.bulk(
        client,
        (
            {"_index": INDEX, "_id": str(item[c.ITEM_ID]), "_source": {**item, "vector": vector.tolist()}}
            for item, vector in zip(documents, item_vectors, strict=True)
        ),
    )
    client.indices.refresh(index=INDEX)
    client.close()


def remove(redis_url: str, elastic_url: str) -> None:
    """Takes out what `store` wrote."""
    with redis.Redis.from_url(redis_url) as connection:
        for name in connection.scan_iter(f"{PREFIX}*"):
            connection.delete(name)
    with Elasticsearch(elastic_url) as client:
        client.indices.delete(index=INDEX, ignore_unavailable=True)


def recalled(elastic_url: str, user: dict[str, Any]) -> list[Any]:
    """Item ids by kNN, then by terms; documents come whole."""
    client = Elasticsearch(elastic_url, request_timeout=TIMEOUT_S)
    unseen = {"bool": {"must_not": [{"terms": {c.ITEM_ID: user["history"]}}]}}
    knn = {
        "field": "vector",
        "query_vector": user["vector"],
        "k": CANDIDATES,
        "num_candidates": 2 * CANDIDATES,
        "filter": unseen,
    }
    near = client.search(index=INDEX, knn=knn, size=CANDIDATES)
    found = [hit["_source"][c.ITEM_ID] for hit in near["hits"]["hits"]]
    by_term = {"bool": {**unseen["bool"], "should": [{"term": {"terms": term}} for term in user["terms"][:3]]}}
    liked = client.search(index=INDEX, query=by_term, size=CANDIDATES)
    found += [hit["_source"][c.ITEM_ID] for hit in liked["hits"]["hits"]]
    client.close()
    return list(dict.fromkeys(found))[:CANDIDATES]


def online_features(feast_url: str, service: str, key: str, ids: list[Any]) -> list[dict[str, Any]]:
    """One row per entity, from the feature server."""
    body = {"feature_service": service, "entities": {key: ids}}
    answer = requests.post(f"{feast_url}/get-online-features", json=body, timeout=TIMEOUT_S).json()
    names = answer["metadata"]["feature_names"]
    return [
        {name: result["values"][row] for name, result in zip(names, answer["results"], strict=True)}
        for row in range(len(ids))
    ]


def create_app() -> Flask:
    """The plain server."""
    app = Flask("plain")
    config: dict[str, Any] = json.loads(os.environ[CONFIG])
    features = {entry["name"]: Feature.model_validate(entry) for entry in config["features"]}
    model = requests.get(f"{config['triton']}/v2/models/{config['model']}/config", timeout=TIMEOUT_S).json()

    def tensor(declared: dict[str, Any], user_id: Any, user: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
        members = [features[name] for name in config["inputs"].get(declared["name"], [declared["name"]])]
        if members[0].entity == "context":
            source = [dict.fromkeys((member.name for member in members), user["last_timestamp"] + 1)]
        else:
            source = [user | {c.USER_ID: user_id}] if members[0].entity == "user" else rows
        values: list[Any] = []
        for row in source:
            for feature in members:
                value = row.get(feature.name)
                if feature.is_list:
                    values += (list(value or []) + [feature.missing] * feature.length)[: feature.length]
                else:
                    values.append(feature.missing if value is None else value)
        if declared["data_type"] == "TYPE_STRING":
            values = [str(value or "") for value in values]
        shape = [len(source), *(int(size) for size in declared["dims"][1:])]
        return {
            "name": declared["name"],
            "shape": shape,
            "datatype": DATATYPES[declared["data_type"]],
            "data": values,
        }

    @app.post("/ml/rec")
    def recommend() -> Response:
        body = request.get_json()
        connection: Any = redis.Redis.from_url(config["redis"])
        user = json.loads(connection.get(f"{PREFIX}{body['userid']}"))
        connection.close()
        ids = recalled(config["elasticsearch"], user)
        user |= online_features(config["feast"], "ml_user", "userid", [body["userid"]])[0]
        rows = online_features(config["feast"], "ml_item", "itemid", ids)
        rows = [row | {c.ITEM_ID: item} for row, item in zip(rows, ids, strict=True)]
        inputs = [tensor(declared, body["userid"], user, rows) for declared in model["input"]]
        url = f"{config['triton']}/v2/models/{config['model']}/versions/{config['version']}/infer"
        answer = requests.post(url, json={"inputs": inputs}, timeout=TIMEOUT_S).json()
        output = {entry["name"]: entry["data"] for entry in answer["outputs"]}
        items = [
            {"itemid": item, "score": score, "like": like}
            for item, score, like in zip(ids, output["score"], output["like"], strict=True)
        ]
        items.sort(key=lambda item: -item["score"])
        return jsonify({"item_list": items[: body["size"]]})

    return app
