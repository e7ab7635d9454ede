"""The emulator's strictness: integer read times, undocumented fields, commands that do not exist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support import (
    C2C_UNREAD,
    GROUP_INFO,
    MARK_READ,
    NOW,
    RECEIPT,
    SET_UNREAD,
    Caller,
    emulator,
    query,
)

MARK = {"Report_Account": "alice", "Peer_Account": "bob"}


def test_an_integer_read_time_is_accepted_by_an_option() -> None:
    """It means the same as the String, which stays valid, and has the same bounds."""
    for integers in (False, True):
        with emulator(integer_read_time=integers) as caller:
            caller.state.add_messages("alice", "bob", 2, at=NOW - 100)
            caller.state.add_messages("alice", "bob", 1, at=NOW - 10)
            code = 0 if integers else 90001
            assert caller.code(MARK_READ, {**MARK, "MsgReadTime": NOW - 50}) == code
            assert caller.state.unread("alice") == (1 if integers else 3)
            assert caller.code(MARK_READ, {**MARK, "MsgReadTime": str(NOW - 50)}) == 0
            for wrong in (-1, 10**10, NOW * 1000, True, 1.5, None):
                assert caller.code(MARK_READ, {**MARK, "MsgReadTime": wrong}) == 90001, wrong


def test_no_other_field_takes_another_type() -> None:
    with emulator(integer_read_time=True) as caller:
        caller.state.add_group("g", messages=5, members=["alice"])
        assert caller.code(SET_UNREAD, {"GroupId": "g", "Member_Account": "alice", "UnreadMsgNum": "5"}) == 10004
        assert caller.code(C2C_UNREAD, {"To_Account": 5}) == 90003


UNKNOWN: list[tuple[str, dict[str, Any], dict[str, int], int]] = [
    (MARK_READ, {**MARK, "MsgReadedTime": "1"}, {"MsgReadedTime": 1}, 90001),
    (C2C_UNREAD, {"To_Account": "alice", "Peer": 1, "peer_account": []}, {"Peer": 1, "peer_account": 1}, 90001),
    (RECEIPT, {"GroupId": "g", "MsgSeqList": [{"MsgSeq": n, "X": 0} for n in (1, 2)]}, {"MsgSeqList[].X": 1}, 10004),
    (GROUP_INFO, {"GroupIdList": ["g"], "ResponseFilter": {"Limit": 5}}, {"ResponseFilter.Limit": 1}, 10004),
]


@pytest.mark.parametrize(("path", "body", "unknown", "code"), UNKNOWN, ids=[path for path, *_ in UNKNOWN])
def test_an_undocumented_field_is_counted_and_refused_only_by_an_option(
    path: str, body: dict[str, Any], unknown: dict[str, int], code: int
) -> None:
    """Counted for the endpoint, once per request; refused requests change nothing and count, too."""
    for refusing in (False, True):
        with emulator(refuse_unknown_fields=refusing) as caller:
            caller.state.add_messages("alice", "bob")
            caller.state.add_group("g", messages=5, members=["alice"])
            answer = caller.answer(path, body)
            assert answer["ErrorCode"] == (code if refusing else 0)
            assert all(name in answer["ErrorInfo"] for name in unknown) == refusing
            caller.answer(path, body)
            (endpoint,) = caller.service.report().endpoints.values()
            assert endpoint.unknown_fields == {name: 2 * count for name, count in unknown.items()}
            assert caller.state.unread("alice") == (0 if path == MARK_READ and not refusing else 1)


def test_a_refusal_names_some_of_many_fields() -> None:
    with emulator(refuse_unknown_fields=True) as caller:
        answer = caller.answer(C2C_UNREAD, {"To_Account": "administrator", **dict.fromkeys(map(str, range(1000)))})
        assert (answer["ErrorCode"], answer["ErrorInfo"]) == (90001, "unknown fields: 0, 1, 10, 100, 101")


async def test_a_command_that_does_not_exist_is_reported_under_its_path(call: Caller) -> None:
    """By 60008, like a time-out of the service; a retry of it counts as one."""
    for _ in range(2):
        assert await call.code("v4/openim/sendmsg", {"To_Account": "a"}) == 60008
    assert await call.code("v4/openim/senndmsg", {}) == 60008
    endpoints = call.service.report().endpoints
    assert {name: (seen.calls, seen.retried) for name, seen in endpoints.items()} == {
        "v4/openim/sendmsg": (2, 1),
        "v4/openim/senndmsg": (1, 0),
    }


async def test_the_report_does_not_grow_without_bound(call: Caller) -> None:
    """It keeps 100 of each kind and one entry for all others; long names are among the others."""
    for number in range(105):
        assert await call.code(f"v4/x/{number}", {}) == 60008
    assert await call.code("v4/" + "x" * 500, {}) == 60008
    assert await call.code(C2C_UNREAD, {"To_Account": "administrator", **dict.fromkeys(map(str, range(150)))}) == 0
    assert await call.code(C2C_UNREAD, {"To_Account": "administrator", "y" * 500: 1, "\ud800": 2}) == 0
    report = call.service.report()
    seen = report.endpoints.pop("get_c2c_unread_msg_num")
    assert (len(report.endpoints), report.endpoints["(others)"].calls) == (101, 6)
    assert (len(seen.unknown_fields), seen.unknown_fields["(others)"]) == (101, 2)
    json.dumps(report.as_dict())


async def test_an_unknown_command_is_refused_before_its_caller_is_known(call: Caller) -> None:
    """An error about the signature would hide the mistyped path."""
    assert await call.code("v4/openim/nothing", {}, query(usersig="garbage")) == 60008
