"""One attempt: bytes out, bytes in.  The UserSig is added here, last; and no foreign error leaves."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import logging
import random
import time
from typing import Protocol, cast
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict, istr
from yarl import URL

from . import __version__
from ._deadlines import Deadline, Deadlines, cancel_again
from ._foreign import FOREIGN, translate
from ._options import ClientSettings
from ._secret import Secret
from ._session import connect_timeout, own_session, proxy_for
from ._signing import Pool, Signing
from ._usersigs import UserSigCache
from ._wire import Reply
from .errors import ClientClosed, ConnectFailed, RequestTimeout, TransportError

_HEADERS = CIMultiDict(
    {
        istr("Content-Type"): "application/json",
        istr("Accept"): "application/json",
        istr("Accept-Encoding"): "identity",  # answers are small, and a packed one can be a thousand times its size
        istr("User-Agent"): f"tim_async/{__version__}",
    }
)
_log = logging.getLogger("tim_async")


class Addressed(Protocol):
    """What learns the host of its request."""

    host: str


class Transport:
    """Sends requests to the hosts of one app, signed, in one event loop.

    Attributes:
        usersigs: the UserSigs that sign.
        session: where connections are kept; None before `open`.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.usersigs = UserSigCache(settings.sdk_app_id, settings.key, settings.identifier, settings.usersig_expire)
        self.session: aiohttp.ClientSession | None = None
        self._given = settings.session
        # Those of a session cost a request less than its own do.
        self._headers = None if self._given is None else _HEADERS
        self._proxy = settings.proxy, settings.trust_env
        self._hosts = settings.hosts
        self._pool = Pool()
        self._query = (
            f"?sdkappid={settings.sdk_app_id}&identifier={quote(settings.identifier, safe='')}&contenttype=json&random="
        )

    @property
    def host(self) -> str:
        """The base URL of the host in use."""
        return self._hosts.current

    def open(self) -> None:
        """Make the session, in the running event loop.

        Raises:
            ValueError: the environment's proxy cannot be used.
        """
        self._proxy_of = {host: proxy_for(host, *self._proxy) for host in self._hosts}
        self._deadlines = Deadlines(asyncio.get_running_loop())
        self.session = self._given or own_session(_HEADERS)

    async def aclose(self) -> None:
        """Close the session unless it was given."""
        if self.session is not None and self._given is None:
            await self.session.close()

    async def send(
        self, command: str, payload: bytes, usersig: Secret, seconds: float, addressed: Addressed | None = None
    ) -> Reply:
        """Send one request, to the backup host if the first one cannot be reached.

        Args:
            command: the path below the host.
            payload: the request's JSON.
            usersig: what signs it.
            seconds: the time-out, both hosts together.
            addressed: if given, its ``host`` becomes the base URL that is tried.

        Raises:
            TransportError: there is no answer; nothing of aiohttp's, asyncio's or the system's.
        """
        deadline = self._deadlines.start(seconds)
        try:
            host = self._hosts.current
            for _ in range(len(self._hosts) - 1):
                if addressed is not None:
                    addressed.host = host
                try:
                    return await self._post(host, command, payload, usersig, seconds, deadline)
                except ClientClosed:
                    raise
                except ConnectFailed as failure:
                    if asyncio.get_running_loop().time() >= deadline.when:
                        raise
                    _log.info("%s; trying the backup host", failure)
                    host = self._hosts.after(host)
            if addressed is not None:
                addressed.host = host
            return await self._post(host, command, payload, usersig, seconds, deadline)
        finally:
            self._deadlines.finish(seconds, deadline)

    async def _post(
        self, host: str, command: str, payload: bytes, usersig: Secret, seconds: float, deadline: Deadline
    ) -> Reply:
        """Send one request to one host, and read its whole answer."""
        session = self.session
        assert session is not None  # `open` comes first
        number = random.getrandbits(32)  # a new one for every request, the vendor says
        url = URL(f"{host}/{command}{self._query}{number}", encoded=True)
        timeout = connect_timeout(seconds, self._given is None)
        signing = Signing(usersig, self.usersigs.scrub, self._pool, deadline)
        error: TransportError | None = None
        try:
            reply = await _exchange(session, url, payload, self._headers, self._proxy_of[host], signing, timeout)
        except (TransportError, *FOREIGN, asyncio.CancelledError, RuntimeError) as raised:
            error = _failure(raised, session, signing, deadline)
            if error is None:
                if isinstance(raised, asyncio.CancelledError):
                    signing.given_up()
                    raised.__traceback__ = None  # the frames are aiohttp's, and may hold a proxy's password
                raise
        # From here on outside the except block, so that what is raised carries no context.
        if error is None:
            signing.answered()
        else:
            signing.unanswered(timed_out=isinstance(error, RequestTimeout))
            error.__traceback__ = None  # its frames are aiohttp's, too
            if isinstance(error, ConnectFailed):
                _forget_address(session, signing)
        if deadline.overruled():  # by a cancellation that a middleware swallowed, or an error of its clean-up replaced
            await cancel_again()
        if error is not None:
            raise error
        return reply


def _failure(
    raised: BaseException, session: aiohttp.ClientSession, signing: Signing, deadline: Deadline
) -> TransportError | None:
    """The error to raise for what an exchange raised; None to let it pass unchanged."""
    if isinstance(raised, TransportError):
        return raised
    if isinstance(raised, FOREIGN):
        return translate(raised, began=signing.began)
    if isinstance(raised, asyncio.CancelledError):
        if deadline.overruled():
            return None
        if deadline.expired:
            return translate(TimeoutError(), began=signing.began)
        # Nobody cancelled the caller: a closing session cancels a DNS query under way, and what awaits it.
        return ClientClosed("the session was closed") if session.closed else None
    return ClientClosed("the session is closed") if session.closed else None


async def _exchange(
    session: aiohttp.ClientSession,
    url: URL,
    payload: bytes,
    headers: CIMultiDict[str] | None,
    proxy: Secret | None,
    signing: Signing,
    timeout: aiohttp.ClientTimeout,
) -> Reply:
    response = await session.post(
        url,
        data=payload,
        headers=headers,
        timeout=timeout,
        proxy=None if proxy is None else cast(URL, proxy.reveal()),
        allow_redirects=False,  # a redirect would carry the signature to another host
        raise_for_status=False,  # whatever the caller's session does by default
        # Those of the call stand instead of the session's, so the session's are named here.
        middlewares=(*getattr(session, "_middlewares", ()), signing),
    )
    # `Signing` has read it, and released its connection, unless a middleware of the caller's answers for the service.
    body = await response.read()
    retry_after = None if response.status == 200 else _retry_after(response)
    return Reply(response.status, body, retry_after, signing.proxied, response.headers)


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
