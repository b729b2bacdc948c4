"""Which items a scene takes out of every answer, as one process knows it.

Every change gives the set a new version, a random token. A read of a user brings only the version; the set itself is fetched when
the version is news to this process, so a set of thousands costs a request nothing. Its copy on disk serves while the store is away.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from online.stores.local_copy import BLOCKED, LocalCopy
from online.stores.ports import Id

NOTHING: frozenset[Id] = frozenset()


class BlockedItems:
    """The blocked items of each scene; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._copy = LocalCopy(folder, BLOCKED)
        self._known: dict[str, tuple[bytes | None, frozenset[Id]]] = {}
        self._parsed: tuple[object, frozenset[Id]] = (None, NOTHING)

    def as_of(self, scene: str, version: bytes | None, fetch: Callable[[], Iterable[Id]]) -> frozenset[Id]:
        """The set of this version (None: nothing was ever blocked).

        Args:
            fetch: asks the store for the set; called when the version is news.
        """
        known = self._known.get(scene)
        if known is None or known[0] != version:
            known = (version, frozenset(fetch()) if version is not None else NOTHING)
            self._known[scene] = known
            self._copy.write(scene, sorted(known[1], key=str))
        return known[1]

    def copy(self, scene: str) -> frozenset[Id]:
        """What any process of this machine was told last, and this one when there is no file; never asks the store."""
        listed = self._copy.read(scene)
        if not isinstance(listed, list):
            return self._known.get(scene, (None, NOTHING))[1]
        if self._parsed[0] is not listed:
            self._parsed = (listed, frozenset(listed))
        return self._parsed[1]


def new_version() -> str:
    """A version that no set had before, not even one of a store that was emptied since."""
    return uuid.uuid4().hex
