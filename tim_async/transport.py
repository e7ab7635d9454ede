"""One attempt: bytes out, bytes in.  Nothing is decided here, and every foreign error ends here.

Foreign exceptions are mapped, not chained: aiohttp's carry the URL, and the URL carries the UserSig, which is
an admin's credential.  What they say that helps — the operating system's reason, the class — is kept in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, NamedTuple, cast

import aiohttp
from yarl import URL

from .errors import (
    BadResponse,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    Reaction,
    RequestTimeout,
    TransportError,
    classify,
)

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Reply(NamedTuple):
    """What came back: the HTTP status, the body, and the seconds of a Retry-After header if there was one."""

    status: int
    body: bytes
    retry_after: float | None


class Target:
    """Where a request goes.  Its URL holds a credential, so it has no part in what a debugger or a log shows."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url


async def post(session: aiohttp.ClientSession, target: Target, body: bytes, timeout: aiohttp.ClientTimeout) -> Reply:
    """Send one request and read its whole answer.

    Args:
        session: where connections are kept.
        target: the whole URL, already encoded.
        body: the JSON text.
        timeout: bounds of this attempt.

    Raises:
        TransportError: of the fitting class; nothing of aiohttp's, asyncio's or the system's.
    """
    try:
        return await _exchange(session, target, body, timeout)
    except (aiohttp.ClientError, OSError, ValueError) as foreign:
        error = _translate(foreign)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not session.closed or (task is not None and task.cancelling()):
            raise
        # Nobody cancelled the caller: a closing session cancels the look-up of a name, and so whoever awaits it.
        error = ClientClosed("the session was closed")
    except RuntimeError:
        if not session.closed:
            raise
        error = ClientClosed("the session is closed")
    raise error  # outside the except block, so that it carries no context


async def _exchange(
    session: aiohttp.ClientSession, target: Target, body: bytes, timeout: aiohttp.ClientTimeout
) -> Reply:
    # A function of its own, so that the response, whose repr is the URL, is in no frame that a traceback shows.
    async with session.post(
        URL(target.url, encoded=True),
        data=body,
        headers=_HEADERS,
        timeout=timeout,
        allow_redirects=False,  # a redirect would carry the signature to another host
        raise_for_status=False,  # whatever the caller's session does by default
    ) as response:
        content = await response.read()
        return Reply(response.status, content, None if response.status == 200 else _retry_after(response))


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


def decode(status: int, body: bytes) -> dict[str, Any]:
    """Read an answer: ``ErrorCode`` decides, for the HTTP status is 200 unless something in between failed.

    Returns:
        The answer, when its ``ErrorCode`` is 0.

    Raises:
        APIError: the code was another.
        BadResponse: it is not an answer of the service.
    """
    answer: Any = None
    with contextlib.suppress(ValueError, RecursionError):  # judged below, together with JSON that is no answer
        answer = json.loads(body)
    code = answer.get("ErrorCode") if isinstance(answer, dict) else None
    if type(code) is int and (code != 0 or 200 <= status < 300):
        if code == 0:
            return cast(dict[str, Any], answer)
        info = answer.get("ErrorInfo")
        # A lone surrogate would make the error unprintable.
        raise classify(code, info.encode(errors="backslashreplace").decode() if isinstance(info, str) else "")
    if status == 429:
        raise classify(429, "HTTP 429")
    raise _unreadable(status, len(body))


def _unreadable(status: int, size: int) -> BadResponse:
    what = f"{size} bytes" if size else "an empty body"
    if status == 200:
        return BadResponse(f"the answer cannot be read as one of the service ({what})", 200)
    # A gateway's 4xx or 3xx was never passed on and will not be; its 5xx may have been, and passes.
    passing = status >= 500 or status == 408
    return BadResponse(
        f"HTTP {status} with {what} that is no answer of the service",
        status,
        Reaction.RETRY if passing else Reaction.GIVE_UP,
        passing,
    )


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds from a Retry-After header; the service sends none, a gateway might."""
    header = response.headers.get("Retry-After", "")
    return float(header) if header.isascii() and header.isdigit() and len(header) < 6 else None


def _translate(error: Exception) -> TransportError:
    name = type(error).__name__
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ConnectFailed("no connection in time")
        case aiohttp.ClientConnectorDNSError():
            return ConnectFailed(f"cannot resolve {error.host} ({error.os_error})")
        case aiohttp.ClientConnectorCertificateError():
            return ConnectFailed(f"the certificate of {error.host} is not its own ({name})")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"cannot connect to {error.host}:{error.port} ({name}: {_reason(error.os_error)})")
        case TimeoutError():
            return RequestTimeout("no answer in time")
        case aiohttp.ClientPayloadError():
            return BadResponse("the answer was cut short or cannot be unpacked")
        case aiohttp.ClientResponseError():
            return BadResponse(f"the answer is not HTTP ({name})", error.status)
        case OSError():
            return ConnectionLost(f"the connection was lost ({name}: {_reason(error)})")
        case ValueError():
            return BadResponse(f"the answer is not HTTP ({name})")
        case _:
            return ConnectionLost(f"the connection was lost ({name})")


def _reason(error: OSError) -> str:
    return error.strerror or f"errno {error.errno}"
