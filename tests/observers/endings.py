"""All ways in which a call can end, each with its result or exception."""

from __future__ import annotations

import asyncio
import enum
import functools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.peer import Behaviour, Peer, Talk
from tim_async import TIMClient

from .places import (
    Dying,
    Full,
    NonEmptyPath,
    Refusing,
    Unknown,
    escaped,
    percent_encoded,
    percent_encoded_where_needed,
)

FILLER = " ".join(map(str, range(300))) + " "


class Interrupt(enum.Enum):
    """The ways in which a caller ends its call."""

    CANCEL = "task.cancel()"
    TIMEOUT = "asyncio.timeout()"
    WAIT_FOR = "asyncio.wait_for()"
    BEFORE = "task.cancel() before the call's first step"


Maker = Callable[[ssl.SSLContext | None], NonEmptyPath]


def unread(tim: TIMClient) -> Awaitable[Any]:
    """Make the usual call."""
    return tim.get_all_c2c_unread_msg_num("alice")


@dataclass(frozen=True)
class Ending:
    """A way in which a call ends.

    Attributes:
        name: the event.
        expects: the possible classes of the exception or result.
        place: makes the server, given its TLS.
        call: the call that is made.
        timeout: seconds of an attempt.
        interrupt: the caller's way to end the call, when the server has reached the point at which it holds.
    """

    name: str
    expects: tuple[str, ...]
    place: Maker
    call: Callable[[TIMClient], Awaitable[Any]] = unread
    timeout: float = 10.0
    interrupt: Interrupt | None = None


def large(tim: TIMClient) -> Awaitable[Any]:
    """Make a call whose body exceeds the sockets' buffers."""
    return tim.call("v4/openim/sendmsg", {"Text": FILLER * 3000}, repeatable=True)


def peers(tim: TIMClient) -> Awaitable[Any]:
    return tim.get_c2c_unread_msg_num("alice", ["bob", "carol"])


def receipts(tim: TIMClient) -> Awaitable[Any]:
    return tim.get_group_msg_receipt("@TGS#1", [1, 2])


def merged(tim: TIMClient) -> Awaitable[Any]:
    return tim.lookup.c2c_unread_msg_num("alice", "bob")


def _peer(behave: Behaviour) -> Maker:
    """Make a server with a small receive buffer, which a large body exceeds."""
    return functools.partial(Peer, behave, receive_buffer=4096)


def says(body: str | Callable[[str], str], status: int = 200) -> Maker:
    """Answer with a text, which may contain the received UserSig."""

    async def behave(talk: Talk) -> None:
        while True:
            seen = await talk.request()
            await talk.answer((body if isinstance(body, str) else body(seen.usersig)).encode(), status)

    return _peer(behave)


def code(number: int, info: str | Callable[[str], str] = "the reason") -> Maker:
    """Answer an error code, with an ErrorInfo that may contain the received UserSig."""

    def body(usersig: str) -> str:
        text = info if isinstance(info, str) else info(usersig)
        return f'{{"ActionStatus": "FAIL", "ErrorCode": {number}, "ErrorInfo": "{text}"}}'

    return says(body)


def raw(data: bytes) -> Maker:
    """Send bytes and close."""

    async def behave(talk: Talk) -> None:
        await talk.request()
        await talk.send(data)
        await talk.finish()

    return _peer(behave)


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"


def at(point: str, end: str) -> Maker:
    """Close, reset or hold the connection at a point."""

    async def behave(talk: Talk) -> None:
        if point == "while a large body is written":
            await talk.head()
            await talk.some(1000)
        elif point != "after accepting":
            await talk.request()
        if point == "after the headers":
            await talk.send(HEADERS)
        elif point == "within the body":
            await talk.send(HEADERS + b'{"ErrorCode": 0, ')
        if end == "reset":
            talk.reset()
        elif end == "hold":
            await talk.hold()

    return _peer(behave)


POINTS = (
    "after accepting",
    "while a large body is written",
    "after the request",
    "after the headers",
    "within the body",
)
LOST = ("ConnectionLost", "BadResponse")


def _refused() -> list[Ending]:
    kinds = {
        10002: "ServerBusy",
        10003: "InvalidRequest",
        60007: "RateLimited",
        70001: "AuthError",
        424242: "APIError",
    }
    return [Ending(f"refused with {number}", (kind,), code(number)) for number, kind in kinds.items()]


def _garbage() -> list[Ending]:
    bodies: dict[str, Maker] = {
        "not JSON": says("so long"),
        "JSON that is no answer": says("[1, 2]"),
        "a code of 31 digits": says('{"ErrorCode": 1000000000000000000000000000000}'),
        "an HTML 502": says("<html><title>502 Bad Gateway</title></html>", 502),
        "an HTML 404": says("<html><title>404</title></html>", 404),
        "nothing": says(""),
        "not HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        "a bad header": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"),
        "a bad chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"),
        "a truncated body": raw(HEADERS + b'{"ErrorCode":'),
        "not gzip": raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\n{'ErrorCode':0}"),
        "a redirect": raw(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"),
        "a redirect without a host": raw(b"HTTP/1.1 302 Go\r\nLocation: http:///\r\nContent-Length: 0\r\n\r\n"),
    }
    # Another test decides which of these a 31-digit code is.
    kinds = {"a code of 31 digits": ("BadResponse", "APIError")}
    return [Ending(f"answered {name}", kinds.get(name, ("BadResponse",)), place) for name, place in bodies.items()]


def _ended() -> list[Ending]:
    endings: list[Ending] = []
    for point in POINTS:
        call = large if point == "while a large body is written" else unread
        # A connection that is closed at once may be closed before the request was sent.
        lost = (*LOST, "ConnectFailed") if point == "after accepting" else LOST
        endings += [Ending(f"{end} {point}", lost, at(point, end), call=call) for end in ("closed", "reset")]
        held = at(point, "hold")
        # On a busy machine the timeout may pass before there is a connection.
        late = ("RequestTimeout", "ConnectFailed")
        endings.append(Ending(f"timed out {point}", late, held, call=call, timeout=0.1))
        for interrupt in (Interrupt.CANCEL, Interrupt.TIMEOUT):
            kind = "CancelledError" if interrupt is Interrupt.CANCEL else "TimeoutError"
            endings.append(Ending(f"{interrupt.value} {point}", (kind,), held, call=call, interrupt=interrupt))
    wait_for = Interrupt.WAIT_FOR
    return [
        *endings,
        Ending("asyncio.wait_for() after the request", ("TimeoutError",), at(POINTS[2], "hold"), interrupt=wait_for),
        Ending("cancelled before its first step", ("CancelledError",), says("{}"), interrupt=Interrupt.BEFORE),
    ]


def _never_connected() -> list[Ending]:
    return [
        Ending("refused connection", ("ConnectFailed",), place=Refusing),
        Ending("reset while its connection is idle", ("ConnectionLost", "ConnectFailed"), place=Dying),
        Ending("unknown host", ("ConnectFailed",), place=Unknown),
        Ending("timed out while connecting", ("ConnectFailed",), place=Full, timeout=0.1),
        Ending("task.cancel() while connecting", ("CancelledError",), place=Full, interrupt=Interrupt.CANCEL),
        Ending("asyncio.timeout() while connecting", ("TimeoutError",), place=Full, interrupt=Interrupt.TIMEOUT),
    ]


ECHOES: dict[str, Callable[[str], str]] = {
    "raw": lambda usersig: f"bad usersig {usersig}!",
    "in a URL": lambda usersig: f"/v4/openim/x?sdkappid=1&usersig={usersig}&random=1",
    "its first half": lambda usersig: usersig[: len(usersig) // 2],
    "its second half": lambda usersig: usersig[len(usersig) // 2 :],
    "percent-encoded": percent_encoded,
    "percent-encoded where needed": percent_encoded_where_needed,
    "JSON-escaped": escaped,
    "JSON-escaped and percent-encoded": lambda usersig: escaped(percent_encoded_where_needed(usersig)),
    "across the 300th character": lambda usersig: "x" * 250 + usersig,
}


def _echoed() -> list[Ending]:
    def item(make: Callable[[str], str]) -> Callable[[str], str]:
        return lambda usersig: (
            '{"ErrorCode": 0, "ErrorList": [{"Peer_Account": "bob", "ErrorCode": 70107, "ErrorInfo": "TEXT"}],'
            ' "GroupMsgReceiptList": [{"MsgSeq": 1, "Code": 10062, "ErrorInfo": "TEXT"}]}'
        ).replace("TEXT", make(usersig))

    endings = [
        Ending(f"echoed {name} in ErrorInfo", ("InvalidRequest",), code(10003, make)) for name, make in ECHOES.items()
    ]
    for name, make in ECHOES.items():
        endings.append(Ending(f"echoed {name} in ErrorList", ("C2CUnread",), says(item(make)), call=peers))
        endings.append(
            Ending(f"echoed {name} in a receipt's row", ("GroupMsgReceipts",), says(item(make)), call=receipts)
        )
    return [
        *endings,
        Ending("echoed by 70001", ("AuthError",), code(70001, lambda usersig: usersig)),
        Ending("echoed in a merged look-up", ("AccountNotFound", "APIError"), says(item(ECHOES["raw"])), call=merged),
        Ending("echoed in a page", ("BadResponse",), says(lambda usersig: f"<html>{usersig}</html>", 502)),
    ]


ENDINGS: tuple[Ending, ...] = (
    Ending("answered", ("int",), says('{"ErrorCode": 0, "AllC2CUnreadMsgNum": 7}')),
    *_refused(),
    *_garbage(),
    *_never_connected(),
    *_ended(),
    *_echoed(),
)


async def interrupted(ending: Ending, tim: TIMClient, place: NonEmptyPath, meanwhile: Callable[[], None]) -> Any:
    """Make a call, and end it as the ending says."""
    if isinstance(place, Dying):
        await ending.call(tim)
        place.die()
    call = ending.call(tim)
    if ending.interrupt is None:
        return await call
    if ending.interrupt is Interrupt.WAIT_FOR:
        return await asyncio.wait_for(call, 0.1)
    limit = asyncio.timeout(None)
    task = asyncio.ensure_future(_bounded(call, limit) if ending.interrupt is Interrupt.TIMEOUT else call)
    if ending.interrupt is not Interrupt.BEFORE:
        await place.reached.wait()
        for _ in range(20):  # what was sent is read: server and client share a loop, and loopback does not delay
            await asyncio.sleep(0)
    meanwhile()
    if ending.interrupt is Interrupt.TIMEOUT:
        limit.reschedule(asyncio.get_running_loop().time())
    else:
        task.cancel()
    return await task


async def _bounded(call: Awaitable[Any], limit: asyncio.Timeout) -> Any:
    async with limit:
        return await call
