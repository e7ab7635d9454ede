"""Errors of aiohttp, asyncio, OpenSSL and the system, mapped to this library's.

They are mapped, not chained: aiohttp's errors hold URLs and bytes from the peer, and their frames hold the bytes sent.
The useful part is kept: the operating system's reason by its number, OpenSSL's by its name.
"""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp

from .errors import BadResponse, ConnectFailed, ConnectionLost, Reaction, RequestTimeout, TransportError

FOREIGN = (aiohttp.ClientError, OSError, ValueError)
"""The exceptions of an aiohttp request, all mapped by `translate`."""


class TooLarge(ValueError):
    """The answer is larger than any answer of the service."""


def proxy_refused(status: int) -> ConnectFailed:
    """Return the error for a proxy that refused a request; final unless the status is 500 or above."""
    why = {403: "Forbidden", 407: "Proxy Authentication Required"}.get(status, "")
    error = ConnectFailed(f"the proxy refused the request (HTTP {status}{f' {why}' if why else ''})")
    if status < 500:
        error.reaction = Reaction.GIVE_UP
    return error


def translate(error: Exception, *, began: bool) -> TransportError:
    """Map one of `FOREIGN` to an error of this library.

    Args:
        error: the exception.
        began: whether any byte of the request was written to a connection.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) or not began:
        return _not_connected(error)
    name = type(error).__name__
    match error:
        case TimeoutError():
            return RequestTimeout("no answer in time")
        case TooLarge():
            return BadResponse(str(error), 200, Reaction.GIVE_UP)
        case aiohttp.ClientPayloadError():
            return BadResponse("the answer was cut short or cannot be unpacked")
        case aiohttp.ClientResponseError():
            return BadResponse(f"the answer is not HTTP ({name})", error.status)
        case OSError():
            return ConnectionLost(f"the connection was lost ({reason(error)})")
        case ValueError():
            return BadResponse(f"the answer is not HTTP ({name})")
        case _:
            return ConnectionLost(f"the connection was lost ({name})")


def _not_connected(error: Exception) -> ConnectFailed:
    """Return the error for a request of which no byte was sent, e.g. because no connection was free."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return proxy_refused(error.status)
        case aiohttp.ClientConnectorDNSError():
            return ConnectFailed(f"cannot resolve {error.host} ({reason(error.os_error)})")
        case aiohttp.ClientConnectorCertificateError():
            return _untrusted(error)
        case aiohttp.ClientProxyConnectionError():
            return ConnectFailed(f"cannot connect to the proxy {error.host}:{error.port} ({reason(error.os_error)})")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"cannot connect to {error.host}:{error.port} ({reason(error.os_error)})")
        case TimeoutError():
            return ConnectFailed("no connection in time")
        case _:
            return ConnectFailed(f"no connection ({reason(error)})")


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> ConnectFailed:
    """Return the error for an untrusted certificate; final, since the next attempt would get the same one."""
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


def reason(error: BaseException) -> str:
    """Return the system's or OpenSSL's text for the error's number, never the exception's own text."""
    name = type(error).__name__
    if isinstance(error, socket.gaierror):
        return _RESOLVER.get(error.errno, f"resolver error {error.errno}")
    if isinstance(error, ssl.SSLError):
        return f"{name}: {error.reason or 'TLS failed'}"
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"{name}: {os.strerror(error.errno)}"
    return name
