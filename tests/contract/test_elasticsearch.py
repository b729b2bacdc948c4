"""What the Elasticsearch adapter promises beyond the port: TLS, deadlines, faults, the alias, loads that were cut short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from benchmarks.support.altered_release import altered_copy, with_vectors
from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.recall_scores import RecallArrays
from data_exchange_center.release import Release
from docker.setup_volumes import make_certificates
from offline_to_online.profiles import user_vectors
from offline_to_online.recall.s2_item_to_es import verify_items
from online.stores.elastic_documents import Documents
from online.stores.elastic_items import ElasticItems, index_name
from online.stores.ports import Filters, Hits, VectorQuery
from tests.contract.backends import Backend
from tests.factories import make_release
from tests.servers import ElasticsearchServer, TlsProxy, Unavailable
from tests.servers.process import HOST
from tests.servers.tls_proxy import OTHER_HOST

NOTHING = np.empty(0, np.int32)
BACKEND = ("item_index", "elasticsearch")


@pytest.fixture
def server(backend: Backend) -> ElasticsearchServer:
    assert isinstance(backend.server, ElasticsearchServer)
    return backend.server


@pytest.fixture
def index(server: ElasticsearchServer) -> Iterator[ElasticItems]:
    items = ElasticItems(server.url)
    yield items
    items.close()


@pytest.fixture
def release(index: ElasticItems, tmp_path: Path) -> Iterator[Release]:
    made = make_release(tmp_path)
    index.load(made)
    yield made
    index.drop(made.id)


def ask(index: ElasticItems, release: Release, timeout: float = 5.0) -> Hits:
    query = VectorQuery(np.ones(Documents(release).dimension, np.float32), 10)
    return index.search(release.id, [query], NOTHING, Filters(), timeout)[0]


def test_a_search_goes_through_verified_tls_with_a_password(
    server: ElasticsearchServer, release: Release, tmp_path: Path
) -> None:
    with proxy(tmp_path / "proxy", server) as secure:
        index = ElasticItems(secure.url, ca_file=str(secure.ca_file))
        assert len(ask(index, release).rows) == 10
        assert index.count(release.id) == 90


def test_a_certificate_of_another_authority_is_refused(
    server: ElasticsearchServer, release: Release, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other, "elasticsearch")
    with proxy(tmp_path / "proxy", server) as secure:
        for ca_file in (str(other / "ca.crt"), ""):
            with pytest.raises(StoreUnavailable, match="certificate"):
                ask(ElasticItems(secure.url, ca_file=ca_file), release)


def test_a_certificate_for_another_host_is_refused(
    server: ElasticsearchServer, release: Release, tmp_path: Path
) -> None:
    with proxy(tmp_path / "proxy", server) as secure:
        elsewhere = secure.url.replace(HOST, OTHER_HOST)
        with pytest.raises(StoreUnavailable, match="127.0.0.2.* match"):
            ask(ElasticItems(elsewhere, ca_file=str(secure.ca_file)), release)


def test_a_wrong_password_is_an_error_of_the_store(
    server: ElasticsearchServer, release: Release, tmp_path: Path
) -> None:
    with proxy(tmp_path / "proxy", server) as secure:
        index = ElasticItems(f"https://elastic:wrong@{secure.address}", ca_file=str(secure.ca_file))
        with pytest.raises(StoreError, match="401"):
            ask(index, release)


def proxy(folder: Path, server: ElasticsearchServer) -> TlsProxy:
    made = TlsProxy(folder, server.url)
    try:
        made.command()
    except Unavailable as error:
        pytest.skip(str(error))
    return made


def test_a_paused_server_costs_no_more_than_the_deadline(
    server: ElasticsearchServer, index: ElasticItems, release: Release
) -> None:
    ask(index, release)
    with server.paused():
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            ask(index, release, timeout=0.1)
        assert time.perf_counter() - started < 0.5
    assert len(ask(index, release).rows) == 10


def test_an_index_survives_a_kill(server: ElasticsearchServer, index: ElasticItems, release: Release) -> None:
    before = ask(index, release)
    server.kill()
    with pytest.raises(StoreUnavailable):
        ask(index, release, timeout=0.5)
    server.start()
    assert ask(index, release).rows.tolist() == before.rows.tolist()


def test_the_alias_names_one_index_and_moves_in_one_step(
    server: ElasticsearchServer, index: ElasticItems, release: Release, tmp_path: Path
) -> None:
    other = make_release(tmp_path, seed=1)
    index.load(other)
    with Elasticsearch(server.url) as client:
        for promoted in (release, other, release):
            index.promote(promoted)
            assert set(client.indices.get_alias(name="items")) == {index_name(promoted.id)}
    index.drop(other.id)


def test_an_index_that_was_never_finished_is_built_again(
    server: ElasticsearchServer, index: ElasticItems, release: Release
) -> None:
    name = index_name(release.id)
    with Elasticsearch(server.url) as client:
        client.indices.put_mapping(index=name, meta={"release": release.id})
        client.delete(index=name, id=str(release.table("items")["item_id"][0].as_py()), refresh=True)
    assert index.count(release.id) == 89
    assert index.load(release) == 90


def test_refused_items_are_named(index: ElasticItems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make_release(tmp_path)
    made = Documents.actions

    def with_a_stray_field(self: Documents, name: str) -> Iterator[dict[str, object]]:
        for document in made(self, name):
            yield {**document, "colour": "red"} if document["item_row"] == 7 else document

    monkeypatch.setattr(Documents, "actions", with_a_stray_field)
    item = release.table("items")["item_id"][7].as_py()
    with pytest.raises(StoreError, match=rf"1 of 90 items were refused, first item {item}: .*colour"):
        index.load(release)
    index.drop(release.id)


def test_items_of_very_different_length_are_found_all_the_same(index: ElasticItems, tmp_path: Path) -> None:
    """Popular items have long vectors; a plain graph over inner products finds .89 of the exact answer among these."""
    items, users = 3000, 40
    made = make_release(tmp_path, users=users, items=items, seed=3)
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(0, 0.4, (items, 1))
    skewed = altered_copy(
        made, tmp_path / "skewed", with_vectors(lambda vectors: (vectors * lengths).astype(np.float32))
    )
    index.load(skewed)
    try:
        queries = [VectorQuery(vector, 200) for vector in user_vectors(skewed)]
        overlaps = []
        for query in queries:
            found = index.search(skewed.id, [query], NOTHING, Filters(), 5.0)[0]
            products = RecallArrays.open(skewed).vectors.item_vectors @ query.vector
            exact = np.argsort(-products, kind="stable")[:200]
            overlaps.append(len(set(found.rows.tolist()) & set(exact.tolist())) / 200)
            assert found.scores == pytest.approx(products[found.rows], rel=1e-4, abs=1e-4)
        assert np.mean(overlaps) >= 0.99
    finally:
        index.drop(skewed.id)


@pytest.mark.parametrize("channel", ["vector", "term"])
def test_an_index_that_misses_hits_fails_the_step(
    index: ElasticItems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    release = make_release(tmp_path, items=600)
    index.load(release)
    search = ElasticItems.search

    def forgetful(*arguments: Any) -> list[Hits]:
        found = search(*arguments)
        return [
            replace(hits, rows=hits.rows[3:], scores=hits.scores[3:]) if hits.channel == channel else hits
            for hits in found
        ]

    try:
        assert verify_items(release, index)["overlap"] >= 0.99
        monkeypatch.setattr(ElasticItems, "search", forgetful)
        with pytest.raises(StoreError, match=rf"{channel} search .* finds 0\.9"):
            verify_items(release, index)
    finally:
        index.drop(release.id)


def test_a_vector_of_another_size_is_an_error_of_the_store(index: ElasticItems, release: Release) -> None:
    query = VectorQuery(np.ones(Documents(release).dimension + 1, np.float32), 5)
    with pytest.raises(StoreError, match="dim"):
        index.search(release.id, [query], NOTHING, Filters(), 5.0)
