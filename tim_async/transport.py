"""One attempt: bytes out, bytes in.  Nothing is decided here, and every foreign error ends here.

Foreign exceptions are mapped, not chained: aiohttp's carry URLs, and frames that hold what was written.  What they say
that helps is kept in words: the operating system's reason by its number, OpenSSL's by its name.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import os
import socket
import ssl
import time
from typing import Any, NamedTuple, cast

import aiohttp
from yarl import URL

from . import __version__
from ._deadlines import Deadline
from ._secret import Secret
from ._signing import Pool, Signing
from .errors import (
    BadResponse,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    Reaction,
    RequestTimeout,
    TransportError,
    classify,
    is_code,
)

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read, unpacked: the service's own cap is 1 MB (it answers 10018 above it)."""

_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # answers are small, and a packed one can be a thousand times its size
    "User-Agent": f"tim_async/{__version__}",
}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        body: the answer's bytes.
        retry_after: seconds, from a Retry-After header; None without one.
        proxied: whether there is a proxy, which may have answered instead of the service.
    """

    status: int
    body: bytes
    retry_after: float | None
    proxied: bool


class Request(NamedTuple):
    """What is sent.

    Attributes:
        url: the whole URL but for the signature.
        signature: the UserSig, which is added below everything that sees URLs.
        body: the JSON text.
        proxy: the URL of the proxy; None for the session's own choice.
    """

    url: URL
    signature: Secret
    body: bytes
    proxy: URL | None


async def post(
    session: aiohttp.ClientSession, request: Request, pool: Pool, timeout: aiohttp.ClientTimeout, deadline: Deadline
) -> Reply:
    """Send one request and read its whole answer.

    Args:
        session: where connections are kept.
        request: what to send.
        pool: what is known of the session's connections.
        timeout: bounds on connecting alone.
        deadline: the end of the attempt.

    Raises:
        TransportError: of the fitting class; nothing of aiohttp's, asyncio's or the system's.
    """
    signing = Signing(request.signature, pool)
    try:
        reply = await _exchange(session, request, signing, timeout)
    except (aiohttp.ClientError, OSError, ValueError) as foreign:
        error = _translate(foreign, signing)
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if deadline.caused_cancellation():
            error = _translate(TimeoutError(), signing)
        elif not session.closed or (task is not None and task.cancelling()):
            signing.given_up()
            cancelled.__traceback__ = None  # the frames are aiohttp's, and may hold a proxy's password
            raise
        else:  # nobody cancelled the caller: a closing session cancels the look-up of a name, and what awaits it
            error = ClientClosed("the session was closed")
    except RuntimeError:
        if not session.closed:
            raise
        error = ClientClosed("the session is closed")
    else:
        signing.answered()
        return reply
    signing.unanswered(timed_out=isinstance(error, RequestTimeout))
    if isinstance(error, ConnectFailed):
        _forget_address(session, signing)
    raise error  # outside the except block, so that it carries no context


async def _exchange(
    session: aiohttp.ClientSession, request: Request, signing: Signing, timeout: aiohttp.ClientTimeout
) -> Reply:
    async with session.post(
        request.url,
        data=request.body,
        headers=_HEADERS,
        timeout=timeout,
        proxy=request.proxy,
        allow_redirects=False,  # a redirect would carry the signature to another host
        raise_for_status=False,  # whatever the caller's session does by default
        # Those of the call stand instead of the session's, so the session's are named here.
        middlewares=(*getattr(session, "_middlewares", ()), signing),
    ) as response:
        body = await _read(response)
        # An answer that an instrumentation has read already is asked for once more.
        body = body or await response.read()
        return Reply(response.status, body, None if response.status == 200 else _retry_after(response), signing.proxied)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, up to `MAX_ANSWER`.

    Raises:
        ValueError: there is more.
    """
    content = response.content
    body = await content.read(MAX_ANSWER)
    while not content.at_eof():
        if len(body) >= MAX_ANSWER:
            raise _TooLarge
        body += await content.read(MAX_ANSWER - len(body))
    return body


class _TooLarge(ValueError):
    """More bytes than any answer of the service has."""


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


def decode(reply: Reply) -> dict[str, Any]:
    """Read an answer: ``ErrorCode`` decides, for the HTTP status is 200 unless something in between failed.

    Returns:
        The answer, when its ``ErrorCode`` is 0.

    Raises:
        APIError: the code was another.
        BadResponse: it is not an answer of the service.
        ConnectFailed: a proxy answered, and let nothing through.
    """
    answer = _json(reply.body)
    status = reply.status
    code = answer.get("ErrorCode") if isinstance(answer, dict) else None
    if is_code(code) and (code != 0 or 200 <= status < 300):
        if code == 0:
            return cast(dict[str, Any], answer)
        info = answer.get("ErrorInfo")
        raise classify(code, info if isinstance(info, str) else "")
    if status == 429:
        raise classify(429, "HTTP 429")
    if reply.proxied and status in (403, 407):
        raise proxy_refused(status)
    raise _unreadable(status, len(reply.body))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def proxy_refused(status: int) -> ConnectFailed:
    """The error for a proxy that let nothing through; asked again, it answers the same, unless it is overloaded."""
    why = {403: "Forbidden", 407: "Proxy Authentication Required"}.get(status, "")
    error = ConnectFailed(f"the proxy refused the request (HTTP {status}{f' {why}' if why else ''})")
    if status < 500:
        error.reaction = Reaction.GIVE_UP
    return error


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


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; the service sends none, a gateway might."""
    header = response.headers.get("Retry-After", "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:6])
    until = _date(header)
    if until is None:
        return None
    # By the sender's own clock where it tells, since ours may differ.
    now = _date(response.headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _date(header: str) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(header)
        return (date if date.tzinfo is not None else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _forget_address(session: aiohttp.ClientSession, signing: Signing) -> None:
    """Have a name resolved again: its address may be the reason that there was no connection."""
    peer, connector = signing.peer, session.connector
    if isinstance(connector, aiohttp.TCPConnector) and peer is not None and peer.host is not None and peer.port:
        connector.clear_dns_cache(peer.host, peer.port)


def _translate(error: Exception, signing: Signing) -> TransportError:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) or not signing.began:
        return _not_connected(error)
    name = type(error).__name__
    match error:
        case TimeoutError():
            return RequestTimeout("no answer in time")
        case _TooLarge():
            return BadResponse(f"the answer exceeds {MAX_ANSWER // 1024 // 1024} MB", 200, Reaction.GIVE_UP)
        case aiohttp.ClientPayloadError():
            return BadResponse("the answer was cut short or cannot be unpacked")
        case aiohttp.ClientResponseError():
            return BadResponse(f"the answer is not HTTP ({name})", error.status)
        case OSError():
            return ConnectionLost(f"the connection was lost ({_reason(error)})")
        case ValueError():
            return BadResponse(f"the answer is not HTTP ({name})")
        case _:
            return ConnectionLost(f"the connection was lost ({name})")


def _not_connected(error: Exception) -> ConnectFailed:
    """The error for a request of which no byte was sent, be it for want of a place in the caller's pool."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return proxy_refused(error.status)
        case aiohttp.ClientConnectorDNSError():
            return ConnectFailed(f"cannot resolve {error.host} ({_reason(error.os_error)})")
        case aiohttp.ClientConnectorCertificateError():
            return _untrusted(error)
        case aiohttp.ClientProxyConnectionError():
            return ConnectFailed(f"cannot connect to the proxy {error.host}:{error.port} ({_reason(error.os_error)})")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"cannot connect to {error.host}:{error.port} ({_reason(error.os_error)})")
        case TimeoutError():
            return ConnectFailed("no connection in time")
        case _:
            return ConnectFailed(f"no connection ({_reason(error)})")


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> ConnectFailed:
    """The error for a certificate that does not prove the host; asked again, it would be the same one."""
    cause = error.certificate_error
    why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else type(cause).__name__
    failed = ConnectFailed(f"the certificate of {error.host}:{error.port} is not trusted ({why})")
    failed.reaction = Reaction.GIVE_UP
    return failed


_RESOLVER = {
    getattr(socket, name, None): text
    for name, text in (
        ("EAI_NONAME", "no such name"),
        ("EAI_NODATA", "the name has no address"),
        ("EAI_AGAIN", "temporary failure of the name server"),
        ("EAI_FAIL", "permanent failure of the name server"),
    )
}


def _reason(error: BaseException) -> str:
    """Why, in words of the system's or OpenSSL's that are found by number; never the text an exception came with."""
    name = type(error).__name__
    if isinstance(error, socket.gaierror):
        return _RESOLVER.get(error.errno, f"resolver error {error.errno}")
    if isinstance(error, ssl.SSLError):
        return f"{name}: {error.reason or 'TLS failed'}"
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"{name}: {os.strerror(error.errno)}"
    return name
