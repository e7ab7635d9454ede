"""The HTTP status that a web app answers when a call fails."""

from __future__ import annotations

import pytest

from tim_async import (
    APIError,
    BadResponse,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    PartialFailure,
    QuotaExhausted,
    RequestTimeout,
    TIMError,
    http_status,
    retry_after,
)
from tim_async.errors import CODES, classify
from tim_async.quota import QuotaMisconfigured
from tim_async.webhooks import WebhookError

BY_CLASS = {
    "AccountNotFound": 404,
    "APIError": 502,
    "AuthError": 502,
    "GroupNotFound": 404,
    "InvalidRequest": 422,
    "PermissionDenied": 403,
    "RateLimited": 429,
    "ReceiptUnavailable": 404,
    "ServerBusy": 503,
}


def test_each_code_has_the_status_of_its_class() -> None:
    """An unknown code is not the user's fault."""
    for number, code in CODES.items():
        error = classify(number)
        assert http_status(error) == BY_CLASS[code.kind]
        assert retry_after(error) == (1.0 if code.kind == "RateLimited" else None)
    assert (http_status(classify(424242)), http_status(APIError())) == (502, 502)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestTimeout("late"), 504),
        (ConnectFailed("no"), 503),
        (ConnectionLost("gone"), 503),
        (BadResponse("a page", 502), 503),
        (ClientClosed("closed"), 503),
        (PartialFailure("2 peers failed"), 502),
        (QuotaMisconfigured("a wrong password"), 502),
        (WebhookError("not signed"), 400),
        (TIMError("it failed"), 502),
        (ValueError("an empty id"), 422),
        (TypeError("a lone string"), 500),
        (TimeoutError(), 500),
        (KeyError("nobody"), 500),
    ],
    ids=repr,
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    """Only errors of the rate have a `retry_after`."""
    assert (http_status(error), retry_after(error)) == (status, None)


def test_a_call_without_a_permit_has_a_retry_after() -> None:
    """Also if it is the cause of an error of the service."""
    exhausted = QuotaExhausted("no permit within max_wait", 2.5)
    hidden = classify(10002)
    hidden.__cause__ = exhausted
    for error in (exhausted, hidden):
        assert (http_status(error), retry_after(error)) == (429, 2.5)
