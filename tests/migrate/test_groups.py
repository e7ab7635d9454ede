"""Group look-ups before their rows are sent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tests.stand_in import AT_ONCE, Fate, StandIn, client_of, error, ok
from tim_async import APIError, AuthError, BadResponse, InvalidRequest, PermissionDenied, TIMClient
from tim_async.emulator import Emulator
from tim_async.errors import classify
from tim_async.migrate._breaker import CircuitBreaker
from tim_async.migrate._groups import GroupFound, Groups


def breaker() -> CircuitBreaker:
    return CircuitBreaker(asyncio.Event(), math.inf, lambda *_: None)


class RecordingClient:
    """A client that knows some groups, and records the look-ups."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    async def call(self, command: str, body: dict[str, Any], *, repeatable: bool) -> dict[str, Any]:
        assert command == "v4/group_open_http_svc/get_group_info"
        assert repeatable
        assert body["ResponseFilter"] == {"GroupBaseInfoFilter": ["Type", "NextMsgSeq"]}
        self.calls.append(body["GroupIdList"])
        await asyncio.sleep(0)
        return {"GroupInfo": [self.answer(group_id) for group_id in body["GroupIdList"]]}


def look_up(asked: RecordingClient, *group_ids: str) -> dict[str, GroupFound]:
    async def main() -> dict[str, GroupFound]:
        return await Groups(asked, breaker()).look_up(group_ids)  # type: ignore[arg-type]

    return virtual_time.run(main())


def public(group_id: str) -> dict[str, Any]:
    return {"GroupId": group_id, "ErrorCode": 0, "ErrorInfo": "", "Type": "Public", "NextMsgSeq": 8}


async def test_group_types() -> None:
    """Those that ignore unread counts are refused; the others have their number of messages."""
    accepting, ignoring = ("Private", "Work", "Public", "Community"), ("ChatRoom", "Meeting", "AVChatRoom")
    with Emulator() as service:
        for group_type in accepting + ignoring:
            service.state.add_group(group_type, group_type, messages=7)  # type: ignore[arg-type]  # it is a GroupType
        async with TIMClient(**service.client_options(), retry=AT_ONCE) as tim:
            found = await Groups(tim, breaker()).look_up([*accepting, *ignoring, "gone", "x" * 99])
    for name in accepting:
        assert found[name] == GroupFound(messages=7)
    for name in ignoring:
        reason = f"the group is of type {name}, where the service ignores unread counts"
        assert found[name] == GroupFound(reason=reason)
    assert (found["gone"].code, found["x" * 99].code) == (10010, 10015)


@given(st.lists(st.text(min_size=1, max_size=3), max_size=300))
def test_each_group_is_looked_up_once_in_calls_of_fifty(group_ids: list[str]) -> None:
    asked = RecordingClient(public)
    found = look_up(asked, *group_ids)
    assert set(found) == set(group_ids)
    assert sorted(group_id for call in asked.calls for group_id in call) == sorted(set(group_ids))
    assert len(asked.calls) == -(-len(set(group_ids)) // 50)


async def test_results_are_cached_and_the_cache_is_bounded() -> None:
    """At ten thousand groups."""
    asked = RecordingClient(public)
    groups = Groups(asked, breaker())  # type: ignore[arg-type]
    for start in range(0, 11_000, 250):
        await groups.look_up([str(number) for number in range(start, start + 250)])
    calls = len(asked.calls)
    await groups.look_up(["10999", "5000"])
    assert len(asked.calls) == calls
    await groups.look_up(["0"])
    assert asked.calls[calls:] == [["0"]]


@pytest.mark.parametrize("answer", [{"ErrorCode": 0}, {"ErrorCode": 0, "Type": ""}, {"ErrorCode": 0, "Type": 3}, {}])
def test_a_group_without_a_type_is_refused(answer: dict[str, Any]) -> None:
    """Its rows might be accepted without effect; so is a group that the answer leaves out."""
    found = look_up(RecordingClient(lambda group_id: {"GroupId": group_id, **answer}), "a")
    assert found["a"].reason == "the service did not say what type of group it is"
    found = look_up(RecordingClient(lambda group_id: public(group_id) if group_id == "a" else answer), "a", "b")
    assert (found["a"].reason, found["b"].reason != "") == ("", True)


@pytest.mark.parametrize("sequence", [None, "8", 0, -1, True, 1.5])
def test_an_invalid_number_of_messages_is_unknown(sequence: object) -> None:
    found = look_up(RecordingClient(lambda group_id: {**public(group_id), "NextMsgSeq": sequence}), "a")
    assert found["a"] == GroupFound(messages=None)


def test_a_transient_error_of_one_group_is_retried() -> None:
    left = [10002, 10002]

    def answer(group_id: str) -> dict[str, Any]:
        if group_id == "b" and left:
            return {"GroupId": group_id, "ErrorCode": left.pop()}
        return public(group_id)

    found = look_up(RecordingClient(answer), "a", "b", "c")
    assert set(found.values()) == {GroupFound(messages=7)}


async def test_an_invalid_id_fails_alone() -> None:
    """The call is split until the invalid id is found."""

    class Strict(RecordingClient):
        async def call(self, command: str, body: dict[str, Any], *, repeatable: bool) -> dict[str, Any]:
            answer = await super().call(command, body, repeatable=repeatable)
            if "bad" in body["GroupIdList"]:
                raise classify(10004, "GroupIdList holds what is no group")
            return answer

    groups = Groups(Strict(public), breaker())  # type: ignore[arg-type]
    ids = [str(number) for number in range(40)] + ["bad"]
    found = await groups.look_up(ids)
    assert found.pop("bad") == GroupFound(10004, "get_group_info: GroupIdList holds what is no group")
    assert set(found.values()) == {GroupFound(messages=7)}


@pytest.mark.parametrize(("code", "kind"), [(70003, AuthError), (10007, PermissionDenied), (60009, InvalidRequest)])
async def test_refused_credentials_and_permissions_raise(service: StandIn, code: int, kind: type[APIError]) -> None:
    """No task is left."""
    service.answer = lambda seen: error(code, "no")
    async with client_of(service) as tim:
        with pytest.raises(kind):
            await Groups(tim, breaker()).look_up([str(number) for number in range(200)])


async def test_an_answer_without_groups_is_retried(service: StandIn) -> None:
    """Like a truncated one, but only a few times, because there is no outage to wait for."""
    answers = [ok(), ok(GroupInfo="none"), ok(GroupInfo=[None, 7, {"GroupId": ["a"]}, {"GroupId": {}}, public("a")])]
    service.answer = lambda seen: answers.pop(0) if answers else ok(GroupInfo={})
    async with client_of(service) as tim:
        assert await Groups(tim, breaker()).look_up(["a"]) == {"a": GroupFound(messages=7)}
        with pytest.raises(BadResponse, match="GroupInfo is missing from the answer"):
            await Groups(tim, breaker()).look_up(["a"])
    assert len(service.seen) == 3 + 5


@pytest.mark.parametrize("code", [10**30, -(10**30), 2**31, "10015", 1.5, True, None, [], {}])
async def test_an_invalid_code(service: StandIn, code: object) -> None:
    """It fails its own group, and does not stop the run."""
    service.answer = lambda seen: ok(GroupInfo=[{"GroupId": "a", "ErrorCode": code, "ErrorInfo": 7}, public("b")])
    async with client_of(service) as tim:
        found = await Groups(tim, breaker()).look_up(["a", "b"])
    assert found["a"].code is None
    assert "has an unreadable ErrorCode" in found["a"].reason
    assert found["b"] == GroupFound(messages=7)


async def test_a_cancelled_look_up_leaves_no_task(service: StandIn) -> None:
    service.answer = lambda seen: Fate.HOLD
    async with client_of(service) as tim:
        looking = asyncio.create_task(Groups(tim, breaker()).look_up([str(number) for number in range(120)]))
        await service.until(3)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
