"""Requests and answers as bytes, encoded and decoded without I/O."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ._foreign import proxy_refused
from .errors import BadResponse, Reaction, TIMError, classify, is_code

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Response(NamedTuple):
    """An HTTP response, read completely.

    Attributes:
        status: the HTTP status.
        body: the bytes of the body.
        headers: the headers.
        proxied: whether there is a proxy, which may have answered instead of the service.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    proxied: bool

    @property
    def retry_after(self) -> float | None:
        """The seconds of an error's Retry-After, a number or a date; the service sends none, but a gateway might."""
        if self.status == 200:
            return None
        header = self.headers.get("Retry-After", "").strip()
        if header.isascii() and header.isdigit():
            return float(header[:6])
        until = unix_time(header)
        if until is None:
            return None
        # By the sender's clock if it sent the time, since ours may differ.
        now = unix_time(self.headers.get("Date", ""))
        return max(0.0, until - (time.time() if now is None else now))


def unix_time(header: str) -> float | None:
    """Return the time in a header such as ``Date``, unix seconds; None if it is not a date."""
    try:
        date = email.utils.parsedate_to_datetime(header)
        return (date if date.tzinfo is not None else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def encode(body: dict[str, Any]) -> bytes:
    """Return a request's fields as JSON.

    Raises:
        TypeError: a value that JSON cannot represent.
        ValueError: a number that JSON does not have (NaN, infinity), a cycle, a lone surrogate, or too deep nesting.
    """
    try:
        return _encode(body).encode()
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


def decode(reply: Response) -> dict[str, Any] | TIMError:
    """Decode an answer by its ``ErrorCode``: the HTTP status is 200 unless an intermediary failed.

    Returns:
        The answer if its ``ErrorCode`` is 0; an `APIError` for any other code; a `BadResponse` if the answer is not
        the service's; a `ConnectFailed` if a proxy refused the request.
    """
    answer = _json(reply.body)
    status = reply.status
    code = answer.get("ErrorCode") if isinstance(answer, dict) else None
    if is_code(code) and (code != 0 or 200 <= status < 300):
        if code == 0:
            return cast(dict[str, Any], answer)
        info = answer.get("ErrorInfo")
        return classify(code, info if isinstance(info, str) else "")
    if status == 429:
        return classify(429, "HTTP 429")
    if status == 200 and code is not None:
        return BadResponse(
            f"the answer's ErrorCode is not a 32-bit integer ({len(reply.body)} bytes)", 200, Reaction.GIVE_UP
        )
    if reply.proxied and status in (403, 407):
        return proxy_refused(status)
    return _unreadable(status, len(reply.body))


def _json(body: bytes) -> Any:
    try:
        # Faster than letting `json.loads` detect the encoding.
        return json.loads(body.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _unreadable(status: int, size: int) -> BadResponse:
    # A request that a gateway answers with 3xx or 4xx was not forwarded, and will not be; one that it answers with 5xx
    # may have been, and the failure is transient.
    transient = status >= 500 or status in (200, 408)
    return BadResponse(
        f"HTTP {status} with a body that is not an answer of the service ({f'{size} bytes' if size else 'empty'})",
        status,
        Reaction.RETRY if transient else Reaction.GIVE_UP,
        transient,
    )
