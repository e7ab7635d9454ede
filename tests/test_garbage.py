"""Any answer, to any method, is a valid result or a TIMError."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import BadResponse, InvalidRequest, RetryPolicy, TIMError

from .stand_in import JSON, METHODS, Action, Raw, Reply, StandIn, client_of, failure_of, outcome_of
from .test_models import answers, json_values

# Half of them are successes, whose fields are parsed.
bodies = (
    json_values
    | answers
    | st.builds(lambda code, rest: {**rest, "ErrorCode": code}, st.just(0) | st.integers() | json_values, answers)
    | st.builds(lambda rest: {**rest, "ErrorCode": 0}, answers)
)
texts = bodies.map(lambda value: json.dumps(value).encode())
raw_bodies = st.binary(max_size=300) | st.builds(lambda text, at: text[: at % (len(text) + 1)], texts, st.integers(0))
statuses = st.sampled_from([200, 200, 200, 200, 201, 204, 304, 400, 429, 500, 502, 503])
headers = st.sampled_from(
    [
        JSON,
        (),
        (("Content-Type", "text/html; charset=klingon"),),
        (("Content-Type", "\x01"),),
        (("Content-Encoding", "gzip"),),
        (("Content-Encoding", "deflate"),),
        (("Content-Encoding", "br"),),
        (("Set-Cookie", "a=b; =;;"), ("Set-Cookie", "bad\x7f")),
        (("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),),
        (("Retry-After", "-1"),),
        (("Location", "http://127.0.0.1:1/"),),
    ]
)
replies: st.SearchStrategy[Action] = (
    texts.map(Reply)
    | st.builds(Reply, texts | raw_bodies, statuses, headers, st.booleans())
    | st.builds(lambda junk: Raw(junk + b"\r\n\r\n"), st.binary(max_size=300))
    | st.builds(
        lambda head, junk: Raw(head + junk + b"\r\n\r\n{}"),
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Length: "]),
        st.binary(max_size=60),
    )
)


@pytest.mark.parametrize("kind", ["bodies", "replies"])
def test_any_answer_is_a_valid_result_or_a_tim_error(kind: str) -> None:
    """Any JSON, any bytes with any status, and bytes that are not HTTP, to each method."""
    strategy = replies if kind == "replies" else texts.map(Reply)
    with asyncio.Runner() as runner:
        service = runner.run(StandIn().__aenter__())
        # One attempt for each call, and a rate far above that of the test.
        rates = {method.endpoint: 10_000 for method in METHODS}
        tim = client_of(service, retry=RetryPolicy(attempts=1), rates=rates, timeout=10)

        async def each(action: Action) -> list[Any]:
            service.script.clear()
            service.script.extend([action] * len(METHODS))
            async with asyncio.timeout(20 * len(METHODS)):
                return [await outcome_of(method.run(tim)) for method in METHODS]

        @given(strategy)
        def check(action: Action) -> None:
            for method, found in zip(METHODS, runner.run(each(action)), strict=True):
                assert isinstance(found, type(method.result) | TIMError)
                if isinstance(found, TIMError):
                    assert (found.endpoint, found.attempts) == (method.endpoint, 1)
                    assert str(found)

        try:
            check()
        finally:
            runner.run(tim.aclose())
            runner.run(service.__aexit__(None, None, None))


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \n ",
    "null": b"null",
    "true": b"true",
    "a number": b"0",
    "a string": b'"ErrorCode"',
    "a list": b'[{"ErrorCode":0}]',
    "no code": b"{}",
    "code null": b'{"ErrorCode":null}',
    "code false": b'{"ErrorCode":false}',
    "code true": b'{"ErrorCode":true}',
    "code a float": b'{"ErrorCode":0.0}',
    "code a string": b'{"ErrorCode":"0"}',
    "code a list": b'{"ErrorCode":[0]}',
    "code 2**31": b'{"ErrorCode":2147483648}',
    "code -(2**31) - 1": b'{"ErrorCode":-2147483649}',
    "code NaN": b'{"ErrorCode":NaN}',
    "code infinite": b'{"ErrorCode":1e999}',
    "a huge code": b'{"ErrorCode":' + b"9" * 4000 + b"}",
    "a code too huge": b'{"ErrorCode":' + b"9" * 5000 + b"}",
    "info a list": b'{"ErrorCode":10003,"ErrorInfo":[1]}',
    "info a surrogate": b'{"ErrorCode":10003,"ErrorInfo":"\\ud800"}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep inside": b'{"ErrorCode":0,"ErrorList":' + b"[" * 900 + b"]" * 900 + b"}",
    "not UTF-8": b'{"ErrorCode":0,"a":"\xff"}',
    "UTF-16": '{"ErrorCode":0'.encode("utf-16"),
    "NUL": b"\0" * 50,
    "HTML": b"<html>502</html>",
    "two answers": b'{"ErrorCode":0}{"ErrorCode":0}',
    "a huge count": b'{"ErrorCode":0,"AllC2CUnreadMsgNum":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_answer_is_a_tim_error(service: StandIn, body: bytes) -> None:
    """A BadResponse if its code is malformed; a result, if it is a success and the method parses no field of it."""
    service.answer = lambda _: Reply(body)
    async with client_of(service, retry=RetryPolicy(attempts=2, wait=(0, 0))) as tim:
        for method in METHODS:
            found = await outcome_of(method.run(tim))
            if isinstance(found, TIMError):
                assert str(found)
                assert repr(found)
                assert isinstance(found, InvalidRequest if body.startswith(b'{"ErrorCode":10003,') else BadResponse)
            else:
                assert body.startswith(b'{"ErrorCode":0,')
                assert isinstance(found, type(method.result))


async def test_an_answer_of_4_million_bytes_is_read(service: StandIn) -> None:
    """The service's own limit is 1 MB."""
    service.answer = lambda _: Reply(json.dumps({"ErrorCode": 0, "Padding": "x" * 4_000_000}).encode())
    async with client_of(service) as tim:
        assert len((await tim.call("v4/openim/x", {}))["Padding"]) == 4_000_000


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_above_4_mb_is_a_bad_response_compressed_or_not(service: StandIn, compressed: bool) -> None:
    """It is not retried, and the next call succeeds; `tests.networks.test_bombs` has far larger ones."""
    body = json.dumps({"ErrorCode": 0, "Padding": "x" * (4 * 1024 * 1024 + 1)}).encode()
    packing = (("Content-Encoding", "gzip"),) if compressed else ()
    service.script.append(Reply(gzip.compress(body) if compressed else body, 200, (*JSON, *packing)))
    async with client_of(service) as tim:
        failure = await failure_of(tim.call("v4/openim/x", {}))
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert isinstance(failure, BadResponse)
    assert "exceeds 4 MB" in str(failure)
    assert len(service.seen) == 2


async def test_a_compressed_answer_is_read(service: StandIn) -> None:
    """The request does not accept one, but a gateway may send it."""
    answer = gzip.compress(b'{"ErrorCode":0,"AllC2CUnreadMsgNum":5}')
    service.script.append(Reply(answer, 200, (*JSON, ("Content-Encoding", "gzip"))))
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 5
    assert service.seen[0].headers["accept-encoding"] == "identity"


async def test_a_byte_order_mark_is_ignored(service: StandIn) -> None:
    service.script.append(Reply(b"\xef\xbb\xbf" + b'{"ErrorCode":0,"AllC2CUnreadMsgNum":5}'))
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 5
