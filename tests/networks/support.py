"""A real forward proxy in a process, a scripted one, certificates, and a resolver."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.peer import Peer, Talk

PASSWORD = "swordfish-7c41"
"""The password of the proxy's user, which no text may contain."""


class ForwardProxy:
    """proxy.py, with or without a password."""

    def __init__(self, *, password: bool = False) -> None:
        self._password = password
        self._folder = Path(tempfile.mkdtemp())

    def __enter__(self) -> Self:
        port, self._log = self._folder / "port", self._folder / "log"
        command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port)]
        command += ["--num-acceptors", "1", "--num-workers", "1", "--log-file", str(self._log)]
        command += ["--basic-auth", f"tim:{PASSWORD}"] if self._password else []
        # A separate session, so that its child processes can be ended with it.
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        while not (port.exists() and port.read_text().strip()):
            assert self._process.poll() is None, "the proxy did not start"
            assert time.monotonic() < deadline, "the proxy did not start in time"
            time.sleep(0.02)
        self.port = int(port.read_text())
        self.url = f"http://127.0.0.1:{self.port}"
        self.url_with_password = f"http://tim:{PASSWORD}@127.0.0.1:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)

    async def said(self, text: str) -> str:
        """Wait until the proxy's log has a text, which it gets when the connection has ended; return the log."""
        async with asyncio.timeout(30):
            while text not in (log := self._log.read_text()):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        return log


def answering(answer: bytes | None, tls: ssl.SSLContext | None = None) -> Peer:
    """Make a server that answers each connection's first request with the same bytes, or never."""

    async def behave(talk: Talk) -> None:
        await talk.head()
        if answer is None:
            await talk.hold()
        else:
            await talk.send(answer)
            await talk.linger()

    return Peer(behave, tls)


def http(status: int, reason: str, *headers: str, body: bytes = b"no") -> bytes:
    """Return a whole HTTP response."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Authority:
    """A certificate authority: certificates of servers, and clients that trust it."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server(
        self, *names: str, not_before: dt.datetime | None = None, not_after: dt.datetime | None = None
    ) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, not_before=not_before, not_after=not_after).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context


def self_signed() -> ssl.SSLContext:
    """Return a server's context with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(file)
    return context


class Resolver(AbstractResolver):
    """Resolves names to ports of this machine.

    Attributes:
        ports: the port of each name, None for a name without an address; other names do not exist.
        asked: the names that were resolved.
    """

    def __init__(self, ports: Mapping[str, int | None]) -> None:
        self.ports = dict(ports)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.ports:
            raise OSError(None, "no such name")
        given = self.ports[host]
        if given is None:
            return []
        return [ResolveResult(hostname=host, host="127.0.0.1", port=given, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""
