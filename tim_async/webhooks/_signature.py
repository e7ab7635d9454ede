"""Verification of a webhook's signature."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import Final, Literal

from tim_async.errors import is_text

from ._query import Query, WebhookError, required

MAX_AGE: Final = 60
"""Seconds by which ``RequestTime`` may differ from now, in either direction, inclusive."""

# A time has 10 digits, in ms 13; the bound keeps int() cheap and the difference exact.
_TIME = re.compile(r"[0-9]{1,15}")


def verify(token: str, query: Query, now: float | None = None) -> Literal[True]:
    """Check that the service sent a webhook within the last minute.

    **An invalid webhook raises**; the return value need not be checked.  It is True, so that ``assert verify(…)`` and
    ``if verify(…)`` work.

    ``Sign`` is the SHA-256 of the token followed by ``RequestTime``, in lower-case hex.  It is compared in constant
    time for every well-formed request, also for one that is too old.

    It covers **neither the body nor the rest of the query**: an attacker who sees one signed request can send another
    body with it for a minute.  Accept webhooks over HTTPS only.  A repeated ``Sign`` is not evidence of a replay: all
    webhooks of one second have the same one.

    https://www.tencentcloud.com/document/product/1047/34354

    Args:
        token: the token for webhook authentication, as set in the console.
        query: the request's query parameters, decoded: a dict, or the mapping of Starlette, aiohttp or Django.
        now: the current time, unix seconds; None for the system clock.

    Returns:
        True.

    Raises:
        WebhookError: ``Sign`` or ``RequestTime`` is missing, repeated or malformed; ``RequestTime`` is more than
            60 s from now; or the signature does not match.
        TypeError: an argument of the wrong type.
        ValueError: the token is empty or cannot be encoded, or ``now`` is out of range.
    """
    secret = _token(token)
    moment = time.time() if now is None else _moment(now)

    sign = required(query, "Sign")
    request_time = required(query, "RequestTime")
    if not _TIME.fullmatch(request_time):
        raise WebhookError("RequestTime is not a time in unix seconds")

    # Both are computed before either is checked, so that the response to a late request, its timing included, does not
    # depend on its signature.
    expected = hashlib.sha256(secret + request_time.encode("ascii")).hexdigest()
    genuine = hmac.compare_digest(expected.encode("ascii"), sign.encode("utf-8"))
    age = moment - int(request_time)
    if abs(age) > MAX_AGE:
        raise WebhookError(f"RequestTime is {abs(age):.1f} s {'ago' if age > 0 else 'ahead'}; the limit is {MAX_AGE} s")
    if not genuine:
        raise WebhookError("signature mismatch: Sign was not made with this token")
    return True


def _token(token: str) -> bytes:
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    # Raised outside an exception handler: a UnicodeEncodeError, even as the context, would hold the token.
    secret = token.encode() if is_text(token) else b""
    if not secret:
        raise ValueError("token must be non-empty text: without a token, anyone could sign")
    return secret


def _moment(now: float) -> float:
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise TypeError(f"now must be a number of unix seconds, not {type(now).__name__}")
    if not abs(now) < 1e15:  # also when it is NaN
        raise ValueError("now must be unix seconds")
    return now
