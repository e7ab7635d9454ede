"""Helpers for the emulator's tests: plain HTTP callers and a signer, without the client's code."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from tim_async.emulator import DEFAULT_SDK_APP_ID, DEFAULT_SECRET_KEY, Emulator

SET_UNREAD = "v4/group_open_http_svc/set_unread_msg_num"
MARK_READ = "v4/openim/admin_set_msg_read"
C2C_UNREAD = "v4/openim/get_c2c_unread_msg_num"
RECEIPT = "v4/group_open_http_svc/get_group_msg_receipt"
RECEIPT_DETAIL = "v4/group_open_http_svc/get_group_msg_receipt_detail"
RECENT_CONTACTS = "v4/recentcontact/get_list"
GROUP_INFO = "v4/group_open_http_svc/get_group_info"

NOW = 1_700_000_000


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pack(document: object) -> str:
    """Encode any document as a UserSig."""
    packed = base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()
    return packed.replace("+", "*").replace("/", "-").replace("=", "_")


def usersig(
    identifier: str = "administrator",
    *,
    sdk_app_id: int = DEFAULT_SDK_APP_ID,
    secret_key: str = DEFAULT_SECRET_KEY,
    issued_at: int = NOW,
    expire: int = 86_400,
) -> str:
    """Make a genuine UserSig."""
    content = (
        f"TLS.identifier:{identifier}\nTLS.sdkappid:{sdk_app_id}\nTLS.time:{issued_at}\nTLS.expire:{expire}\n"
    ).encode()
    signature = base64.b64encode(hmac.new(secret_key.encode(), content, hashlib.sha256).digest()).decode()
    return pack(
        {
            "TLS.ver": "2.0",
            "TLS.identifier": identifier,
            "TLS.sdkappid": sdk_app_id,
            "TLS.expire": expire,
            "TLS.time": issued_at,
            "TLS.sig": signature,
        }
    )


def query(**changes: str | None) -> dict[str, str]:
    """Make the query of a well-formed call; None omits a parameter."""
    whole: dict[str, str | None] = {
        "sdkappid": str(DEFAULT_SDK_APP_ID),
        "identifier": "administrator",
        "usersig": usersig(),
        "random": "4294967295",
        "contenttype": "json",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


class Caller:
    """A caller of a running emulator, over real HTTP."""

    def __init__(self, service: Emulator, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.session = session

    async def answer(self, path: str, body: Any, params: dict[str, str] | None = None) -> dict[str, Any]:
        """Post a JSON body and return the parsed answer; assert the properties that every answer has."""
        url = f"{self.service.url}/{path}"
        async with self.session.post(url, json=body, params=params or query()) as response:
            assert response.status == 200
            assert response.content_type == "application/json"
            document: dict[str, Any] = await response.json()
        assert document["ActionStatus"] == ("FAIL" if document["ErrorCode"] else "OK")
        assert isinstance(document["ErrorInfo"], str)
        return document

    async def fields(self, path: str, body: Any) -> dict[str, Any]:
        """Return the fields of an answer that must be a success, without the three common ones."""
        document = await self.answer(path, body)
        assert document["ErrorCode"] == 0, document
        return {
            name: value for name, value in document.items() if name not in {"ActionStatus", "ErrorInfo", "ErrorCode"}
        }

    async def code(self, path: str, body: Any, params: dict[str, str] | None = None) -> int:
        """Return the ErrorCode of the answer."""
        return int((await self.answer(path, body, params))["ErrorCode"])

    async def raw(self, path: str, data: bytes) -> tuple[int, bytes]:
        """Post raw bytes and return the answer's HTTP status and body."""
        async with self.session.post(f"{self.service.url}/{path}", data=data, params=query()) as response:
            return response.status, await response.read()


class BlockingCaller:
    """A caller of a running emulator for code without an event loop, such as a property test."""

    def __init__(self, service: Emulator) -> None:
        self.service = service
        self.state = service.state
        self._http = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)

    def answer(self, path: str, body: Any, params: dict[str, str] | None = None) -> dict[str, Any]:
        """Post a JSON body and return the parsed answer."""
        self._http.request("POST", f"/{path}?{urlencode(params or query())}", json.dumps(body))
        response = self._http.getresponse()
        assert response.status == 200
        document: dict[str, Any] = json.loads(response.read())
        assert type(document["ErrorCode"]) is int
        return document

    def code(self, path: str, body: Any, params: dict[str, str] | None = None) -> int:
        """Return the ErrorCode of the answer."""
        return int(self.answer(path, body, params)["ErrorCode"])

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


@contextmanager
def emulator(**options: Any) -> Iterator[BlockingCaller]:
    """Run a new emulator without limits, at the time `NOW`, and yield a caller of it."""
    whole = {"limit": None, "clock": Clock(), **options}
    with Emulator(**whole) as service, closing(BlockingCaller(service)) as caller:
        yield caller


async def request_in_flight(service: Emulator, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection with a request whose body the emulator is waiting for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    head = f"POST /{C2C_UNREAD} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    return reader, writer


async def arrived(service: Emulator, calls: int = 1) -> None:
    """Wait until so many calls have reached the emulator, which may be stalled."""
    while service.report().total.calls < calls:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)
