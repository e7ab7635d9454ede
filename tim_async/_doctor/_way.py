"""A connection to one host, made step by step on its own socket: name, TCP, proxy, TLS.

It uses the resolver, TLS context and proxy of the client's session.  Nothing is sent to the service.  Errors of the
system are described by their numbers, as in `_foreign`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from tim_async._foreign import reason
from tim_async._secret import Secret
from tim_async.errors import printable
from tim_async.regions import is_loopback

from ._findings import CALLS, Finding, failure, ok, skipped, unrun, warning

T = TypeVar("T")

NAMES = ("dns", "tcp", "proxy", "tls")
"""The steps of a connection, in their order."""
UNREACHABLE = "The service cannot be reached."
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")

_VALIDITY_ERRORS = (9, 10)
"""OpenSSL's error numbers for a certificate that is not yet valid, and for one that has expired."""


class Way:
    """A connection to one host, made step by step."""

    def __init__(self, connector: aiohttp.TCPConnector, url: str, proxy: Secret | None, timeout: float) -> None:
        parts = urlsplit(url)
        self._connector = connector
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        port = parts.port or (443 if self._tls else 80)
        self._where = _place(self._host, port)
        self._proxy = proxy
        self._timeout = timeout
        self._first_hop = (self._host, port)
        if proxy is not None:
            through = cast(URL, proxy.reveal())
            self._first_hop = (through.host or "", through.port or 80)
        self._addresses: list[Any] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def examine(self) -> list[Finding]:
        """Make the connection; returns the finding of each step, those after a failed one as skipped."""
        findings: list[Finding] = []
        failed = ""
        try:
            for name, step in zip(NAMES, (self._resolve, self._connect, self._pass_proxy, self._secure), strict=True):
                findings.append(unrun(name, failed) if failed else await step())
                if findings[-1].level == "failure":
                    failed = findings[-1].name
        finally:
            await self._close()
        return findings

    async def _close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            # Without wait_closed(), asyncio may log the error of a lost connection.
            with contextlib.suppress(OSError):
                await self._within(self._writer.wait_closed())

    async def _within(self, awaitable: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timeout):
            return await awaitable

    async def _resolve(self) -> Finding:
        """Resolve the name of the host or the proxy."""
        host, port = self._first_hop
        resolver = self._connector._resolver  # noqa: SLF001 - aiohttp has no public attribute for it
        # Like aiohttp, which asks no resolver about an IP address.
        own = _is_address(host) or type(resolver) is aiohttp.ThreadedResolver
        looking: Awaitable[Any] = _resolved(host, port) if own else resolver.resolve(host, port, socket.AF_UNSPEC)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._addresses = list(await self._within(looking))
            if self._addresses:
                shown, more = self._addresses[0]["host"], len(self._addresses) - 1
                if shown == host:
                    return ok("dns", f"{host} is an address")
                rest = f" and {more} more" if more else ""
                return ok("dns", f"{host} is {shown}{rest}, {_ms(loop.time() - began)}")
            why, problem = "the name has no address", "failed"
        except TimeoutError:
            why, problem = "the name server does not answer", "late"
        except OSError as error:
            why, problem = reason(error), "failed"
        remedy = "Correct the host name, or this machine's DNS settings."
        return failure(f"dns.{problem}", f"cannot resolve {host}: {why}", UNREACHABLE, remedy, CALLS)

    async def _connect(self) -> Finding:
        """Connect to the address that accepts first."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        places = [(each["host"], each["port"]) for each in self._addresses[:6]]
        tasks = [asyncio.ensure_future(asyncio.open_connection(*place)) for place in places]
        errors: list[BaseException] = []
        try:
            async with asyncio.timeout(self._timeout):
                for task in asyncio.as_completed(tasks):
                    try:
                        self._reader, self._writer = await task
                    except OSError as error:
                        errors.append(error)
                    else:
                        reached = _place(*self._writer.get_extra_info("peername")[:2])
                        return ok("tcp", f"connected to {reached} in {_ms(loop.time() - began)}")
        except TimeoutError:
            errors.append(TimeoutError())
        finally:
            await _abandon(tasks, self._writer)
        problem, why = "failed", reason(errors[-1])
        if isinstance(errors[-1], TimeoutError):
            problem, why = "late", f"no answer within {self._timeout:g} s"
        elif isinstance(errors[-1], ConnectionRefusedError):
            problem = "refused"
        to, remedy = _place(*self._first_hop), "Allow this machine to connect: check firewalls and routes."
        if self._proxy is not None:
            to, remedy = f"the proxy {to}", "Correct the proxy's URL, or start the proxy."
        elif problem == "refused":
            remedy = "Correct the host and the port, or check whether a firewall refuses the connection."
        return failure(f"tcp.{problem}", f"cannot connect to {to}: {why}", UNREACHABLE, remedy, CALLS)

    async def _pass_proxy(self) -> Finding:
        """Make the proxy connect to the host."""
        if self._proxy is None:
            return ok("proxy", "none")
        shown = _place(*self._first_hop)
        url = cast(URL, self._proxy.reveal())
        assert self._writer is not None
        try:
            if url.scheme == "https":
                await self._within(self._writer.start_tls(ssl.create_default_context(), server_hostname=url.host))
            if not self._tls:
                return ok("proxy", f"{shown}, which forwards plain HTTP")
            status = await self._within(self._tunnel(url))
        except TimeoutError:
            problem, why = "late", f"no answer within {self._timeout:g} s"
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            problem, why = "failed", reason(error)
        else:
            if status == 200:
                return ok("proxy", f"{shown} connects to {self._where}")
            problem, why = "password" if status == 407 else "refused", f"HTTP {status}"
        remedy = {
            "password": "Add user and password to the proxy's URL: http://user:password@host:3128.",
            "refused": f"Configure the proxy to allow CONNECT to {self._where}, or bypass it with NO_PROXY.",
        }.get(problem, "Check that it is an HTTP proxy and that it works.")
        found = f"the proxy {shown} does not connect to {self._where}: {why}"
        return failure(f"proxy.{problem}", found, UNREACHABLE, remedy)

    async def _tunnel(self, url: URL) -> int:
        """Ask the proxy for a tunnel; returns the HTTP status of its answer."""
        assert self._writer is not None
        assert self._reader is not None
        self._writer.write(_tunnel_request(self._where, url))
        await self._writer.drain()
        status = _STATUS.match(await self._reader.readuntil(b"\r\n\r\n"))
        if status is None:
            raise ValueError
        return int(status[1])

    async def _secure(self) -> Finding:
        """Set up TLS."""
        where = self._where
        if not self._tls:
            if is_loopback(self._host):
                return ok("tls", "not used: plain HTTP on this machine")
            return warning(
                "tls.none",
                f"plain HTTP to {where}",
                "The UserSig, an admin's credential, can be intercepted.",
                "Use https:// in `base_url`.",
                CALLS,
            )
        context = _context(self._connector)
        if context is None:
            return skipped("tls", "the session pins a fingerprint")
        assert self._writer is not None
        try:
            await self._within(self._writer.start_tls(context, server_hostname=self._host))
        except TimeoutError:
            problem, why = "late", f"no handshake within {self._timeout:g} s"
            remedy = "Check the firewalls and gateways between this machine and the host."
        except ssl.SSLCertVerificationError as error:
            problem, why = "untrusted", printable(error.verify_message)
            remedy = "Correct the host; behind a gateway that intercepts TLS, trust its authority (SSL_CERT_FILE)."
            if error.verify_code in _VALIDITY_ERRORS:
                remedy = "Check this machine's clock; if it is right, the host's operators must renew the certificate."
        except (OSError, ValueError) as error:
            problem, why = "failed", reason(error)
            remedy = "Check that this port speaks TLS, and that no firewall or gateway interferes."
        else:
            return _secured(self._writer.get_extra_info("ssl_object"), context, where)
        return failure(f"tls.{problem}", f"no TLS with {where}: {why}", UNREACHABLE, remedy)


def _place(host: str, port: int) -> str:
    """Return host and port in the form of a CONNECT request."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tunnel_request(to: str, proxy: URL) -> bytes:
    head = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"
    pair = aiohttp.BasicAuth.from_url(proxy)  # as aiohttp does
    if pair is not None:
        head += f"Proxy-Authorization: {pair.encode()}\r\n"
    return f"{head}\r\n".encode()


def _secured(connection: ssl.SSLObject, context: ssl.SSLContext, where: str) -> Finding:
    if context.verify_mode is ssl.CERT_NONE:
        return warning(
            "tls.unverified",
            f"{connection.version()} with {where}, whose certificate is not verified",
            "An attacker in the network can pose as the service and receive an admin's UserSig.",
            "Remove ssl=False from the session's connector.",
        )
    until = (connection.getpeercert() or {}).get("notAfter", "")
    return ok("tls", f"{connection.version()} with {where}, whose certificate is valid until {printable(str(until))}")


def _context(connector: aiohttp.TCPConnector) -> ssl.SSLContext | None:
    """Return the TLS context of a connector; None for a pinned fingerprint, which no context expresses."""
    given = getattr(connector, "_ssl", True)
    if isinstance(given, ssl.SSLContext):
        return given
    if not isinstance(given, bool):
        return None
    context = ssl.create_default_context()
    if not given:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _abandon(tasks: Sequence[asyncio.Future[Any]], kept: asyncio.StreamWriter | None) -> None:
    """Close all connections except ``kept``."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException) and result[1] is not kept:
            result[1].transport.abort()


async def _resolved(host: str, port: int) -> list[dict[str, Any]]:
    """Resolve a name in a daemon thread, which does not delay the interpreter's exit.

    Raises:
        OSError: the name cannot be resolved.
    """
    answer: Future[list[Any]] = Future()

    def work() -> None:
        with contextlib.suppress(InvalidStateError):  # the caller has given up
            try:
                answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                answer.set_exception(error)
            except UnicodeError:
                answer.set_exception(OSError(None, "not a host name"))

    threading.Thread(target=work, daemon=True, name="tim_async-doctor-dns").start()
    found = await asyncio.wrap_future(answer)
    places = dict.fromkeys(address[:2] for *_, address in found)
    return [{"host": host, "port": port} for host, port in places]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
