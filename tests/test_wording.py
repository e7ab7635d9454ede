"""Errors name the bad argument or the bad field of an answer; values at the limits are accepted."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tim_async import (
    BadResponse,
    C2CUnread,
    Contact,
    GroupMsgReceiptDetail,
    ItemError,
    PartialFailure,
    QuotaExhausted,
    RecentContactList,
    RecentContactPage,
    RequestTimeout,
    TIMClient,
)
from tim_async.models import all_c2c_unread

from .stand_in import OTHER, Fate, StandIn, client_of, error, failure_of, ok

GOOD: dict[str, Any] = {
    "group_id": "@TGS#1",
    "member_account": "alice",
    "unread_msg_num": 1,
    "report_account": "alice",
    "peer_account": "bob",
    "msg_read_time": 1700000000,
    "to_account": "alice",
    "peer_accounts": ["bob"],
    "msg_seqs": [1],
    "msg_seq": 1,
    "read": True,
    "cursor": "",
    "count": 1,
    "from_account": "alice",
    "page": RecentContactPage(),
}
NAMES = (
    "set_unread_msg_num",
    "admin_set_msg_read",
    "get_all_c2c_unread_msg_num",
    "get_c2c_unread_msg_num",
    "get_group_msg_receipt",
    "get_group_msg_receipt_detail",
    "get_recent_contact_list",
)
ARGUMENTS = [
    (method, name)
    for method in NAMES
    for name in inspect.signature(getattr(TIMClient, method)).parameters
    if name != "self"
]


@pytest.mark.parametrize(("method", "argument"), ARGUMENTS)
async def test_an_argument_of_the_wrong_type_is_named(service: StandIn, method: str, argument: str) -> None:
    given = {name: GOOD[name] for each, name in ARGUMENTS if each == method}
    async with client_of(service) as tim:
        await getattr(tim, method)(**given)
        with pytest.raises(TypeError, match=f"^{argument} must be an? "):
            await getattr(tim, method)(**{**given, argument: object()})
        if isinstance(given[argument], list):
            with pytest.raises(TypeError, match=f"^an item of {argument} must be an? "):
                await getattr(tim, method)(**{**given, argument: [object()]})
    assert len(service.seen) == 1


async def test_a_list_that_is_too_long_is_rejected_with_the_batch_method(service: StandIn) -> None:
    async with client_of(service) as tim:
        with pytest.raises(
            ValueError, match=r"^11 peers; one call takes 10, use tim\.batch\.get_c2c_unread_msg_num for more$"
        ):
            await tim.get_c2c_unread_msg_num("alice", [f"p{number}" for number in range(11)])


@pytest.mark.parametrize(("count", "taken"), [(0, False), (1, True), (200, True), (201, False)])
async def test_a_page_has_a_size_from_1_to_200(service: StandIn, count: int, taken: bool) -> None:
    async with client_of(service) as tim:
        if taken:
            await tim.get_group_msg_receipt_detail("@TGS#1", 7, count=count)
        else:
            with pytest.raises(ValueError, match=f"^count must be from 1 to 200, not {count}$"):
                await tim.get_group_msg_receipt_detail("@TGS#1", 7, count=count)
    assert [body["Count"] for body in service.bodies] == ([count] if taken else [])


# `call`


async def test_a_malformed_command_is_shown(service: StandIn) -> None:
    command: Any = 7
    async with client_of(service) as tim:
        with pytest.raises(TypeError, match=r"^command must be a str, not int$"):
            await tim.call(command, {})
        for wrong in ("openim/sendmsg", "Xv4/openim/sendmsg", "v4"):
            with pytest.raises(ValueError, match=f"^command must be a path like 'v4/openim/sendmsg', not '{wrong}'$"):
                await tim.call(wrong, {})


async def test_call_returns_the_whole_answer_of_any_command(service: StandIn) -> None:
    """Also of a command that has a method; slashes around it are ignored."""
    service.script.extend([ok(AllC2CUnreadMsgNum=7), ok(Text="x")])
    async with client_of(service) as tim:
        answers = [await tim.call(f"/{command}/", {}) for command in ("v4/openim/get_c2c_unread_msg_num", OTHER)]
    assert [(answer.get("AllC2CUnreadMsgNum"), answer.get("Text")) for answer in answers] == [(7, None), (None, "x")]
    service.violations.clear()  # a request without its fields


@pytest.mark.parametrize("repeatable", [False, True])
async def test_call_retries_an_unknown_outcome_if_repeatable(service: StandIn, repeatable: bool) -> None:
    service.script.extend([Fate.DROP, error(10003, "no")])
    async with client_of(service) as tim:
        failure: Any = await failure_of(tim.call(OTHER, {}, repeatable=repeatable))
    assert (failure.endpoint, failure.attempts) == (OTHER, 2 if repeatable else 1)


# Answers

DETAIL: dict[str, Any] = {"ReadList": [{"Read_Account": "bob"}], "Cursor": "next", "IsFinish": 0}
CONTACTS: dict[str, Any] = {
    "SessionItem": [{"Type": 1, "To_Account": "bob", "MsgTime": 5, "TopFlag": 0}],
    "CompleteFlag": 0,
    "TimeStamp": 1,
    "StartIndex": 2,
    "TopTimeStamp": 3,
    "TopStartIndex": 4,
}
NUMBERS = ("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex")
BAD_COUNTS: tuple[object, ...] = (-1, 2**63, True, 1.0, "1", None)
BAD_FLAGS: tuple[object, ...] = (-1, 2, 1.0, "1", None, [])
BAD_LISTS: tuple[object, ...] = ("x", {}, ["x"])
BAD_TEXTS: tuple[object, ...] = ("", 7, None, ["x"])


def test_documented_pages_are_parsed() -> None:
    assert GroupMsgReceiptDetail.from_wire(DETAIL, read=True) == GroupMsgReceiptDetail(("bob",), "next", finished=False)
    unread = {"UnreadList": [{"Unread_Account": "carol"}], "IsFinished": 1, "Cursor": "of no meaning"}
    assert GroupMsgReceiptDetail.from_wire(unread, read=False) == GroupMsgReceiptDetail(("carol",), "", finished=True)
    assert GroupMsgReceiptDetail.from_wire({"IsFinish": 1}, read=True).accounts == ()
    bob = Contact("c2c", "bob", 5, pinned=False)
    assert RecentContactList.from_wire(CONTACTS) == RecentContactList((bob,), RecentContactPage(1, 2, 3, 4))
    assert RecentContactList.from_wire({**CONTACTS, "CompleteFlag": 1}) == RecentContactList((bob,), None)


@pytest.mark.parametrize("cursor", [0, 2**63 - 1])
@pytest.mark.parametrize("name", NUMBERS)
def test_the_smallest_and_the_largest_number_of_a_page_are_accepted(name: str, cursor: int) -> None:
    page = RecentContactList.from_wire({**CONTACTS, name: cursor}).next_page
    assert page is not None
    assert page.to_wire()[name] == cursor


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("ReadList", value) for value in BAD_LISTS),
        *(("IsFinish", value) for value in BAD_FLAGS),
        *(("Cursor", value) for value in BAD_TEXTS),
        *(("Read_Account", value) for value in BAD_TEXTS),
    ],
)
def test_a_bad_field_of_a_page_of_members_is_named(field: str, value: object) -> None:
    garbled = {**DETAIL, field: value}
    if field == "Read_Account":
        garbled = {**DETAIL, "ReadList": [{field: value}]}
    with pytest.raises(BadResponse, match=f"^{field} is missing from the answer or not as documented$"):
        GroupMsgReceiptDetail.from_wire(garbled, read=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex")
            for value in BAD_COUNTS
        ),
        *(("CompleteFlag", value) for value in BAD_FLAGS),
        *(("Type", value) for value in BAD_COUNTS),
        *(("MsgTime", value) for value in BAD_COUNTS),
        *(("TopFlag", value) for value in BAD_FLAGS),
        *(("To_Account", value) for value in BAD_TEXTS),
    ],
)
def test_a_bad_field_of_a_page_of_contacts_is_named(field: str, value: object) -> None:
    garbled = {**CONTACTS, field: value}
    if field not in CONTACTS:
        garbled = {**CONTACTS, "SessionItem": [{**CONTACTS["SessionItem"][0], field: value}]}
    with pytest.raises(BadResponse, match=f"^{field} is missing from the answer or not as documented$"):
        RecentContactList.from_wire(garbled)


def test_a_missing_total_is_named() -> None:
    with pytest.raises(BadResponse, match=r"^AllC2CUnreadMsgNum is missing"):
        all_c2c_unread({})


# Texts of errors


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (1, "1 peers failed: p0 (0)"),
        (2, "2 peers failed: p0 (0), p1 (why)"),
        (3, "3 peers failed: p0 (0), p1 (why), p2 (2)"),
        (4, "4 peers failed: p0 (0), p1 (why), p2 (2), …"),
    ],
)
def test_a_partial_failure_shows_the_first_three(failed: int, says: str) -> None:
    errors = {f"p{number}": ItemError(number if number % 2 == 0 else None, "why") for number in range(failed)}
    result = C2CUnread(errors=errors)
    with pytest.raises(PartialFailure) as raised:
        result.raise_for_errors()
    assert str(raised.value) == says
    assert raised.value.result is result


@pytest.mark.parametrize(("attempts", "says"), [(0, "x: late"), (1, "x: late"), (2, "x: late after 2 attempts")])
def test_the_text_counts_the_attempts_if_there_were_several(attempts: int, says: str) -> None:
    failure = RequestTimeout("late")
    assert str(failure) == "late"
    failure.endpoint, failure.attempts = "x", attempts
    assert str(failure) == says


def test_the_defaults_of_errors() -> None:
    assert (str(QuotaExhausted()), QuotaExhausted().retry_after) == ("no permit; try again in 1 s", 1.0)
    assert QuotaExhausted("no permit", 2.5).retry_after == 2.5
    assert (str(PartialFailure()), PartialFailure().result) == ("", None)
