"""The item index on Elasticsearch 8: one index `items-<release>` per release, all channels of a request in one msearch.

Searches name the release's own index. The alias `items`, for people and other programs, follows the flip (`promote`).
Nothing is retried here: a request that failed has a channel less, and a server in trouble does not get the load twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from elastic_transport import ConnectionTimeout, TransportError
from elasticsearch import ApiError, Elasticsearch, NotFoundError
from elasticsearch.helpers import streaming_bulk

from data_exchange_center.errors import SettingsError, StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from online.stores.elastic_documents import Documents
from online.stores.elastic_queries import FILTER_PATH, index_body, read_hits, search_body
from online.stores.ports import Filters, Hits, ItemIndex, TermQuery, VectorQuery

ALIAS = "items"
ADMIN_TIMEOUT = 600.0  # seconds for one bulk request, the refresh or the merge while an index is built
READ_TIMEOUT = 30.0  # seconds for counts and the like outside of requests
CHUNK = 1000  # documents a bulk request
SHOWN_ERRORS = 3
BUSY = (429, 502, 503, 504)
MSEARCH = f"/_msearch?filter_path={','.join(FILTER_PATH)}"
NDJSON = {
    "content-type": "application/vnd.elasticsearch+x-ndjson; compatible-with=8",
    "accept": "application/vnd.elasticsearch+json; compatible-with=8",
}


def index_name(release: str) -> str:
    return f"items-{release}"


def open_items(settings: Settings, url: str) -> ItemIndex:
    """The adapter for a URL, or for those of several nodes, separated by commas."""
    return ElasticItems(url, settings.stores.ca_file, settings.serve.threads)


class ElasticItems(ItemIndex):
    """ItemIndex on a cluster.

    Args:
        url: http(s)://[user:password@]host:port; several, separated by commas, for a cluster's nodes.
        ca_file: PEM file of the authority that signed the servers' certificate; "" for the system's.
        connections: connections kept open to each node, one per thread that searches.
    """

    def __init__(self, url: str, ca_file: str = "", connections: int = 16) -> None:
        secure = {"ca_certs": ca_file} if ca_file and url.startswith("https:") else {}
        try:
            self._client = Elasticsearch(
                url.split(","),
                max_retries=0,
                retry_on_timeout=False,
                connections_per_node=connections,
                **secure,  # type: ignore[arg-type]
            )
        except (ValueError, OSError) as error:
            raise SettingsError(f"stores.item_index: {error}", field="stores.item_index") from error

    def search(
        self,
        release: str,
        queries: Sequence[VectorQuery | TermQuery],
        exclude: np.ndarray,
        filters: Filters,
        timeout: float,
    ) -> list[Hits]:
        if timeout <= 0:
            raise StoreUnavailable("Elasticsearch: no time left to ask")
        _check(queries, exclude)
        answers = [read_hits(query, []) for query in queries]
        asked = [place for place, query in enumerate(queries) if query.k > 0 and _asks_something(query)]
        if not asked:
            return answers
        searches: list[dict[str, Any]] = []
        for place in asked:
            searches.append({"index": index_name(release), "allow_partial_search_results": False})
            searches.append(search_body(queries[place], exclude, filters, timeout))
        responses = self._msearch(searches, timeout)
        if len(responses) != len(asked):
            raise StoreError(f"Elasticsearch answered {len(responses)} of {len(asked)} searches")
        for place, response in zip(asked, responses, strict=True):
            _raise_for(response, index_name(release))
            answers[place] = read_hits(queries[place], response.get("hits", {}).get("hits", []))
        return answers

    def load(self, release: Release) -> int:
        name, documents = index_name(release.id), Documents(release)
        if self._built(name, documents):
            return len(documents)
        client = self._client.options(request_timeout=ADMIN_TIMEOUT)
        with _errors(f"build {name}"):
            client.indices.delete(index=name, ignore_unavailable=True)
            client.indices.create(
                index=name, **index_body(documents.terms, documents.dimension, len(documents), documents.meta)
            )
            failures = [
                result["index"]
                for done, result in streaming_bulk(
                    client, documents.actions(name), chunk_size=CHUNK, raise_on_error=False, max_retries=0
                )
                if not done
            ]
            if failures:
                first = "; ".join(f"item {failed['_id']}: {failed.get('error')}" for failed in failures[:SHOWN_ERRORS])
                raise StoreError(f"{name}: {len(failures)} of {len(documents)} items were refused, first {first}")
            client.indices.refresh(index=name)
            client.indices.forcemerge(index=name, max_num_segments=1)
            client.indices.refresh(index=name)
            client.indices.put_mapping(index=name, meta={**documents.meta, "complete": True})
        held = self.count(release.id)
        if held != len(documents):
            raise StoreError(f"{name}: holds {held} items after loading {len(documents)}")
        return held

    def promote(self, release: Release) -> None:
        """Moves the alias `items` to a release's index in one step."""
        actions: list[dict[str, Any]] = [
            {"remove": {"index": "items-*", "alias": ALIAS, "must_exist": False}},
            {"add": {"index": index_name(release.id), "alias": ALIAS}},
        ]
        with _errors(f"move the alias {ALIAS}"):
            self._client.options(request_timeout=READ_TIMEOUT).indices.update_aliases(actions=actions)

    def count(self, release: str) -> int:
        with _errors("count"):
            client = self._client.options(request_timeout=READ_TIMEOUT)
            answer = client.count(index=index_name(release), ignore_unavailable=True)
            return int(answer["count"])

    def releases(self) -> list[str]:
        with _errors("list the indexes"):
            client = self._client.options(request_timeout=READ_TIMEOUT)
            found = client.indices.get(index=index_name("*"), features="settings", filter_path="*.settings.index.uuid")
        return sorted(name.removeprefix(index_name("")) for name in found)

    def drop(self, release: str) -> None:
        with _errors("drop"):
            client = self._client.options(request_timeout=READ_TIMEOUT)
            client.indices.delete(index=index_name(release), ignore_unavailable=True)

    def ping(self, timeout: float) -> None:
        with _errors("ping"):
            self._client.options(request_timeout=timeout).info()

    def close(self) -> None:
        self._client.close()

    def _msearch(self, searches: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
        """The client's transport without the client around it, which makes some twenty objects per call with a timeout.

        The transport does not know the client's settings; left alone, it would try three times more.
        """
        with _errors("search"):
            meta, body = self._client.transport.perform_request(
                "POST",
                MSEARCH,
                body=searches,
                headers=NDJSON,
                request_timeout=timeout,
                max_retries=0,
                retry_on_timeout=False,
            )
        if meta.status != 200:
            busy = meta.status in BUSY
            raise (StoreUnavailable if busy else StoreError)(
                f"Elasticsearch answered {meta.status} to a search: {body}"
            )
        return list(body.get("responses", []))

    def _built(self, name: str, documents: Documents) -> bool:
        """Whether the index is there, whole, and of exactly these documents."""
        with _errors("read the mapping"):
            try:
                mapping = self._client.options(request_timeout=READ_TIMEOUT).indices.get_mapping(index=name)
            except NotFoundError:
                return False
        meta = mapping[name]["mappings"].get("_meta", {})
        return bool(meta == {**documents.meta, "complete": True})


def _asks_something(query: VectorQuery | TermQuery) -> bool:
    return bool(len(query.vector) if isinstance(query, VectorQuery) else query.terms)


def _check(queries: Sequence[VectorQuery | TermQuery], exclude: np.ndarray) -> None:
    """What JSON cannot carry, or the server would take without a word."""
    for query in queries:
        if isinstance(query, VectorQuery) and not np.isfinite(query.vector).all():
            raise StoreError(f"query {query.channel!r}: its vector is not finite", field="vector")
    if len(exclude) and np.min(exclude) < 0:
        raise StoreError(f"exclude: item rows start at 0, got {np.min(exclude)}", field="exclude")


def _raise_for(response: dict[str, Any], name: str) -> None:
    """An msearch answers 200 whatever became of its searches; each has a status of its own."""
    status = response.get("status")
    if status == 404:
        raise StoreUnavailable(f"Elasticsearch holds no index {name}; publish the release")
    if status != 200:
        error = response.get("error", {})
        causes = [cause["reason"] for cause in error.get("root_cause", [])] or [error.get("reason", "")]
        raise StoreError(f"Elasticsearch, {name}: {error.get('type', status)}: {causes[0]}")
    if response.get("timed_out"):
        raise StoreUnavailable(f"Elasticsearch, {name}: the search ran past its deadline")


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """The client's errors as the port's."""
    try:
        yield
    except ConnectionTimeout as error:
        raise StoreUnavailable(f"Elasticsearch did not answer in time: {doing}") from error
    except TransportError as error:
        # str(error) tells of earlier tries only; of a single one, the message does
        raise StoreUnavailable(f"Elasticsearch cannot be reached: {doing}: {error.message}") from error
    except ApiError as error:
        busy = error.status_code in BUSY
        raise (StoreUnavailable if busy else StoreError)(f"Elasticsearch, {doing}: {error}") from error
