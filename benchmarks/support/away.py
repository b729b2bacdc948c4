"""A store of which some methods fail while the others are the real one's: for what a part's absence does to answers."""

from __future__ import annotations

from typing import Any


class Away:
    """See the module's docstring.

    Args:
        store: the real one.
        error: what the failing methods raise.
        methods: their names.
    """

    def __init__(self, store: Any, error: Exception, *methods: str) -> None:
        self._store, self._error, self._methods = store, error, methods

    def __getattr__(self, name: str) -> Any:
        return self._fail if name in self._methods else getattr(self._store, name)

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise self._error
