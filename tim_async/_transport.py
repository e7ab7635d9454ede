"""One attempt: bytes out, bytes in.  Nothing is decided here, and no foreign error leaves."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import time
from typing import Any, NamedTuple, cast

import aiohttp
from multidict import CIMultiDict, istr
from yarl import URL

from . import __version__
from ._deadlines import Deadline
from ._foreign import FOREIGN, proxy_refused, translate
from ._secret import Secret
from ._signing import Signer, Signing
from .errors import (
    BadResponse,
    ClientClosed,
    ConnectFailed,
    Reaction,
    RequestTimeout,
    TransportError,
    classify,
    is_code,
)

_HEADERS = CIMultiDict(
    {
        istr("Content-Type"): "application/json",
        istr("Accept"): "application/json",
        istr("Accept-Encoding"): "identity",  # answers are small, and a packed one can be a thousand times its size
        istr("User-Agent"): f"tim_async/{__version__}",
    }
)
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
        body: the JSON text.
        proxy: the URL of the proxy, which may hold a password; None for the session's own choice.
    """

    url: URL
    body: bytes
    proxy: Secret | None


async def post(
    session: aiohttp.ClientSession, request: Request, signer: Signer, timeout: aiohttp.ClientTimeout, deadline: Deadline
) -> Reply:
    """Send one request and read its whole answer.

    Args:
        session: where connections are kept.
        request: what to send.
        signer: what signs it, below everything that observes it.
        timeout: bounds on connecting alone.
        deadline: the end of the attempt.

    Raises:
        TransportError: of the fitting class; nothing of aiohttp's, asyncio's or the system's.
    """
    signing = Signing(signer)
    try:
        reply = await _exchange(session, request, signing, timeout)
    except TransportError as known:
        error = known
    except FOREIGN as foreign:
        error = translate(foreign, began=signing.began)
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if deadline.caused_cancellation():
            error = translate(TimeoutError(), began=signing.began)
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
    error.__traceback__ = None  # its frames are aiohttp's, too
    if isinstance(error, ConnectFailed):
        _forget_address(session, signing)
    raise error  # outside the except block, so that it carries no context


async def _exchange(
    session: aiohttp.ClientSession, request: Request, signing: Signing, timeout: aiohttp.ClientTimeout
) -> Reply:
    response = await session.post(
        request.url,
        data=request.body,
        headers=_HEADERS,
        timeout=timeout,
        proxy=None if request.proxy is None else cast(URL, request.proxy.reveal()),
        allow_redirects=False,  # a redirect would carry the signature to another host
        raise_for_status=False,  # whatever the caller's session does by default
        # Those of the call stand instead of the session's, so the session's are named here.
        middlewares=(*getattr(session, "_middlewares", ()), signing),
    )
    # It was read below, and its connection released, unless something of the caller's answers in the service's place.
    body = await response.read()
    return Reply(response.status, body, None if response.status == 200 else _retry_after(response), signing.proxied)


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
    if status == 200 and code is not None:
        raise BadResponse(
            f"the answer's ErrorCode is no 32-bit integer ({len(reply.body)} bytes)", 200, Reaction.GIVE_UP
        )
    if reply.proxied and status in (403, 407):
        raise proxy_refused(status)
    raise _unreadable(status, len(reply.body))


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
