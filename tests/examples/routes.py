"""The tests of both async web apps; each test module provides the fixture ``app``, a running app."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.emulator import DEFAULT_SDK_APP_ID, Emulator
from tim_async.webhooks import ANSWER

from .serving import PATIENCE, TOKEN, Program

GROUP = "%40TGS%23public"

_METHOD = st.sampled_from(["GET", "POST", "HEAD", "PUT"])
_ROUTE = st.sampled_from(["/users/{}/unread", "/users/{}/unread/{}", "/users/{}/read/{}", "/groups/{}/receipts"])
_NAME = st.sampled_from(["peer", "seq", "Sign"])
_ANYTHING = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.sampled_from([b"", b"alice", b"bob", b"@TGS#public", b"\x00", b"\xed\xa0\x80", b"..", b"/", b"%", b"a" * 3000]),
    st.integers().map(lambda number: str(number).encode()),
    st.sampled_from([1, 120, -1, 2**31, 2**63, 10**30]).map(lambda number: str(number).encode()),
)
"""Arbitrary bytes for a path or a query, to be percent-encoded."""


@dataclass
class Answer:
    """An app's answer."""

    status: int
    body: Any
    retry_after: str | None
    text: str


class Visitor:
    """A user of an app, with an HTTP session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """Send a request, and repeat it while the answer is 429: a new store, or a test before, may leave no permit."""
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self.ask_once(path, method, **options)
                if answer.status != 429:
                    return answer
                await asyncio.sleep(0.05)

    async def ask_once(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """Send a request once."""
        async with self._session.request(method, path, **options) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(
                response.status, json.loads(text) if is_json else None, response.headers.get("Retry-After"), text
            )


async def press(url: str, service: Emulator, users: int, *, results: int, refusals: int) -> Counter[int]:
    """Have many users ask at once until there are so many results and refusals; return the statuses.

    Each answer is a result, or a 429 with ``Retry-After``.
    """
    seen: Counter[int] = Counter()

    async def ask(user: str) -> None:
        while seen[200] < results or seen[429] < refusals:
            answer = await visitor.ask_once(f"/users/{user}/unread")
            seen[answer.status] += 1
            assert answer.status == 200 or (answer.status == 429 and int(answer.retry_after or 0) >= 1), answer

    names = [f"user{number}" for number in range(users)]
    service.state.add_account(*names)
    # A pause of a second, so that requests are answered 429 even if the machine is too slow to exhaust the quota.
    service.fault(status=503, retry_after=1, times=1)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        visitor = Visitor(session)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(ask(name))
    return seen


def fill(service: Emulator) -> None:
    """Fill the emulator with the state that these tests use."""
    service.state.add_messages("alice", "bob", 3)
    service.state.add_messages("alice", "carol", 2)
    service.state.add_group("@TGS#public", messages=120, members=["alice", "bob"])
    service.state.add_receipt("@TGS#public", 1, read_num=2, unread_num=1)


def signed(command: str, *, token: str = TOKEN, app: int = DEFAULT_SDK_APP_ID, age: float = 0.0) -> dict[str, str]:
    """Make the signed query of a webhook."""
    moment = str(int(time.time() - age))
    return {
        "SdkAppid": str(app),
        "CallbackCommand": command,
        "contenttype": "json",
        "ClientIP": "127.0.0.1",
        "OptPlatform": "RESTAPI",
        "RequestTime": moment,
        "Sign": hashlib.sha256((token + moment).encode()).hexdigest(),
    }


READ = {"Report_Account": "alice", "Peer_Account": "bob", "LastReadTime": 1700000000, "UnreadMsgNum": 2}
ALERT = {"ServiceName": "group_open_http_svc", "Command": "set_unread_msg_num", "Request": 250, "Limit": 200}


class Routes:
    """The tests that both apps must pass."""

    @pytest.fixture
    async def visitor(self, app: Program) -> AsyncIterator[Visitor]:
        async with aiohttp.ClientSession(app.url, connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Visitor(session)

    @pytest.fixture
    async def loyal(self, app: Program) -> AsyncIterator[Visitor]:
        """A visitor with a single connection, so that one process answers all its requests."""
        async with aiohttp.ClientSession(app.url, connector=aiohttp.TCPConnector(limit=1)) as session:
            yield Visitor(session)

    @pytest.fixture(autouse=True)
    def faultless(self, service: Emulator) -> Iterator[None]:
        yield
        service.clear_faults()

    async def test_unread_in_all(self, visitor: Visitor) -> None:
        """The body is the number."""
        answer = await visitor.ask("/users/alice/unread")
        assert (answer.status, answer.body) == (200, 5)

    async def test_unread_by_peer(self, visitor: Visitor) -> None:
        """The body is the client's result, with counts and errors."""
        answer = await visitor.ask("/users/alice/unread?peer=carol&peer=bob&peer=nobody")
        assert answer.status == 200
        assert answer.body["counts"] == {"carol": 2, "bob": 3}
        assert answer.body["errors"].keys() == {"nobody"}
        assert answer.body["errors"]["nobody"]["code"] == 70107

    async def test_unread_by_any_number_of_peers(self, visitor: Visitor) -> None:
        """More items than fit into one call."""
        peers = ["bob", *(f"stranger{n}" for n in range(35))]
        answer = await visitor.ask("/users/alice/unread?" + "&".join(f"peer={peer}" for peer in peers))
        assert answer.status == 200
        assert answer.body["counts"] == {"bob": 3}
        assert list(answer.body["errors"]) == peers[1:]

    async def test_unread_from_one(self, visitor: Visitor) -> None:
        """A look-up: the body is the number; an unknown peer is a 404."""
        bob, nobody = await asyncio.gather(
            visitor.ask("/users/alice/unread/bob"), visitor.ask("/users/alice/unread/nobody")
        )
        assert (bob.status, bob.body) == (200, 3)
        assert (nobody.status, nobody.body) == (404, {"error": "AccountNotFound", "code": 70107})

    async def test_read(self, visitor: Visitor, service: Emulator) -> None:
        """Unread messages become read."""
        service.state.add_messages("dave", "bob", 4, at=time.time() - 10)
        answer = await visitor.ask("/users/dave/read/bob", "POST")
        assert (answer.status, answer.body) == (200, None)
        assert service.state.unread("dave", "bob") == 0

    async def test_receipts(self, visitor: Visitor) -> None:
        """The body is the client's result by message; its keys are strings, because JSON has no other keys."""
        answer = await visitor.ask(f"/groups/{GROUP}/receipts?seq=1&seq=2")
        assert answer.status == 200
        assert answer.body["receipts"] == {"1": {"read_num": 2, "unread_num": 1}}
        assert {seq: error["code"] for seq, error in answer.body["errors"].items()} == {"2": 10062}

    async def test_receipts_of_any_number_of_messages(self, visitor: Visitor) -> None:
        """More items than fit into one call."""
        answer = await visitor.ask(f"/groups/{GROUP}/receipts?" + "&".join(f"seq={n}" for n in range(1, 121)))
        assert answer.status == 200
        assert (len(answer.body["receipts"]), len(answer.body["errors"])) == (1, 119)

    @pytest.mark.parametrize(
        ("path", "name", "length", "cap"),
        [
            ("/users/alice/unread", "peer", 101, "100"),
            ("/users/alice/unread", "peer", 1500, "100"),
            (f"/groups/{GROUP}/receipts", "seq", 501, "500"),
            (f"/groups/{GROUP}/receipts", "seq", 5000, "500"),
        ],
    )
    async def test_a_list_that_is_too_long(
        self, visitor: Visitor, service: Emulator, path: str, name: str, length: int, cap: str
    ) -> None:
        """Refused before anything is sent, and the refusal names the cap."""
        before = service.report().total.calls
        answer = await visitor.ask_once(f"{path}?" + "&".join(f"{name}={n}" for n in range(length)))
        assert answer.status == 422
        assert cap in answer.text
        assert service.report().total.calls == before

    async def test_a_failed_request_frees_its_share(self, visitor: Visitor) -> None:
        """Failures of one user, in sequence, leave no call in flight: its next list is accepted."""
        for _ in range(20):
            assert (await visitor.ask("/users/nobody/unread")).status == 404
        answer = await visitor.ask_once("/users/nobody/unread?" + "&".join(f"peer={n}" for n in range(100)))
        assert answer.status == 200
        assert len(answer.body["errors"]) == 100

    async def test_stats(self, loyal: Visitor) -> None:
        """The statistics are those of the process that answers; its quota is shared."""
        assert (await loyal.ask("/users/alice/unread")).status == 200
        answer = await loyal.ask("/stats")
        assert answer.status == 200
        figures = answer.body["get_c2c_unread_msg_num"]
        assert figures["waits"]["count"] >= 1
        assert figures["queue"] == {"interactive": 0, "bulk": 0}
        assert figures["shared"] is True

    @pytest.mark.parametrize(
        ("path", "status", "error"),
        [
            ("/users/nobody/unread", 404, "AccountNotFound"),
            ("/groups/nogroup/receipts?seq=1", 404, "GroupNotFound"),
            ("/users/alice/unread?peer=", 422, "ValueError"),
            (f"/groups/{GROUP}/receipts?seq=-1", 422, "ValueError"),
        ],
    )
    async def test_invalid_requests(self, visitor: Visitor, path: str, status: int, error: str) -> None:
        """Mistakes of the caller are 4xx."""
        answer = await visitor.ask(path)
        assert (answer.status, answer.body["error"]) == (status, error)

    @pytest.mark.parametrize(
        "query", ["", "?seq=one", "?seq=", "?seq=1.5", "?seq=nan", f"?seq={10**30}", "?seq=" + "9" * 5000]
    )
    async def test_an_invalid_number(self, visitor: Visitor, query: str) -> None:
        """Refused before anything is sent."""
        assert (await visitor.ask(f"/groups/{GROUP}/receipts{query}")).status == 422

    @pytest.mark.parametrize(
        ("code", "status", "error"),
        [
            (10007, 403, "PermissionDenied"),
            (123456, 502, "APIError"),
            (10002, 503, "ServerBusy"),
        ],
    )
    async def test_a_refusal_of_the_service(
        self, visitor: Visitor, service: Emulator, code: int, status: int, error: str
    ) -> None:
        """The body has the error's class and the service's code, and nothing else; test_http_status has all codes."""
        service.fault(code=code)
        answer = await visitor.ask("/users/alice/unread")
        assert (answer.status, answer.body) == (status, {"error": error, "code": code})

    async def test_no_readable_answer(self, visitor: Visitor, service: Emulator) -> None:
        """A gateway's HTML page in answer to every attempt."""
        service.fault(status=502)
        answer = await visitor.ask("/users/alice/unread")
        assert (answer.status, answer.body) == (503, {"error": "BadResponse", "code": None})

    async def test_a_transient_fault(self, visitor: Visitor, service: Emulator) -> None:
        """It is retried, and the user does not notice it."""
        service.fault(code=10002, times=1)
        service.fault(status=502, times=1)
        answer = await visitor.ask("/users/alice/unread")
        assert (answer.status, answer.body) == (200, 5)

    @pytest.mark.processes  # the load comes from this process, and is too slow in debug mode
    async def test_over_the_quota(self, visitor: Visitor, service: Emulator) -> None:
        """Far more requests than permits: each is answered by a result or by a 429 with ``Retry-After``."""
        service.fault(code=10002, probability=0.02)
        service.fault(status=502, probability=0.01)
        seen = set[int]()
        async with asyncio.timeout(PATIENCE):
            while seen != {200, 429}:  # a new process may grant no permit in time
                many = (visitor.ask_once(f"/groups/{GROUP}/receipts?seq=1") for _ in range(300))
                for answer in await asyncio.gather(*many):
                    seen.add(answer.status)
                    assert answer.status in {200, 429}
                    if answer.status == 429:
                        # Of a transient error whose retry gets no permit, the body names the error.
                        assert answer.body["error"] in {"QuotaExhausted", "ServerBusy", "BadResponse"}
                        assert answer.retry_after is not None
                        assert int(answer.retry_after) >= 1

    async def test_refused_for_the_rate(self, visitor: Visitor, service: Emulator) -> None:
        """A refusal by the service, after all retries, is a 429, too."""
        service.fault(code=60007, endpoint="admin_set_msg_read")
        answer = await visitor.ask_once("/users/alice/read/nobody", "POST")
        assert answer.status == 429
        assert answer.body["error"] in ("RateLimited", "QuotaExhausted")
        assert answer.retry_after is not None
        assert int(answer.retry_after) >= 1

    async def test_a_webhook(self, visitor: Visitor) -> None:
        """A signed, well-formed webhook gets the answer that the service expects."""
        answer = await visitor.ask("/webhook", "POST", params=signed("C2C.CallbackAfterMsgReport"), json=READ)
        assert (answer.status, answer.text) == (200, ANSWER.decode())

    @pytest.mark.parametrize(
        ("query", "body", "status"),
        [
            (lambda: signed("C2C.CallbackAfterMsgReport", token="another"), READ, 403),
            (lambda: signed("C2C.CallbackAfterMsgReport", age=3600), READ, 403),
            (dict, READ, 403),
            (lambda: signed("C2C.CallbackAfterMsgReport", app=1), READ, 403),
            (lambda: signed("C2C.CallbackAfterMsgReport"), {"Report_Account": "alice"}, 400),
            (lambda: signed("C2C.CallbackAfterMsgReport"), [], 400),
        ],
        ids=["forged", "stale", "unsigned", "another app's", "incomplete", "no object"],
    )
    async def test_an_invalid_webhook(
        self, visitor: Visitor, query: Callable[[], dict[str, str]], body: object, status: int
    ) -> None:
        """The status tells a forged webhook from a malformed one; signed here, as a signature is valid for a minute."""
        assert (await visitor.ask("/webhook", "POST", params=query(), json=body)).status == status

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"[" * 100_000, 400),
            (b'{"LastReadTime":1' + b"0" * 5000 + b"}", 400),
            (b"\xff\xfe", 400),
            (b"x" * (1024 * 1024 + 1), 413),
        ],
        ids=["nested", "a number of 5001 digits", "no UTF-8", "1 MiB and a byte"],
    )
    async def test_a_webhook_of_garbage(self, visitor: Visitor, body: bytes, status: int) -> None:
        """A garbage body is refused although it is signed, e.g. with a leaked token."""
        query = signed("C2C.CallbackAfterMsgReport")
        answer = await visitor.ask_once("/webhook", "POST", params=query, data=io.BytesIO(body))
        assert answer.status == status

    async def test_a_webhook_that_ends_early(self, app: Program, visitor: Visitor) -> None:
        """A sender that disconnects before the end of its body; the app's log, read at the end, has no error."""
        host, port = urlsplit(app.url).netloc.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        query = urlencode(signed("C2C.CallbackAfterMsgReport"))
        writer.write(f"POST /webhook?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert reader.at_eof() or await reader.read() == b""
        assert (await visitor.ask("/healthz")).status == 200

    def test_any_path_and_query(self, app: Program) -> None:
        """Any path and query get a result, a redirection or an error of the request."""
        address = urlsplit(app.url).netloc

        @given(_METHOD, _ROUTE, st.tuples(_ANYTHING, _ANYTHING), st.lists(st.tuples(_NAME, _ANYTHING), max_size=60))
        def check(method: str, route: str, segments: tuple[bytes, bytes], query: list[tuple[str, bytes]]) -> None:
            path = route.format(*(quote(segment, safe="") for segment in segments))
            connection = http.client.HTTPConnection(address, timeout=PATIENCE)
            try:
                connection.request(method, f"{path}?{urlencode(query)}")
                assert connection.getresponse().status in {200, 307, 400, 404, 405, 422, 429}
            finally:
                connection.close()

        check()

    async def test_an_alert_slows_the_endpoint(self, loyal: Visitor) -> None:
        """`Alert.RequestOverLimit` reaches the client, which lowers its rate."""
        assert (await loyal.ask("/stats")).body["set_unread_msg_num"]["rate"] == 200
        answer = await loyal.ask("/webhook", "POST", params=signed("Alert.RequestOverLimit"), json=ALERT)
        assert answer.status == 200
        async with asyncio.timeout(PATIENCE):
            while (await loyal.ask("/stats")).body["set_unread_msg_num"]["rate"] >= 200:
                continue
