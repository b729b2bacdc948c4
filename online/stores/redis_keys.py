"""How Marquee spells keys and ids in Redis."""

from __future__ import annotations

from online.stores.ports import Id


def key(scene: str, *parts: str) -> bytes:
    """A key of the scene."""
    return ":".join(("marquee", scene, *parts)).encode()


def answer_key(scene: str, request_id: str) -> bytes:
    """The key of an answered list."""
    return key(scene, "answer", request_id)


def id_token(value: Id) -> bytes:
    """An id inside of keys, fields and members."""
    return b"s" + value.encode() if isinstance(value, str) else b"i%d" % value


def parse_id(token: bytes) -> Id:
    """The id that `id_token` spelled."""
    return token[1:].decode() if token[:1] == b"s" else int(token[1:])
