"""One publisher at a time on a store."""

from __future__ import annotations

from contextlib import AbstractContextManager

from data_exchange_center.owned_lock import owned_lock
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace


def publish_lock(settings: Settings, work: str, wait: float = 0.0) -> AbstractContextManager[None]:
    """Holds the lock of the store's online side; see `owned_lock`.

    Args:
        work: what is done under it, for the message that others get.
        wait: seconds to wait for another holder.

    Raises:
        LockHeld: somebody else holds it.
    """
    return owned_lock(Workspace(settings).online, "publish", "is writing to the stores", work, wait)
