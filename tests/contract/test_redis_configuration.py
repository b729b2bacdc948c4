"""The Docker stack's redis.conf on a real server: no acknowledged event is lost, nothing is ever evicted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from data_exchange_center.errors import StoreUnavailable
from online.stores.ports import Event, UserProfile, UserStore
from online.stores.redis_link import link_to_url
from online.stores.redis_users import UNPUBLISHED_SECONDS, RedisUsers, key
from tests.servers import RedisServer
from tests.servers.process import HOST

T = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def users(server: RedisServer, tmp_path: Path) -> Iterator[UserStore]:
    made = RedisUsers(link_to_url(server.url), tmp_path, 3.0)
    yield made
    made.close()


def clicks(first: int, count: int) -> list[Event]:
    return [Event(f"e{number}", 1, number, "click", None, number, None) for number in range(first, first + count)]


def test_the_server_runs_as_the_file_says(server: RedisServer) -> None:
    with redis.Redis(host=HOST, port=server.port, decode_responses=True) as client:
        said = {
            name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "save")
        }
    assert said == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}


def test_what_was_acknowledged_outlives_a_kill(server: RedisServer, users: UserStore) -> None:
    for number in range(20):
        users.append_events("scene", clicks(5 * number, 5), T)
    users.block("scene", [7], T)
    server.kill()
    server.start()
    assert [event for _, event in users.events("scene")] == clicks(0, 100)
    assert users.blocked("scene", T) == {7}


def test_a_copy_of_the_files_of_a_running_server_is_a_backup(
    server: RedisServer, users: UserStore, tmp_path: Path
) -> None:
    """As docs/operations.md says: no rewrite meanwhile; what is written meanwhile may or may not be in it."""
    users.append_events("scene", clicks(0, 50), T)
    with redis.Redis(host=HOST, port=server.port) as client:
        client.config_set("auto-aof-rewrite-percentage", 0)
        shutil.copytree(server.folder / "appendonlydir", tmp_path / "restored" / "appendonlydir")
    users.append_events("scene", clicks(50, 1), T)
    with RedisServer(tmp_path / "restored") as other:
        restored = RedisUsers(link_to_url(other.url), tmp_path / "copies", 3.0)
        assert [event for _, event in restored.events("scene")] == clicks(0, 50)
        restored.close()


def test_full_memory_refuses_events_and_evicts_nothing(server: RedisServer, users: UserStore) -> None:
    users.append_events("scene", clicks(0, 50), T)
    with redis.Redis(host=HOST, port=server.port) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable):
            users.append_events("scene", clicks(50, 1), T)
        client.config_set("maxmemory", 0)
    assert len(users.events("scene")) == 50
    assert users.append_events("scene", clicks(50, 1), T) == 1


def test_profiles_expire_until_their_release_goes_live(server: RedisServer, users: UserStore) -> None:
    nobody = UserProfile(
        1, "", 0, (), *(np.empty(0, kind) for kind in (np.float32, np.float32, np.int32, np.int8, np.int64, np.float32))
    )
    with redis.Redis(host=HOST, port=server.port) as client:
        users.write("scene", "r1", [nobody])
        assert 0 < client.ttl(key("scene", "users", "r1")) <= UNPUBLISHED_SECONDS
        users.flip("scene", "r1", None)
        assert client.ttl(key("scene", "users", "r1")) == -1
        users.write("scene", "r1", [nobody])
        assert client.ttl(key("scene", "users", "r1")) == -1, "what is live stays when it is written again"
        users.write("scene", "r2", [nobody])
        users.flip("scene", "r2", "r1")
        assert client.ttl(key("scene", "users", "r1")) == -1, "a release to go back to stays"
