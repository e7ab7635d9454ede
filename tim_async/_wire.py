"""Requests and answers as bytes: pure functions, without a decision about what to do next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ._foreign import proxy_refused
from .errors import BadResponse, Reaction, TIMError, classify, is_code

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        body: the answer's bytes.
        retry_after: seconds, from a Retry-After header; None without one.
        proxied: whether there is a proxy, which may have answered instead of the service.
        headers: the answer's.
    """

    status: int
    body: bytes
    retry_after: float | None
    proxied: bool
    headers: Mapping[str, str]


def encode(body: dict[str, Any]) -> bytes:
    """The JSON text of a request.

    Raises:
        TypeError: a value has no place in JSON.
        ValueError: a number JSON does not have (NaN, infinity), a cycle, a lone surrogate, or nested too deep.
    """
    try:
        return _encode(body).encode()
    except RecursionError:
        raise ValueError("the body is nested too deep") from None


def decode(reply: Reply) -> dict[str, Any] | TIMError:
    """Read an answer: ``ErrorCode`` decides, for the HTTP status is 200 unless something in between failed.

    Returns:
        The answer when its ``ErrorCode`` is 0; an `APIError` when it is another; a `BadResponse` when the answer is
        not the service's; a `ConnectFailed` when a proxy answered, and let nothing through.
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
            f"the answer's ErrorCode is no 32-bit integer ({len(reply.body)} bytes)", 200, Reaction.GIVE_UP
        )
    if reply.proxied and status in (403, 407):
        return proxy_refused(status)
    return _unreadable(status, len(reply.body))


def _json(body: bytes) -> Any:
    try:
        # Faster than having `json.loads` look for other encodings.
        return json.loads(body.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _unreadable(status: int, size: int) -> BadResponse:
    what = f"{size} bytes" if size else "an empty body"
    if status == 200:
        return BadResponse(f"the answer cannot be read as one of the service ({what})", 200)
    # A gateway's 4xx or 3xx was never passed on and will not be; its 5xx may have been, and is transient.
    transient = status >= 500 or status == 408
    return BadResponse(
        f"HTTP {status} with {what} that is no answer of the service",
        status,
        Reaction.RETRY if transient else Reaction.GIVE_UP,
        transient,
    )
