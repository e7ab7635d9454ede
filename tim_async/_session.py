"""A client's HTTP session, its own or the caller's, with its time-outs and its proxy."""

from __future__ import annotations

import contextlib
import functools
import urllib.request
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ._limiter.queue import Connections
from ._secret import Secret


@functools.lru_cache(maxsize=64)
def connect_timeout(seconds: float, own: bool) -> aiohttp.ClientTimeout:
    """Return aiohttp's time-outs for one attempt of so many seconds."""
    # Half of them to connect, so that a host that drops packets leaves time for its backup.  In a caller's session,
    # `connect` would include the wait for a free connection of its pool, which says nothing about the host.
    half = seconds / 2
    if own:
        return aiohttp.ClientTimeout(total=None, connect=half)
    return aiohttp.ClientTimeout(total=None, sock_connect=half)


def checked_proxy(proxy: Secret | None) -> Secret | None:
    """Parse the URL of a proxy, which is never shown because it may hold a password.

    Raises:
        TypeError, ValueError: not the URL of an HTTP proxy.
    """
    if proxy is None:
        return None
    if not isinstance(proxy.reveal(), str):
        raise TypeError(f"proxy must be a str, not {type(proxy.reveal()).__name__}")
    parsed = Secret(None)
    with contextlib.suppress(ValueError):  # its traceback's frames hold the URL
        parsed = Secret(_in_utf8(URL(str(proxy.reveal()))))
    if not _is_http(parsed):
        raise ValueError("proxy must look like http://host:3128 or http://user:password@host:3128")
    return parsed


def _in_utf8(url: URL) -> URL:
    """Make aiohttp send user and password in UTF-8: it encodes them in Latin-1, and fails if that is impossible."""
    if f"{url.user}{url.password}".isascii():
        return url
    mapped = url.with_user((url.user or "").encode().decode("latin-1"))
    return mapped if url.password is None else mapped.with_password(url.password.encode().decode("latin-1"))


def _is_http(proxy: Secret) -> bool:
    url = proxy.reveal()
    return isinstance(url, URL) and url.scheme in ("http", "https") and bool(url.host)


def proxy_for(base_url: str, proxy: Secret | None, trust_env: bool) -> Secret | None:
    """Return the proxy for one host: the one given, or the environment's, read once.

    aiohttp's own ``trust_env`` would read the environment, and a netrc file, in a thread for every request.
    """
    if proxy is not None or not trust_env:
        return proxy
    parts = urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return checked_proxy(_proxy_of_environment(parts.scheme))


def _proxy_of_environment(scheme: str) -> Secret | None:
    text = urllib.request.getproxies().get(scheme)
    if not text:
        return None
    return Secret(text if "://" in text else f"http://{text}")  # as curl reads it


def own_session(headers: CIMultiDict[str]) -> aiohttp.ClientSession:
    """Create a client's own session, which sends ``headers`` with each request."""
    # The slots bound the number of connections; a limit here would make a call wait while it holds a permit.
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers)


def connections_of(session: aiohttp.ClientSession | None) -> Connections | None:
    """Return the connections of a caller's session; None if they are unlimited."""
    connector = None if session is None else session.connector
    if connector is None:
        return None
    limits = [limit for limit in (connector.limit, connector.limit_per_host) if limit]
    return Connections(min(limits)) if limits else None
