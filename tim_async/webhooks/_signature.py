"""Whether the service sent a webhook."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import Final, Literal

from ._query import (
    Query,
    WebhookError,
    check,
    is_text,
    required,
)

MAX_AGE: Final = 60
"""Seconds that ``RequestTime`` may be from now, before or after; exactly so many is still in time."""

# A time has 10 digits, in ms 13; the bound keeps int() and what is computed with it cheap and exact.
_TIME = re.compile(r"[0-9]{1,15}")


def verify(token: str, query: Query, now: float | None = None) -> Literal[True]:
    """Make sure that the service sent a webhook, and within the last minute.

    Nothing needs to be done with what this returns: **whatever is wrong raises**, so a forgotten ``if`` lets nothing
    pass.  The true value is there for ``assert verify(…)`` and ``if verify(…)``.

    ``Sign`` is the hex SHA-256 of the token followed by ``RequestTime``, in lower case as the vendor writes it.  One is
    computed and compared in constant time for every request of the right form, also for one that is too old.

    It covers **neither the body nor the rest of the query**: for a minute, an eavesdropper on one signed
    request can send another body with it.  Take webhooks by HTTPS alone.  Nor does a repeated ``Sign`` mean a replay:
    all webhooks of one second have the same.

    https://www.tencentcloud.com/document/product/1047/34354

    Args:
        token: the token set up for webhook authentication in the console.
        query: the request's query parameters, decoded; Starlette's, aiohttp's and Django's mappings do as they are.
        now: unix seconds to judge ``RequestTime`` by; None for the machine's clock.

    Returns:
        True.

    Raises:
        WebhookError: ``Sign`` or ``RequestTime`` is missing, there twice or malformed; ``RequestTime`` is over
            60 s from now, either way; or ``Sign`` is not what the token gives.
        TypeError: an argument of the wrong type.
        ValueError: the token is empty or cannot be written in UTF-8, or ``now`` can be no time.
    """
    secret = _token(token)
    check(query)
    moment = time.time() if now is None else _moment(now)

    sign = required(query, "Sign")
    request_time = required(query, "RequestTime")
    if not _TIME.fullmatch(request_time):
        raise WebhookError("RequestTime is not a time in unix seconds")

    # Both are worked out before either decides: a late request takes as long as a forged one, and looks the same
    # whether or not its signature was right.
    expected = hashlib.sha256(secret + request_time.encode("ascii")).hexdigest()
    genuine = hmac.compare_digest(expected.encode("ascii"), sign.encode("utf-8"))
    age = moment - int(request_time)
    if abs(age) > MAX_AGE:
        raise WebhookError(f"RequestTime is {abs(age):.1f} s {'ago' if age > 0 else 'ahead'}, over {MAX_AGE} s")
    if not genuine:
        raise WebhookError("Sign is not what the token and RequestTime give")
    return True


def _token(token: str) -> bytes:
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    # Raised outside the handler: a UnicodeEncodeError, even as a context, would carry the token.
    secret = token.encode() if is_text(token) else b""
    if not secret:
        raise ValueError("token must be non-empty text: without one, anybody could sign")
    return secret


def _moment(now: float) -> float:
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise TypeError(f"now must be a number of unix seconds, not {type(now).__name__}")
    if not abs(now) < 1e15:  # also when it is NaN
        raise ValueError("now must be unix seconds")
    return now
