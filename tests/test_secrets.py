"""No log, text, repr, traceback, pickle or record contains the key or a UserSig.

`tests.observers` has every other ending of a call, such as a cancellation, and the constructor's errors.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import traceback
from collections.abc import Callable
from urllib.parse import quote

import aiohttp
import pytest

from tim_async import Attempt, RetryPolicy, TIMError

from .stand_in import (
    EMPTY,
    JSON,
    KEY,
    METHODS,
    NOT_GZIP,
    NOT_HTTP,
    TRUNCATED,
    Action,
    Fate,
    Raw,
    Reply,
    Seen,
    StandIn,
    client_of,
    error,
    failure_of,
    ok,
    outcome_of,
    page,
)


def url(seen: Seen) -> str:
    return f"{seen.path}?{seen.raw_query}"


def encoded(usersig: str) -> str:
    return usersig.replace("_", "%5F").replace("-", "%2D").replace("*", "%2A")


def echo_rows(seen: Seen) -> Action:
    return ok(
        AllC2CUnreadMsgNum=seen.usersig,
        C2CUnreadMsgNumList=[{"Peer_Account": seen.usersig}],
        GroupMsgReceiptList=[{"MsgSeq": seen.usersig}],
    )


def short(seen: Seen) -> Action:
    text = url(seen).encode()
    return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text) + 9, text))


FAILURES: dict[str, Callable[[Seen], Action]] = {
    "10002": lambda _: error(10002, "busy"),
    "10003": lambda _: error(10003, "bad"),
    "60007": lambda _: error(60007),
    "70001": lambda _: error(70001, "expired"),
    "70003": lambda _: error(70003),
    "502": lambda _: page(502),
    "404": lambda _: page(404),
    "a redirect": lambda _: Reply(b"", 302, (("Location", "http://127.0.0.1:9/elsewhere"),)),
    "empty": lambda _: EMPTY,
    "truncated": lambda _: TRUNCATED,
    "not HTTP": lambda _: NOT_HTTP,
    "not gzip": lambda _: NOT_GZIP,
    "dropped": lambda _: Fate.DROP,
    "held": lambda _: Fate.HOLD,
    "echoed in ErrorInfo": lambda seen: error(10003, f"bad usersig {seen.usersig}!"),
    "echoed in ErrorInfo of a transient error": lambda seen: error(10002, seen.usersig),
    "echoed in ErrorInfo of a rejected UserSig": lambda seen: error(70001, seen.usersig),
    "echoed in ErrorInfo of a refusal for the rate": lambda seen: error(60007, url(seen)),
    "echoed in ErrorInfo of an unknown code": lambda seen: error(424242, url(seen)),
    "echoed in ErrorInfo of another region": lambda seen: error(60026, url(seen)),
    "echoed percent-encoded": lambda seen: error(10003, quote(seen.raw_query, safe="")),
    "echoed with each special character percent-encoded": lambda seen: error(10003, encoded(seen.usersig)),
    "echoed as a body": lambda seen: Reply(seen.usersig.encode()),
    "echoed as a page": lambda seen: Reply(f"<html>{url(seen)}</html>".encode(), 502),
    "echoed as a 404 page": lambda seen: Reply(f"<html>{url(seen)}</html>".encode(), 404),
    "echoed as a JSON string": lambda seen: Reply(json.dumps(url(seen)).encode()),
    "echoed under another name": lambda seen: Reply(json.dumps({"ErrorCode": "x", "Url": url(seen)}).encode()),
    "echoed in ill-typed fields": echo_rows,
    "echoed in a redirect": lambda seen: Reply(b"", 307, (("Location", url(seen)),)),
    "echoed in a header": lambda seen: Reply(b"", 500, (*JSON, ("X-Url", url(seen)))),
    "echoed in a status line": lambda seen: Raw(f"HTTP/9.9 {url(seen)}\r\n\r\n".encode()),
    "echoed in a bad header": lambda seen: Raw(f"HTTP/1.1 200 OK\r\n{seen.usersig}\r\n\r\n".encode()),
    "echoed and cut short": short,
}  # fmt: skip


def everything_shown(failure: BaseException) -> str:
    """Return all that a log, a debugger or a crash reporter could show of an exception and its chain."""
    shown = [repr(failure), str(failure), repr(failure.args), repr(vars(failure))]
    shown += traceback.format_exception(failure)
    shown += traceback.TracebackException.from_exception(failure, capture_locals=True, compact=False).format()
    for again in (failure, copy.copy(failure), copy.deepcopy(failure)):
        # One character for each byte, so that it can be searched for plain text.
        shown += [pickle.dumps(again, protocol).decode("latin-1") for protocol in (0, 5)]
    for behind in (failure.__cause__, failure.__context__):
        if behind is not None:
            shown.append(everything_shown(behind))
    return "\n".join(shown)


def assert_no_secret(text: str, service: StandIn) -> None:
    assert KEY not in text
    for usersig in service.usersigs:
        # Not even a large part of one, which is almost unique.
        for part in (usersig, usersig[20:60], usersig[:40], usersig[-40:]):
            at = text.find(part)
            assert at < 0, f"a UserSig is shown: …{text[max(0, at - 300) : at + 40]}…"
    assert not re.search(r"usersig(=|%3D)[A-Za-z0-9*]", text), "a URL with its query is shown"


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_no_failure_shows_a_secret(
    service: StandIn, caplog: pytest.LogCaptureFixture, answer: Callable[[Seen], Action]
) -> None:
    """Not in a log at DEBUG, a text, a traceback with locals, a pickle or a record, even if the service echoes it."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    service.answer = answer
    retry = RetryPolicy(attempts=3, wait=(0, 0), wait_rate_limited=(0, 0))
    timeout = 0.25 if answer is FAILURES["held"] else 10.0
    for method in METHODS:
        caplog.clear()
        records: list[Attempt] = []
        async with client_of(service, on_attempt=records.append, retry=retry, timeout=timeout) as tim:
            outcome = await outcome_of(method.run(tim))
            shown = [repr(tim), repr(vars(tim.batch)), repr(records), caplog.text, *map(repr, caplog.records)]
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, TIMError)
                shown.append(everything_shown(outcome))
            elif method.name != "call":  # it returns the service's whole answer
                shown.append(repr(outcome))
        assert records
        assert service.usersigs
        assert_no_secret("\n".join([*shown, caplog.text]), service)


async def test_success_logs_no_secret(service: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, and in the event loop's debug mode."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # every callback is logged, with its repr
    async with client_of(service) as tim:
        for method in METHODS:
            await method.run(tim)
        async with tim.batch.map(tim.set_unread_msg_num, [("g", "alice", 1)] * 5) as outcomes:
            shown = [repr(outcome) async for outcome in outcomes]
    assert any(record.name == "asyncio" for record in caplog.records)
    assert_no_secret("\n".join([*shown, caplog.text]), service)


async def test_an_echoed_usersig_of_an_earlier_attempt_is_not_shown(service: StandIn) -> None:
    """It was rejected and replaced, but a cached answer may echo it."""

    def answer(seen: Seen) -> Action:
        first = next(known for known in service.seen if known.path).usersig
        return error(70001, first)

    service.answer = answer
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert len(service.seen) == 2
    assert_no_secret(everything_shown(failure), service)


async def test_a_client_shows_no_secret(service: StandIn) -> None:
    """Not in its repr, str, format or vars, before, during and after its use."""
    tim = client_of(service)
    texts = [repr(tim), str(tim), f"{tim}", repr(vars(tim))]
    async with tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        texts += [repr(tim), repr(vars(tim)), repr(tim.batch), repr(tim.get_all_c2c_unread_msg_num)]
    texts += [repr(tim), repr(vars(tim))]
    assert_no_secret("\n".join(texts), service)


async def test_the_repr_of_a_session_shows_no_secret(service: StandIn) -> None:
    """aiohttp's warning about an unclosed session contains it."""
    session = aiohttp.ClientSession()
    tim = client_of(service, session=session)
    await tim.get_all_c2c_unread_msg_num("alice")
    assert_no_secret(repr(session) + repr(session.connector), service)
    await session.close()
