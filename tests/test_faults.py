"""What passes is survived on every endpoint; what does not pass costs exactly one attempt."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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
    RequestTimeout,
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
    client_of,
    error,
    failure_of,
    page,
)

PASSING: dict[str, list[Action]] = {
    "10002 twice": [error(10002, "server internal error")] * 2,
    "502 with HTML": [page(502)],
    "503": [Reply(b"", 503)],
    "500 with JSON that is no answer": [Reply(b"[]", 500)],
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
    "60011": [error(60011, "too fast")],
    "429": [Reply(b"slow down", 429, (("Content-Type", "text/plain"),))],
    "70001": [error(70001, "UserSig expired")],
    "70052": [error(70052)],
    "60004": [error(60004)],
    "91000": [error(91000)],
    "each in turn": [error(91000), page(502), Fate.DROP, error(60008), error(70001), EMPTY],
}


@pytest.mark.parametrize("actions", PASSING.values(), ids=PASSING)
async def test_what_passes_is_survived_on_every_endpoint(service: StandIn, actions: list[Action]) -> None:
    """The call is repeated with the same body until it succeeds, and returns as if nothing had been."""
    for method in METHODS:
        service.seen.clear()
        service.script.extend(actions)
        async with client_of(service) as tim:
            assert await method.run(tim) == method.result
        assert len(service.seen) == len(actions) + 1
        assert service.bodies == [method.body] * len(service.bodies)


LASTING: list[tuple[int, type[APIError]]] = [
    (10003, InvalidRequest),
    (10004, InvalidRequest),
    (10007, PermissionDenied),
    (10010, GroupNotFound),
    (10015, GroupNotFound),
    (10059, AuthError),
    (10060, ReceiptUnavailable),
    (10062, ReceiptUnavailable),
    (60006, AuthError),
    (60010, AuthError),
    (70003, AuthError),
    (70050, AuthError),
    (70107, AccountNotFound),
    (90001, InvalidRequest),
    (90003, AccountNotFound),
    (90008, AccountNotFound),
    (90009, AuthError),
    (123456, APIError),
    (-1, APIError),
    (2**31 - 1, APIError),
    (-(2**31), APIError),
]


@pytest.mark.parametrize(("code", "kind"), LASTING)
async def test_what_lasts_costs_exactly_one_attempt(service: StandIn, code: int, kind: type[APIError]) -> None:
    """The right class, with the service's exact code and words, where it happened and how often."""
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
async def test_what_never_passes_raises_the_original_error_in_the_end(
    service: StandIn, case: tuple[Action, type[TIMError], int | None]
) -> None:
    """After all attempts the last one's own error, and nothing foreign behind it."""
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


async def test_a_reset_before_the_answer_is_a_lost_connection_with_the_systems_reason(service: StandIn) -> None:
    """Without the words of an exception, which may be anybody's."""

    async def behave(talk: Talk) -> None:
        await talk.request()
        talk.reset()

    once = RetryPolicy(attempts=1)
    async with Peer(behave) as peer, client_of(service, base_url=peer.url, retry=once) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectionLost)
    assert failure.outcome_unknown
    assert re.search(r"the connection was lost \(\w+: Connection reset by peer\)$", str(failure))


def chain(failure: BaseException) -> list[BaseException]:
    """An exception with all that hangs on it, shown or not."""
    links: list[BaseException] = []
    todo: list[BaseException | None] = [failure]
    while todo:
        link = todo.pop()
        if link is not None and link not in links:
            links.append(link)
            todo += [link.__cause__, link.__context__]
    return links


async def test_attempts_1_turns_retrying_off(service: StandIn) -> None:
    """One request, and its error."""
    service.script.append(error(10002))
    async with client_of(service, retry=RetryPolicy(attempts=1)) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ServerBusy)
    assert (failure.attempts, len(service.seen)) == (1, 1)


async def test_an_explicit_total_of_0_is_honoured(service: StandIn) -> None:
    """No time for a retry means none, not the default."""
    service.script.append(error(10002))
    async with client_of(service, retry=RetryPolicy(total=0, wait=(0, 0))) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ServerBusy)
    assert len(service.seen) == 1


async def test_an_explicit_budget_of_0_is_honoured(service: StandIn) -> None:
    """Without a budget the original error is raised at once."""
    service.script.append(error(10002, "busy"))
    async with client_of(service, retry=RetryPolicy(budget=0, wait=(0, 0))) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ServerBusy)
    assert (failure.code, failure.info, len(service.seen)) == (10002, "busy", 1)


async def test_a_spent_budget_ends_retries_of_one_endpoint_only(service: StandIn) -> None:
    """Five retries in store: endless failure costs five on this endpoint, and another still has its own."""
    service.answer = lambda _: error(10002)
    retry = RetryPolicy(budget=5, wait=(0, 0))
    async with client_of(service, retry=retry) as tim:
        failures = [await failure_of(tim.get_all_c2c_unread_msg_num("alice")) for _ in range(3)]
        spent = len(service.seen) - 3
        await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert all(isinstance(failure, ServerBusy) for failure in failures)
    assert 5 <= spent < 14, "what time gives back comes on top, but three calls of 8 attempts would make 21"
    assert sum(seen.path.endswith("set_unread_msg_num") for seen in service.seen) >= 6


# The signature.


@pytest.mark.parametrize("code", [70001, 70052, 60004, 60005, 20002])
@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_a_refused_signature_is_made_afresh_exactly_once(
    service: StandIn, monkeypatch: pytest.MonkeyPatch, method: Method, code: int
) -> None:
    """Two attempts with two different signatures, then AuthError: looping is what gets an app locked out."""
    clock = iter(range(1_700_000_000, 1_800_000_000, 10))
    signed: Callable[..., None] = UserSigCache.__init__

    def ticking(self: UserSigCache, *args: Any) -> None:
        signed(self, *args, clock=lambda: float(next(clock)))

    monkeypatch.setattr(UserSigCache, "__init__", ticking)
    service.answer = lambda _: error(code, "no good")
    async with client_of(service) as tim:
        failure = await failure_of(method.run(tim))
    assert isinstance(failure, AuthError)
    assert (failure.code, failure.info, failure.attempts) == (code, "no good", 2)
    assert len(service.seen) == len(service.usersigs) == 2


async def test_a_good_signature_is_kept_between_calls_after_one_was_refused(service: StandIn) -> None:
    """The fresh one serves later calls; one refusal does not make every call sign."""
    service.script.append(error(70001))
    async with client_of(service) as tim:
        for _ in range(4):
            await tim.get_all_c2c_unread_msg_num("alice")
    assert len(service.seen) == 5
    assert len({seen.usersig for seen in service.seen[1:]}) == 1


async def test_70001_then_a_passing_fault_then_70001_signs_once(service: StandIn) -> None:
    """One fresh signature for a call, whatever comes between."""
    service.script.extend([error(70001), error(10002), error(70001), error(70001)])
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, AuthError)
    assert len(service.seen) == 3


# Calls that must not be done twice.


UNKNOWN_FATE: dict[str, tuple[Action, type[TransportError]]] = {
    "dropped before the answer": (Fate.DROP, ConnectionLost),
    "dropped before it was read": (Fate.DROP_UNREAD, TransportError),
    "truncated": (TRUNCATED, BadResponse),
    "empty": (EMPTY, BadResponse),
    "502": (page(502), BadResponse),
    "503": (Reply(b"", 503), BadResponse),
    "not HTTP": (NOT_HTTP, BadResponse),
    "not gzip": (NOT_GZIP, BadResponse),
}


@pytest.mark.parametrize("case", UNKNOWN_FATE.values(), ids=UNKNOWN_FATE)
async def test_a_call_that_is_not_repeatable_is_not_repeated_when_its_fate_is_unknown(
    service: StandIn, case: tuple[Action, type[TransportError]]
) -> None:
    """It may have taken effect: the caller is told so, and decides."""
    action, kind = case
    service.script.append(action)
    async with client_of(service) as tim:
        failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
    assert isinstance(failure, kind)
    assert failure.outcome_unknown
    assert (failure.attempts, len(service.seen)) == (1, 1)


@pytest.mark.parametrize("code", [number for number, code in CODES.items() if code.reaction is Reaction.RETRY])
async def test_a_call_that_is_not_repeatable_is_not_repeated_after_a_transient_code(
    service: StandIn, code: int
) -> None:
    """No such code says that nothing was done: repeated, the call could create two groups."""
    service.answer = lambda _: error(code)
    async with client_of(service) as tim:
        failure = await failure_of(tim.call("v4/group_open_http_svc/create_group", {"Name": "g"}))
    assert isinstance(failure, ServerBusy)
    assert failure.outcome_unknown
    assert (failure.attempts, len(service.seen)) == (1, 1)


@pytest.mark.parametrize("code", [60007, 60011, 70001, 60004])
async def test_a_call_that_is_not_repeatable_is_repeated_when_the_service_refused_it(
    service: StandIn, code: int
) -> None:
    """A refusal for rate, or of the signature, says that nothing was done."""
    service.script.append(error(code))
    async with client_of(service) as tim:
        assert (await tim.call("v4/openim/sendmsg", {"A": 1}))["ErrorCode"] == 0
    assert len(service.seen) == 2


async def test_a_call_that_is_not_repeatable_is_not_repeated_after_a_time_out(service: StandIn) -> None:
    """No answer in time says nothing of what happened."""
    service.script.append(Fate.HOLD)
    async with client_of(service, timeout=0.2) as tim:
        failure = await failure_of(tim.call(OTHER, {}))
    assert isinstance(failure, RequestTimeout)
    assert failure.outcome_unknown
    assert len(service.seen) == 1


async def test_a_time_out_is_survived(service: StandIn) -> None:
    """An attempt that is never answered is given up, and repeated where that does no harm."""
    service.script.append(Fate.HOLD)
    async with client_of(service, timeout=0.2) as tim:
        await tim.set_unread_msg_num("g", "alice", 1)
    assert len(service.seen) == 2


async def test_a_refused_connection_is_a_connect_failure_that_names_host_and_reason() -> None:
    """Nobody listens: ConnectFailed, known not to have been sent."""
    async with StandIn() as gone:
        pass
    async with client_of(gone, retry=RetryPolicy(attempts=2, wait=(0, 0))) as tim:
        failure = await failure_of(tim.call(OTHER, {}))
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert failure.attempts == 2
    assert f"127.0.0.1:{gone.port}" in str(failure)


async def test_a_keep_alive_connection_closed_between_calls_is_survived(service: StandIn) -> None:
    """The service closes idle connections as it likes; a repeatable call does not notice."""
    async with client_of(service) as tim:
        for _ in range(3):
            await tim.set_unread_msg_num("g", "alice", 1)
            await service.disconnect()
    assert service.connections >= 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(service: StandIn, status: int) -> None:
    """It would carry the signature to another host; it is an answer that is none of the service's."""
    async with StandIn() as elsewhere:
        service.answer = lambda _: Reply(b"", status, (("Location", f"{elsewhere.url}/v4/openim/x"),))
        async with client_of(service) as tim:
            failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, BadResponse)
    assert (failure.status, failure.attempts) == (status, 1)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413])
async def test_a_gateways_4xx_is_not_repeated(service: StandIn, status: int) -> None:
    """It will say the same again."""
    service.answer = lambda _: page(status)
    async with client_of(service) as tim:
        failure = await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, BadResponse)
    assert (failure.status, len(service.seen)) == (status, 1)


@pytest.mark.parametrize("status", [400, 403, 500, 502])
async def test_the_services_own_code_counts_whatever_the_http_status(service: StandIn, status: int) -> None:
    """An ErrorCode in the body of a failed request is the better word."""
    service.script.append(Reply(error(10007, "no").body, status))
    async with client_of(service) as tim:
        failure = await failure_of(tim.set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, PermissionDenied)
    assert len(service.seen) == 1


# The time of admin_set_msg_read.


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
async def test_retries_of_admin_set_msg_read_pin_the_first_attempts_time(
    service: StandIn, clock: Clock, fault: Action
) -> None:
    """First without the field, the server's now; later ones with the first one's time, however late they come."""
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
    """What the caller said goes before what we would pin."""
    service.script.extend([Fate.DROP, error(10002)])
    async with client_of(service) as tim:
        await tim.admin_set_msg_read("alice", "bob", msg_read_time=1_600_000_000)
    assert [body["MsgReadTime"] for body in service.bodies] == ["1600000000"] * 3


# What a watcher is told.


async def test_on_attempt_gets_one_record_for_each_request(service: StandIn) -> None:
    """Numbered from 1, with code and error class; and it says 0 for success."""
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


async def test_a_hook_that_raises_harms_no_call(service: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the call continues, retries included."""

    def hook(_: Attempt) -> None:
        raise RuntimeError("the hook is broken")

    service.script.append(error(10002))
    async with client_of(service, on_attempt=hook) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert len(re.findall("RuntimeError: the hook is broken", caplog.text)) == 2


async def test_a_retry_after_header_of_a_gateway_does_not_outlast_the_calls_total(service: StandIn) -> None:
    """A gateway that asks for an hour cannot hold a call longer than its policy allows: the error comes at once."""
    service.answer = lambda _: Reply(b"", 503, (("Retry-After", "3600"),))
    async with client_of(service, retry=RetryPolicy(total=0.05, wait=(0, 0))) as tim:
        failure = await failure_of(bounded(tim.get_all_c2c_unread_msg_num("alice")))
    assert isinstance(failure, BadResponse)
    assert failure.status == 503


async def bounded(awaitable: Any) -> Any:
    """Give up on what would otherwise hang for a minute."""
    async with asyncio.timeout(10.0):
        return await awaitable


async def test_the_usual_policy_is_what_a_client_gets() -> None:
    """Eight attempts within 25 seconds: endless 10002 ends within 30."""
    assert RetryPolicy() == RetryPolicy(8, (0.1, 2.0), (1.0, 5.0), 25.0, 500.0)
    assert AT_ONCE.attempts == 8


async def test_any_2xx_with_code_0_is_a_success(service: StandIn) -> None:
    """``ErrorCode`` decides."""
    service.answer = lambda _: Reply(b'{"ErrorCode": 0, "AllC2CUnreadMsgNum": 7}', 201)
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


async def test_an_error_info_with_a_lone_surrogate_can_be_printed(service: StandIn) -> None:
    """Whatever the words, an error has a text that can be encoded."""
    service.answer = lambda _: Reply(rb'{"ErrorCode": 10003, "ErrorInfo": "\ud800 bad"}')
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert str(failure).encode()
