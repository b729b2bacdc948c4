"""One hierarchy of errors. Each knows the HTTP status it becomes; each message says what, where and what to do."""

from __future__ import annotations


class MarqueeError(Exception):
    """Base of every error that Marquee raises on purpose.

    Attributes:
        http_status: the status a server answers with when the error reaches it.
        code: the stable, machine-readable name in `{"error": {"code": ...}}`.
    """

    http_status = 500
    code = "internal"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class SettingsError(MarqueeError):
    """A setting is unknown, of the wrong type, out of range, or missing for what is asked."""

    http_status = 503
    code = "invalid_settings"


class DiskError(MarqueeError):
    """A file cannot be written or read: no room left, or no right to it."""

    code = "disk"


class DataError(MarqueeError):
    """A raw file or a table does not hold what its schema promises."""

    code = "invalid_data"


class DataUnavailable(DataError):
    """A dataset could neither be found locally nor fetched."""

    code = "data_unavailable"


class SpecError(MarqueeError):
    """A feature declaration contradicts itself or its data."""

    code = "invalid_feature_spec"


class ReleaseError(MarqueeError):
    """A release is missing, incomplete or its checksums do not hold."""

    http_status = 503
    code = "invalid_release"


class NotReady(MarqueeError):
    """The service has nothing to answer with yet."""

    http_status = 503
    code = "not_ready"


class InvalidRequest(MarqueeError):
    """A request's body or query is wrong; `field` names the culprit."""

    http_status = 400
    code = "invalid_request"


class TooLarge(MarqueeError):
    """A request asks for more than the settings allow."""

    http_status = 413
    code = "too_large"


class TooManyRequests(MarqueeError):
    """Enough of this kind of request is being answered already; try again in a moment."""

    http_status = 429
    code = "too_many_requests"


class StoreError(MarqueeError):
    """A store answered with an error or with something that is not in its contract."""

    http_status = 503
    code = "store_error"


class StoreUnavailable(StoreError):
    """A store could not be reached, or not before the deadline."""

    code = "store_unavailable"


class LockHeld(MarqueeError):
    """Somebody else does the same work right now; the message names the holder."""

    http_status = 409
    code = "locked"
