"""Transient faults are retried on every endpoint; permanent errors take exactly one attempt."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tim_async import (
    AccountNotFound,
    APIError,
    Attempt,
    AuthError,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    GroupNotFound,
    InvalidRequest,
    PermissionDenied,
    RateLimited,
    ReceiptUnavailable,
    RetryPolicy,
    ServerBusy,
    TIMError,
    TransportError,
    _call,
)
from tim_async._usersigs import UserSigCache
from tim_async.errors import CODES, Reaction, brief

from .peer import Peer, Talk
from .stand_in import (
    AT_ONCE,
    EMPTY,
    METHODS,
    NOT_GZIP,
    NOT_HTTP,
    OTHER,
    TRUNCATED,
    Action,
    Fate,
    Method,
    Raw,
    Reply,
    StandIn,
    chain,
    client_of,
    error,
    failure_of,
    page,
)

TRANSIENT: dict[str, list[Action]] = {
    "10002 twice": [error(10002, "server internal error")] * 2,
    "502 with HTML": [page(502)],
    "503": [Reply(b"", 503)],
    "500 with JSON that is not an answer": [Reply(b"[]", 500)],
    "504 with a success inside": [Reply(b'{"ErrorCode":0}', 504)],
    "dropped before it was read": [Fate.DROP_UNREAD],
    "dropped before the answer": [Fate.DROP],
    "dropped twice": [Fate.DROP, Fate.DROP_UNREAD],
    "truncated": [TRUNCATED],
    "empty": [EMPTY],
    "not HTTP": [NOT_HTTP],
    "not gzip": [NOT_GZIP],
    "half a header": [Raw(b"HTTP/1.1 200 OK\r\nContent-Le")],
    "a bad chunk": [Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n")],
    "a bad length": [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}")],
    "a header without end": [Raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")],
    "60007": [error(60007)],
    "429": [Reply(b"slow down", 429, (("Content-Type", "text/plain"),))],
    "70001": [error(70001, "UserSig expired")],
    "each in turn": [error(91000), page(502), Fate.DROP, error(60008), error(70001), EMPTY],
}


@pytest.mark.parametrize("actions", TRANSIENT.values(), ids=TRANSIENT)
async def test_a_transient_fault_is_retried_on_every_endpoint(service: StandIn, actions: list[Action]) -> None:
    """With the same body, until the call succeeds."""
    for method in METHODS:
        service.seen.clear()
        service.script.extend(actions)
        async with client_of(service) as tim:
            assert await method.run(tim) == method.result
        assert len(service.seen) == len(actions) + 1
        assert service.bodies == [method.body] * len(service.bodies)


# One code of each class; test_errors has them all.
PERMANENT: list[tuple[int, type[APIError]]] = [
    (10004, InvalidRequest),
    (10007, PermissionDenied),
    (10010, GroupNotFound),
    (10060, ReceiptUnavailable),
    (70050, AuthError),
    (70107, AccountNotFound),
    (123456, APIError),
    (-1, APIError),
    (2**31 - 1, APIError),
    (-(2**31), APIError),
]


@pytest.mark.parametrize(("code", "kind"), PERMANENT)
async def test_a_permanent_error_takes_exactly_one_attempt(service: StandIn, code: int, kind: type[APIError]) -> None:
    """The error has the class of its code, the service's code and text, the endpoint and the number of attempts."""
    service.answer = lambda _: error(code, "these very words")
    async with client_of(service) as tim:
        for number, method in enumerate(METHODS, 1):
            failure = await failure_of(method.run(tim))
            assert type(failure) is kind
            assert isinstance(failure, APIError)
            assert (failure.code, failure.info) == (code, "these very words")
            assert (failure.endpoint, failure.attempts, len(service.seen)) == (method.endpoint, 1, number)
            assert brief(failure) == f"{method.endpoint}: error {code}: these very words"


ENDLESS: dict[str, tuple[Action, type[TIMError], int | None]] = {
    "10002": (error(10002, "busy"), ServerBusy, 10002),
    "60007": (error(60007), RateLimited, 60007),
    "429": (Reply(b"", 429), RateLimited, 429),
    "502": (page(502), BadResponse, None),
    "empty": (EMPTY, BadResponse, None),
    "truncated": (TRUNCATED, BadResponse, None),
    "not HTTP": (NOT_HTTP, BadResponse, None),
    "dropped": (Fate.DROP, ConnectionLost, None),
    "dropped unread": (Fate.DROP_UNREAD, TransportError, None),
}


@pytest.mark.parametrize("case", ENDLESS.values(), ids=ENDLESS)
async def test_a_fault_that_lasts_raises_the_last_attempts_error(
    service: StandIn, case: tuple[Action, type[TIMError], int | None]
) -> None:
    """No foreign exception is in its chain."""
    action, kind, code = case
    service.script.extend([action] * 100)
    for method in METHODS:
        service.seen.clear()
        async with client_of(service, retry=RetryPolicy(attempts=4, wait=(0, 0), wait_rate_limited=(0, 0))) as tim:
            failure = await failure_of(method.run(tim))
        assert isinstance(failure, kind)
        assert getattr(failure, "code", None) == code
        assert (failure.endpoint, failure.attempts, len(service.seen)) == (method.endpoint, 4, 4)
        assert brief(failure).endswith(" after 4 attempts")
        assert [type(link) for link in chain(failure) if not isinstance(link, TIMError)] == []


async def test_a_reset_before_the_answer_is_connection_lost_with_the_systems_reason(service: StandIn) -> None:
    """The text of an exception, which may hold anything, is left out."""

    async def behave(talk: Talk) -> None:
        await talk.request()
        talk.reset()

    once = RetryPolicy(attempts=1)
    async with Peer(behave) as peer, client_of(service, base_url=peer.url, retry=once) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectionLost)
    assert failure.outcome_unknown
    assert re.search(r"the connection was lost \(\w+: Connection reset by peer\)$", str(failure))


@pytest.mark.parametrize(
    "policy",
    [RetryPolicy(attempts=1), RetryPolicy(total=0, wait=(0, 0)), RetryPolicy(budget=0, wait=(0, 0))],
    ids=["one attempt", "a total of 0", "a budget of 0"],
)
async def test_a_policy_without_retries_raises_the_first_error(service: StandIn, policy: RetryPolicy) -> None:
    """A 0 is not replaced by the default."""
    service.script.append(error(10002, "busy"))
    async with client_of(service, retry=policy) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ServerBusy)
    assert (failure.code, failure.info, failure.attempts, len(service.seen)) == (10002, "busy", 1, 1)


async def test_a_spent_budget_ends_the_retries_of_its_endpoint_only(service: StandIn) -> None:
    """With a budget of five, three failing calls make about five retries, and another endpoint still has its own."""
    service.answer = lambda _: error(10002)
    retry = RetryPolicy(budget=5, wait=(0, 0))
    async with client_of(service, retry=retry) as tim:
        failures = [await failure_of(tim.get_all_c2c_unread_msg_num("alice")) for _ in range(3)]
        spent = len(service.seen) - 3
        await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert all(isinstance(failure, ServerBusy) for failure in failures)
    assert 5 <= spent < 14, "time refills the budget a little, but three calls of 8 attempts would make 21 retries"
    assert sum(seen.path.endswith("set_unread_msg_num") for seen in service.seen) >= 6


# UserSigs


@pytest.mark.parametrize("code", [70001, 70052, 60004, 60005, 20002])
@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_a_rejected_usersig_is_renewed_exactly_once(
    service: StandIn, monkeypatch: pytest.MonkeyPatch, method: Method, code: int
) -> None:
    """Two attempts with different UserSigs, then AuthError: repeated ones could lock the app out."""
    clock = iter(range(1_700_000_000, 1_800_000_000, 10))
    current = UserSigCache.current
    monkeypatch.setattr(UserSigCache, "current", lambda self, _now: current(self, next(clock)))
    service.answer = lambda _: error(code, "no good")
    async with client_of(service) as tim:
        failure = await failure_of(method.run(tim))
    assert isinstance(failure, AuthError)
    assert (failure.code, failure.info, failure.attempts) == (code, "no good", 2)
    assert len(service.seen) == len(service.usersigs) == 2


async def test_a_renewed_usersig_is_used_for_later_calls(service: StandIn) -> None:
    service.script.append(error(70001))
    async with client_of(service) as tim:
        for _ in range(4):
            await tim.get_all_c2c_unread_msg_num("alice")
    assert len(service.seen) == 5
    assert len({seen.usersig for seen in service.seen[1:]}) == 1


async def test_a_call_renews_its_usersig_once_even_with_a_transient_error_between(service: StandIn) -> None:
    service.script.extend([error(70001), error(10002), error(70001), error(70001)])
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, AuthError)
    assert len(service.seen) == 3


# Calls that are not repeatable


OUTCOME_UNKNOWN: dict[str, tuple[Action, type[TransportError]]] = {
    "dropped before the answer": (Fate.DROP, ConnectionLost),
    "dropped before it was read": (Fate.DROP_UNREAD, TransportError),
    "truncated": (TRUNCATED, BadResponse),
    "empty": (EMPTY, BadResponse),
    "502": (page(502), BadResponse),
    "503": (Reply(b"", 503), BadResponse),
    "not HTTP": (NOT_HTTP, BadResponse),
    "not gzip": (NOT_GZIP, BadResponse),
}


@pytest.mark.parametrize("case", OUTCOME_UNKNOWN.values(), ids=OUTCOME_UNKNOWN)
async def test_a_call_that_is_not_repeatable_is_not_retried_when_its_outcome_is_unknown(
    service: StandIn, case: tuple[Action, type[TransportError]]
) -> None:
    """It may have taken effect; `outcome_unknown` says so."""
    action, kind = case
    service.script.append(action)
    async with client_of(service) as tim:
        failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
    assert isinstance(failure, kind)
    assert failure.outcome_unknown
    assert (failure.attempts, len(service.seen)) == (1, 1)


@pytest.mark.parametrize("code", [number for number, code in CODES.items() if code.reaction is Reaction.RETRY])
async def test_a_call_that_is_not_repeatable_is_not_retried_after_a_transient_code(service: StandIn, code: int) -> None:
    """Such a code does not exclude an effect: a retry could create a second group."""
    service.answer = lambda _: error(code)
    async with client_of(service) as tim:
        failure = await failure_of(tim.call("v4/group_open_http_svc/create_group", {"Name": "g"}))
    assert isinstance(failure, ServerBusy)
    assert failure.outcome_unknown
    assert (failure.attempts, len(service.seen)) == (1, 1)


@pytest.mark.parametrize("code", [60007, 60011, 70001, 60004])
async def test_a_call_that_is_not_repeatable_is_retried_after_a_refusal(service: StandIn, code: int) -> None:
    """A refusal for the rate or of the UserSig excludes an effect."""
    service.script.append(error(code))
    async with client_of(service) as tim:
        assert (await tim.call("v4/openim/sendmsg", {"A": 1}))["ErrorCode"] == 0
    assert len(service.seen) == 2


async def test_a_refused_connection_is_connect_failed_with_the_address() -> None:
    """Its outcome is known: nothing was sent."""
    async with StandIn() as gone:
        pass
    async with client_of(gone, retry=RetryPolicy(attempts=2, wait=(0, 0))) as tim:
        failure = await failure_of(tim.call(OTHER, {}))
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert failure.attempts == 2
    assert f"127.0.0.1:{gone.port}" in str(failure)


async def test_a_keep_alive_connection_closed_between_calls_is_replaced(service: StandIn) -> None:
    """The service may close idle connections at any time."""
    async with client_of(service) as tim:
        for _ in range(3):
            await tim.set_unread_msg_num("g", "alice", 1)
            await service.disconnect()
    assert service.connections >= 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(service: StandIn, status: int) -> None:
    """Following it would send the UserSig to another host."""
    async with StandIn() as elsewhere:
        service.answer = lambda _: Reply(b"", status, (("Location", f"{elsewhere.url}/v4/openim/x"),))
        async with client_of(service) as tim:
            failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, BadResponse)
    assert (failure.status, failure.attempts) == (status, 1)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413])
async def test_a_gateways_4xx_is_not_retried(service: StandIn, status: int) -> None:
    service.answer = lambda _: page(status)
    async with client_of(service) as tim:
        failure = await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, BadResponse)
    assert (failure.status, len(service.seen)) == (status, 1)


@pytest.mark.parametrize("status", [400, 403, 500, 502])
async def test_an_error_code_takes_precedence_over_the_http_status(service: StandIn, status: int) -> None:
    service.script.append(Reply(error(10007, "no").body, status))
    async with client_of(service) as tim:
        failure = await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, PermissionDenied)
    assert len(service.seen) == 1


async def test_retries_send_the_body_of_the_first_attempt(service: StandIn) -> None:
    """Also if the program has changed it since."""
    members = ["alice"]
    service.script.extend([Fate.DROP, error(10002)])
    async with client_of(service, on_attempt=lambda _: members.append("bob")) as tim:
        await tim.call(OTHER, {"Members": members}, repeatable=True)
    assert service.bodies == [{"Members": ["alice"]}] * 3


# The time of admin_set_msg_read


class Clock:
    """A wall clock that the test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    wall = Clock(1_750_000_000.75)
    monkeypatch.setattr(_call, "time", SimpleNamespace(time=wall.time))
    return wall


@pytest.mark.parametrize("fault", [Fate.DROP, error(10002), page(502), error(70001)], ids=str)
async def test_a_retry_of_admin_set_msg_read_sends_the_first_attempts_time(
    service: StandIn, clock: Clock, fault: Action
) -> None:
    """The first attempt has no time, which means the server's; each retry has the first attempt's."""
    actions = iter([fault, error(10002), EMPTY])

    def later(_: object) -> Action:
        clock.now += 20.0
        return next(actions, Reply(b'{"ErrorCode":0}'))

    service.answer = later
    async with client_of(service) as tim:
        await tim.admin_set_msg_read("alice", "bob")
        await tim.admin_set_msg_read("alice", "carol")
    plain = {"Report_Account": "alice", "Peer_Account": "bob"}
    pinned = {**plain, "MsgReadTime": "1750000000"}
    assert service.bodies == [plain, pinned, pinned, pinned, {**plain, "Peer_Account": "carol"}]


async def test_a_given_read_time_is_kept_on_retries(service: StandIn, clock: Clock) -> None:
    service.script.extend([Fate.DROP, error(10002)])
    async with client_of(service) as tim:
        await tim.admin_set_msg_read("alice", "bob", msg_read_time=1_600_000_000)
    assert [body["MsgReadTime"] for body in service.bodies] == ["1600000000"] * 3


# on_attempt


async def test_on_attempt_gets_one_record_for_each_request(service: StandIn) -> None:
    """Numbered from 1, with code and error class; the code of a success is 0."""
    service.script.extend([error(10002), page(502), Fate.DROP])
    records: list[Attempt] = []
    async with client_of(service, on_attempt=records.append) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
    assert [(r.endpoint, r.number, r.code, r.error) for r in records] == [
        ("get_c2c_unread_msg_num", 1, 10002, "ServerBusy"),
        ("get_c2c_unread_msg_num", 2, None, "BadResponse"),
        ("get_c2c_unread_msg_num", 3, None, "ConnectionLost"),
        ("get_c2c_unread_msg_num", 4, 0, None),
    ]
    assert all(record.took >= 0 and record.waited >= 0 for record in records)  # a loop's clock may be coarse


async def test_the_default_retry_policy() -> None:
    """Eight attempts, with retries within 25 s."""
    assert RetryPolicy() == RetryPolicy(8, (0.1, 2.0), (1.0, 5.0), 25.0, 500.0)
    assert AT_ONCE.attempts == 8


async def test_any_2xx_with_code_0_is_a_success(service: StandIn) -> None:
    service.answer = lambda _: Reply(b'{"ErrorCode": 0, "AllC2CUnreadMsgNum": 7}', 201)
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
