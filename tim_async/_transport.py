"""One attempt: bytes out, bytes in.  The UserSig is added last, and no foreign error escapes."""

from __future__ import annotations

import asyncio
import logging
import random
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
from ._signing import PoolHealth, Signing
from ._usersigs import UserSigCache
from ._wire import Response
from .errors import ClientClosed, ConnectFailed, RequestTimeout, TransportError

_HEADERS = CIMultiDict(
    {
        istr("Content-Type"): "application/json",
        istr("Accept"): "application/json",
        istr("Accept-Encoding"): "identity",  # answers are small, and a compressed one can unpack to a thousandfold
        istr("User-Agent"): f"tim_async/{__version__}",
    }
)
_log = logging.getLogger("tim_async")


class Addressed(Protocol):
    """An object that records the host of its request."""

    host: str


class Transport:
    """Sends signed requests to the hosts of one app, in one event loop.

    Attributes:
        usersigs: the UserSigs that sign the requests.
        session: the session that holds the connections; None before `open`.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.usersigs = UserSigCache(settings.sdk_app_id, settings.key, settings.identifier, settings.usersig_expire)
        self.session: aiohttp.ClientSession | None = None
        self._given = settings.session
        # Headers set on the session cost less than headers set on each request.
        self._headers = None if self._given is None else _HEADERS
        self._proxy = settings.proxy, settings.trust_env
        self._hosts = settings.hosts
        self._health = PoolHealth()
        self._query = (
            f"?sdkappid={settings.sdk_app_id}&identifier={quote(settings.identifier, safe='')}&contenttype=json&random="
        )

    @property
    def host(self) -> str:
        """The base URL of the host in use."""
        return self._hosts.current

    def open(self) -> None:
        """Create the session, in the running event loop.

        Raises:
            ValueError: the environment's proxy is invalid.
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
    ) -> Response:
        """Send one request, and send it to the backup host if the first host cannot be reached.

        Args:
            command: the path below the host.
            payload: the request's JSON.
            usersig: the UserSig that signs the request.
            seconds: the time-out for both hosts together.
            addressed: if given, its ``host`` is set to the base URL of each host tried.

        Raises:
            TransportError: no answer came; errors of aiohttp, asyncio and the system are mapped to it.
        """
        deadline = self._deadlines.start(seconds)
        try:
            host = self._hosts.current
            backups = len(self._hosts) - 1
            while True:
                if addressed is not None:
                    addressed.host = host
                try:
                    return await self._post(host, command, payload, usersig, seconds, deadline)
                except ConnectFailed as failure:
                    late = asyncio.get_running_loop().time() >= deadline.when
                    if late or not backups or isinstance(failure, ClientClosed):
                        raise
                    _log.info("%s; trying the backup host", failure)
                    host = self._hosts.after(host)
                    backups -= 1
        finally:
            self._deadlines.finish(seconds, deadline)

    async def _post(
        self, host: str, command: str, payload: bytes, usersig: Secret, seconds: float, deadline: Deadline
    ) -> Response:
        """Send one request to one host, and read the whole answer."""
        session = self.session
        assert session is not None  # `open` comes first
        signing = Signing(usersig, self.usersigs.scrub, self._health, deadline)
        error: TransportError | None = None
        try:
            reply = await self._exchange(session, host, command, payload, seconds, signing)
        except (TransportError, *FOREIGN, asyncio.CancelledError, RuntimeError) as raised:
            error = _failure(raised, session, signing, deadline)
            if error is None:
                if isinstance(raised, asyncio.CancelledError):
                    signing.abandoned()
                    raised.__traceback__ = None  # the frames are aiohttp's, and may hold a proxy's password
                raise
        # Outside the except block, so that the error raised has no context.
        if error is None:
            signing.answered()
        else:
            signing.unanswered(timed_out=isinstance(error, RequestTimeout))
            error.__traceback__ = None  # as above
            if isinstance(error, ConnectFailed):
                _forget_address(session, signing)
        if deadline.overruled():  # by a cancellation that a middleware swallowed, or that an error in clean-up replaced
            await cancel_again()
        if error is not None:
            raise error
        return reply

    async def _exchange(
        self, session: aiohttp.ClientSession, host: str, command: str, payload: bytes, seconds: float, signing: Signing
    ) -> Response:
        number = random.getrandbits(32)  # the vendor requires a new one for each request
        proxy = self._proxy_of[host]
        response = await session.post(
            URL(f"{host}/{command}{self._query}{number}", encoded=True),
            data=payload,
            headers=self._headers,
            timeout=connect_timeout(seconds, self._given is None),
            proxy=None if proxy is None else cast(URL, proxy.reveal()),
            allow_redirects=False,  # a redirect would carry the signature to another host
            raise_for_status=False,  # overrides the default of the caller's session
            # A call's middlewares replace the session's, so the session's are repeated.
            middlewares=(*getattr(session, "_middlewares", ()), signing),
        )
        # `Signing` has read it and released its connection, unless a middleware of the caller answered in its place.
        return Response(response.status, await response.read(), response.headers, signing.proxied)


def _failure(
    raised: BaseException, session: aiohttp.ClientSession, signing: Signing, deadline: Deadline
) -> TransportError | None:
    """Map an exception of an exchange to the error to raise; None to re-raise it unchanged."""
    if isinstance(raised, TransportError):
        return raised
    if isinstance(raised, FOREIGN):
        return translate(raised, began=signing.began)
    if isinstance(raised, asyncio.CancelledError):
        if deadline.overruled():
            return None
        if deadline.expired:
            return translate(TimeoutError(), began=signing.began)
    # A RuntimeError, or a cancellation that is not the caller's: a closing session cancels a pending DNS query and the
    # tasks that await it.
    return ClientClosed("the session is closed") if session.closed else None


def _forget_address(session: aiohttp.ClientSession, signing: Signing) -> None:
    """Remove a name's address from the DNS cache: it may be the reason why there was no connection."""
    peer, connector = signing.peer, session.connector
    if isinstance(connector, aiohttp.TCPConnector) and peer is not None and peer.host is not None and peer.port:
        connector.clear_dns_cache(peer.host, peer.port)
