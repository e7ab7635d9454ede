"""The HTTP status and the ``Retry-After`` of a web app's response to its own user when a call fails."""

from __future__ import annotations

from .errors import (
    AccountNotFound,
    GroupNotFound,
    InvalidRequest,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    ReceiptUnavailable,
    RequestTimeout,
    ServerBusy,
    TIMError,
    TransportError,
)
from .webhooks import WebhookError

_STATUS: dict[type[BaseException], int] = {
    QuotaExhausted: 429,
    RateLimited: 429,
    AccountNotFound: 404,
    GroupNotFound: 404,
    ReceiptUnavailable: 404,
    PermissionDenied: 403,
    InvalidRequest: 422,
    WebhookError: 400,
    ValueError: 422,  # an argument that can never be right: nothing was sent
    RequestTimeout: 504,
    ServerBusy: 503,
    TransportError: 503,
    TIMError: 502,  # such as refused credentials, which are not the user's fault
}
"""HTTP statuses by exception class; the first class in an error's method resolution order applies."""


def http_status(error: BaseException) -> int:
    """Return the HTTP status for the user of a web app in which a call has failed.

    Args:
        error: a `TIMError`, or the ``ValueError`` of an argument, from which no other ``ValueError`` is distinguished.

    Returns:
        429 over the rate; 404, 403 or 422 if the object of the request does not exist, is not permitted or is invalid;
        503 or 504 for an outage; 502 for any other `TIMError`, such as refused credentials; 400 for a webhook that is
        not authentic or malformed; 422 for a ``ValueError``; 500 for any other exception.
    """
    return next((_STATUS[kind] for kind in type(_cause(error)).__mro__ if kind in _STATUS), 500)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds after which the user may try again, for the header ``Retry-After``.

    Args:
        error: as for `http_status`.

    Returns:
        Seconds, above 0, for each error with the status 429; the header takes whole seconds, so send
        ``str(math.ceil(seconds))``.  None for all other errors, for which the time is unknown.
    """
    error = _cause(error)
    if isinstance(error, QuotaExhausted):
        return error.retry_after
    return 1.0 if isinstance(error, RateLimited) else None


def _cause(error: BaseException) -> BaseException:
    """Return the error that decides: a transient failure whose retry got no permit counts as `QuotaExhausted`."""
    return error.__cause__ if isinstance(error.__cause__, QuotaExhausted) else error
