"""The session of a client, its own or the caller's; its time-outs and its proxy."""

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
    # Half for connecting, so that a host that swallows packets leaves time for its backup.  In a caller's session
    # `connect` would also be the wait for a place in its pool, which says nothing of the host.
    half = seconds / 2
    if own:
        return aiohttp.ClientTimeout(total=None, connect=half)
    return aiohttp.ClientTimeout(total=None, sock_connect=half)


def checked_proxy(proxy: Secret | None) -> Secret | None:
    """Parse the URL of a proxy, which may hold a password and so is never shown.

    Raises:
        TypeError, ValueError: it is not the URL of an HTTP proxy.
    """
    if proxy is None:
        return None
    if not isinstance(proxy.reveal(), str):
        raise TypeError(f"proxy must be a str, not {type(proxy.reveal()).__name__}")
    parsed = Secret(None)
    with contextlib.suppress(ValueError):  # its frames hold the text
        parsed = Secret(_in_utf8(URL(str(proxy.reveal()))))
    if not _is_http(parsed):
        raise ValueError("proxy must look like http://host:3128 or http://user:password@host:3128")
    return parsed


def _in_utf8(url: URL) -> URL:
    """Have aiohttp send user and password in UTF-8: it sends Latin-1, and fails with all that this cannot encode."""
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
    """A client's own session, which sends ``headers`` with each request."""
    # The slots bound how many connections there are; a limit here would make a call wait with its permit taken.
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers)


def connections_of(session: aiohttp.ClientSession | None) -> Connections | None:
    """The connections of a caller's session; None when they are unlimited."""
    connector = None if session is None else session.connector
    if connector is None:
        return None
    limits = [limit for limit in (connector.limit, connector.limit_per_host) if limit]
    return Connections(min(limits)) if limits else None
