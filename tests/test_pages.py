"""Paged answers: each item once and in order, one page at a time, nothing left after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import (
    BadResponse,
    C2CUnread,
    Contact,
    GroupMsgReceiptDetail,
    ItemError,
    Lane,
    RecentContactList,
    RecentContactPage,
    RequestTimeout,
    RetryPolicy,
    TIMClient,
)
from tim_async.emulator import Emulator

from .stand_in import Action, Fate, Seen, StandIn, client_of, count_of, error, failure_of, ok

DETAIL = "get_group_msg_receipt_detail"
RECENT = "get_recent_contact_list"


def members(count: int, size: int = 200) -> Callable[[Seen], Action]:
    """Answer for a message that ``count`` members have read and one has not."""

    def answer(seen: Seen) -> Action:
        body = seen.json
        if body["Filter"] == 1:
            return ok(Cursor="", IsFinished=1, UnreadList=[{"Unread_Account": "zoe"}])
        start = int(body["Cursor"] or 0)
        end = min(count, start + min(size, body["Count"]))
        rows = [{"Read_Account": f"m{number}"} for number in range(start, end)]
        return ok(Cursor=str(end), IsFinish=int(end == count), ReadList=rows)

    return answer


def conversations(count: int, size: int = 100) -> Callable[[Seen], Action]:
    """Answer for an account with ``count`` conversations, every fifth of which is a group's, and for unread counts."""

    def answer(seen: Seen) -> Action:
        body = seen.json
        if "Peer_Account" in body:
            rows = [{"Peer_Account": peer, "C2CUnreadMsgNum": count_of(peer)} for peer in body["Peer_Account"]]
            return ok(C2CUnreadMsgNumList=rows)
        start = body["StartIndex"]
        end = min(count, start + size)
        return ok(
            SessionItem=[
                {"Type": 2, "GroupId": f"g{number}", "MsgTime": 1000 - number, "TopFlag": 0}
                if number % 5 == 4
                else {"Type": 1, "To_Account": f"p{number}", "MsgTime": 1000 - number, "TopFlag": int(number < 3)}
                for number in range(start, end)
            ],
            CompleteFlag=int(end == count),
            TimeStamp=17,
            StartIndex=end,
            TopTimeStamp=3,
            TopStartIndex=0,
        )

    return answer


PAGED: list[tuple[str, Callable[[TIMClient], AsyncIterator[Any]], Callable[[int], Callable[[Seen], Action]]]] = [
    (DETAIL, lambda tim: tim.batch.get_group_msg_receipt_detail("g", 7), members),
    (RECENT, lambda tim: tim.batch.get_recent_contact_list("alice"), lambda count: conversations(count, 200)),
]
paged = pytest.mark.parametrize(("endpoint", "pages", "answer"), PAGED, ids=[DETAIL, RECENT])


async def test_all_readers_are_found_in_pages_of_200(service: StandIn) -> None:
    """Each once, in order."""
    service.answer = members(1234)
    async with client_of(service) as tim:
        accounts = [account async for account in tim.batch.get_group_msg_receipt_detail("g", 7)]
        assert [account async for account in tim.batch.get_group_msg_receipt_detail("g", 7, read=False)] == ["zoe"]
    assert accounts == [f"m{number}" for number in range(1234)]
    assert [(body["Cursor"], body["Count"]) for body in service.bodies[:-1]] == [
        (str(start) if start else "", 200) for start in range(0, 1234, 200)
    ]


async def test_all_conversations_are_found(service: StandIn) -> None:
    service.answer = conversations(350)
    async with client_of(service) as tim:
        contacts = [contact async for contact in tim.batch.get_recent_contact_list("alice")]
    assert len(contacts) == 350
    assert contacts[:5] == [
        Contact("c2c", "p0", 1000, pinned=True),
        Contact("c2c", "p1", 999, pinned=True),
        Contact("c2c", "p2", 998, pinned=True),
        Contact("c2c", "p3", 997, pinned=False),
        Contact("group", "g4", 996, pinned=False),
    ]
    assert [body["StartIndex"] for body in service.bodies] == [0, 100, 200, 300]
    assert {body["TimeStamp"] for body in service.bodies[1:]} == {17}


async def test_the_unread_counts_of_all_conversations(service: StandIn) -> None:
    """350 one-to-one conversations of 437 take 35 calls beside the pages."""
    service.answer = conversations(437)
    async with client_of(service) as tim:
        unread = await tim.batch.get_recent_c2c_unread_msg_num("alice")
    peers = [f"p{number}" for number in range(437) if number % 5 != 4]
    assert list(unread.counts.items()) == [(peer, count_of(peer)) for peer in peers]
    assert (len(peers), unread.errors) == (350, {})
    assert len(service.seen) == 5 + 35


async def test_the_unread_counts_without_a_conversation(service: StandIn) -> None:
    service.answer = lambda _: ok(CompleteFlag=1)
    async with client_of(service) as tim:
        assert await tim.batch.get_recent_c2c_unread_msg_num("alice") == C2CUnread()
    assert len(service.seen) == 1


async def test_a_peer_with_a_lone_surrogate_is_a_bad_response(service: StandIn) -> None:
    """No request can name it; the mistake is the service's, so it is not a ValueError."""
    service.answer = lambda _: ok(CompleteFlag=1, SessionItem=[{"Type": 1, "To_Account": "\ud800", "MsgTime": 1}])
    async with client_of(service) as tim:
        assert isinstance(await failure_of(tim.batch.get_recent_c2c_unread_msg_num("alice")), BadResponse)


async def test_failed_unread_counts_are_errors_of_their_peers(service: StandIn) -> None:
    whole = conversations(12)

    def answer(seen: Seen) -> Action:
        return error(90001, "no") if "p0" in seen.json.get("Peer_Account", ()) else whole(seen)

    service.answer = answer
    async with client_of(service) as tim:
        unread = await tim.batch.get_recent_c2c_unread_msg_num("alice")
    assert unread.errors == dict.fromkeys([f"p{n}" for n in range(12) if n % 5 != 4], ItemError(90001, "no"))


@paged
async def test_the_next_page_is_requested_after_this_one_was_read(
    service: StandIn, endpoint: str, pages: Callable[[TIMClient], AsyncIterator[Any]], answer: Any
) -> None:
    """After a break nothing is left."""
    service.answer = answer(1000)
    async with client_of(service) as tim:
        number = 0
        async for _ in pages(tim):
            number += 1
            assert len(service.seen) <= (number - 1) // 200 + 1
            if number == 450:
                break
        await asyncio.sleep(0)
        assert len(service.seen) == 3
        assert tim.stats()[endpoint].queue.interactive == 0


@paged
async def test_a_transient_fault_is_retried_within_its_page(
    service: StandIn, endpoint: str, pages: Callable[[TIMClient], AsyncIterator[Any]], answer: Any
) -> None:
    service.script.extend([error(10002, "busy"), Fate.DROP])
    service.answer = answer(3)
    async with client_of(service) as tim:
        assert len([item async for item in pages(tim)]) == 3
        assert tim.stats()[endpoint].retries == 2


@paged
async def test_pages_are_requested_in_the_lane_of_the_view(
    service: StandIn, endpoint: str, pages: Callable[[TIMClient], AsyncIterator[Any]], answer: Any
) -> None:
    service.answer = answer(3)
    lanes: list[Lane] = []
    async with client_of(service, on_attempt=lambda attempt: lanes.append(attempt.lane)) as tim:
        assert len([item async for item in pages(tim.with_options(lane=Lane.BULK))]) == 3
    assert lanes == [Lane.BULK]


@pytest.mark.parametrize("period", [1, 2, 3])
@pytest.mark.parametrize("endpoint", [DETAIL, RECENT])
async def test_a_cursor_that_does_not_advance_is_a_bad_response(service: StandIn, endpoint: str, period: int) -> None:
    """Neither does one that moves in a circle."""

    def answer(seen: Seen) -> Action:
        number = len(service.seen) % period
        page = {"TimeStamp": number, "StartIndex": 0, "TopTimeStamp": 0, "TopStartIndex": 0}
        return ok(Cursor=f"at {number}", IsFinish=0, CompleteFlag=0, **page)

    service.answer = answer
    async with client_of(service) as tim:
        pages: dict[str, AsyncIterator[Any]] = {
            DETAIL: tim.batch.get_group_msg_receipt_detail("g", 7),
            RECENT: tim.batch.get_recent_contact_list("alice"),
        }

        async def walk() -> None:
            async for _ in pages[endpoint]:
                raise AssertionError("these pages are empty")

        failure = await failure_of(walk())
    assert isinstance(failure, BadResponse)
    assert (failure.endpoint, failure.attempts) == (endpoint, 1)
    assert "cursor" in str(failure)
    assert len(service.seen) <= period + 1


@pytest.mark.parametrize(
    "mistake",
    [
        lambda tim: tim.batch.get_group_msg_receipt_detail("", 7),
        lambda tim: tim.batch.get_group_msg_receipt_detail("g", -1),
        lambda tim: tim.batch.get_group_msg_receipt_detail("g", True),
        lambda tim: tim.batch.get_group_msg_receipt_detail("g", 7, read=1),
        lambda tim: tim.batch.get_recent_contact_list(""),
        lambda tim: tim.batch.get_recent_contact_list(None),
    ],
)
async def test_a_bad_argument_raises_before_the_loop(service: StandIn, mistake: Any) -> None:
    async with client_of(service) as tim:
        with pytest.raises((ValueError, TypeError)):
            mistake(tim)
    assert service.seen == []


async def test_a_failed_page_raises_after_the_items_of_earlier_ones(service: StandIn) -> None:
    """A failure is never taken for the last page."""
    service.script.extend([members(300)(Seen(body=b'{"Filter": 0, "Cursor": "", "Count": 200}')), Fate.HOLD])
    service.answer = lambda _: Fate.HOLD
    found = 0
    async with client_of(service, timeout=1.0, retry=RetryPolicy(attempts=1)) as tim:

        async def walk() -> None:
            nonlocal found
            async for _ in tim.batch.get_group_msg_receipt_detail("g", 7):
                found += 1

        failure = await failure_of(walk())
    assert isinstance(failure, RequestTimeout)
    assert found == 200


COUNTS = st.integers(0, 2**63 - 1)


@given(
    finished=st.sampled_from([0, 1, True, False]),
    name=st.sampled_from(["IsFinish", "IsFinished"]),
    accounts=st.lists(st.text(min_size=1)),
    cursor=st.text(min_size=1),
    read=st.booleans(),
)
def test_a_page_of_members_is_parsed(finished: Any, name: str, accounts: list[str], cursor: str, read: bool) -> None:
    """With either of the vendor's two names for the final flag."""
    rows, account = ("ReadList", "Read_Account") if read else ("UnreadList", "Unread_Account")
    answer = {name: finished, "Cursor": cursor, rows: [{account: value, "More": 1} for value in accounts]}
    expected = GroupMsgReceiptDetail(tuple(accounts), "" if finished else cursor, bool(finished))
    assert GroupMsgReceiptDetail.from_wire(answer, read=read) == expected


@given(
    finished=st.sampled_from([0, 1, True, False]),
    page=st.builds(RecentContactPage, COUNTS, COUNTS, COUNTS, COUNTS),
    kinds=st.lists(st.integers(0, 4)),
)
def test_a_page_of_conversations_is_parsed(finished: Any, page: RecentContactPage, kinds: list[int]) -> None:
    """Conversations of undocumented kinds are left out; the position of the next page is sent back unchanged."""
    rows = [{"Type": kind, "To_Account": "p", "GroupId": "g", "MsgTime": 5} for kind in kinds]
    known = {1: Contact("c2c", "p", 5, pinned=False), 2: Contact("group", "g", 5, pinned=False)}
    found = RecentContactList.from_wire({"SessionItem": rows, "CompleteFlag": finished, **page.to_wire()})
    contacts = tuple(known[kind] for kind in kinds if kind in known)
    assert found == RecentContactList(contacts, None if finished else page)


@pytest.mark.parametrize("empty", [{}, {"ReadList": None, "SessionItem": None}, {"ReadList": [], "SessionItem": []}])
def test_an_empty_list_may_be_absent_or_null(empty: dict[str, Any]) -> None:
    """An account without conversations is no broken answer."""
    assert GroupMsgReceiptDetail.from_wire({"IsFinish": 1, **empty}, read=True) == GroupMsgReceiptDetail((), "", True)
    assert RecentContactList.from_wire({"CompleteFlag": 1, **empty}) == RecentContactList((), None)


DETAIL_PAGE: dict[str, Any] = {"ReadList": [{"Read_Account": "bob"}], "Cursor": "next", "IsFinish": 0}
RECENT_PAGE: dict[str, Any] = {
    "SessionItem": [{"Type": 1, "To_Account": "bob", "MsgTime": 5, "TopFlag": 0}],
    "CompleteFlag": 0,
    "TimeStamp": 1,
    "StartIndex": 2,
    "TopTimeStamp": 3,
    "TopStartIndex": 4,
}
POSITION = ("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex")
# None stands for an absent field, too.
BAD_NUMBERS: tuple[object, ...] = (-1, 2**63, True, 1.0, "1", [], None)
BAD_FLAGS: tuple[object, ...] = (-1, 2, 1.0, "1", None, [])
BAD_LISTS: tuple[object, ...] = ("x", {}, ["x"], [7])
BAD_TEXTS: tuple[object, ...] = ("", 7, None, ["x"], "\ud800")


def shown(value: object) -> str:
    """Return an id of a value; pytest finds no test by an id with a backslash."""
    return ascii(value).replace("\\", "")


@pytest.mark.parametrize("number", [0, 2**63 - 1])
@pytest.mark.parametrize("name", POSITION)
def test_the_smallest_and_the_largest_number_of_a_page_are_accepted(name: str, number: int) -> None:
    page = RecentContactList.from_wire({**RECENT_PAGE, name: number}).next_page
    assert page is not None
    assert page.to_wire()[name] == number


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("ReadList", value) for value in BAD_LISTS),
        *(("IsFinish", value) for value in BAD_FLAGS),
        *(("Cursor", value) for value in BAD_TEXTS),
        *(("Read_Account", value) for value in BAD_TEXTS),
    ],
    ids=shown,
)
def test_a_bad_field_of_a_page_of_members_is_named(field: str, value: object) -> None:
    """Also that of a single member, without which the list would seem complete."""
    malformed = {**DETAIL_PAGE, field: value}
    if field == "Read_Account":
        malformed = {**DETAIL_PAGE, "ReadList": [*DETAIL_PAGE["ReadList"], {field: value}]}
    with pytest.raises(BadResponse, match=f"^{field} is missing from the answer or not as documented$"):
        GroupMsgReceiptDetail.from_wire(malformed, read=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("SessionItem", value) for value in BAD_LISTS),
        *((field, value) for field in (*POSITION, "Type", "MsgTime") for value in BAD_NUMBERS),
        *((field, value) for field in ("CompleteFlag", "TopFlag") for value in BAD_FLAGS),
        *((field, value) for field in ("To_Account", "GroupId") for value in BAD_TEXTS),
    ],
    ids=shown,
)
def test_a_bad_field_of_a_page_of_conversations_is_named(field: str, value: object) -> None:
    malformed = {**RECENT_PAGE, field: value}
    if field not in RECENT_PAGE:
        item = {**RECENT_PAGE["SessionItem"][0], "Type": 2 if field == "GroupId" else 1, field: value}
        malformed = {**RECENT_PAGE, "SessionItem": [item]}
    with pytest.raises(BadResponse, match=f"^{field} is missing from the answer or not as documented$"):
        RecentContactList.from_wire(malformed)


async def test_pages_of_the_emulator() -> None:
    """1,234 readers, and 350 conversations beside 87 groups."""
    members = [f"m{number}" for number in range(1500)]
    peers = [f"p{number}" for number in range(350)]
    async with Emulator(max_receipt_members=1500, limit=None) as service:
        state = service.state
        state.add_group("g", messages=7, members=members)
        state.add_receipt("g", 7, readers=members[:1234])
        state.add_account("alice")
        for number, peer in enumerate(peers):
            state.add_messages("alice", peer, number % 7 + 1)
        for number in range(87):
            state.add_recent_contact("alice", f"g{number}", kind="group", pinned=number < 3)
        async with TIMClient(**service.client_options()) as tim:
            read = [account async for account in tim.batch.get_group_msg_receipt_detail("g", 7)]
            unread = [account async for account in tim.batch.get_group_msg_receipt_detail("g", 7, read=False)]
            contacts = [contact async for contact in tim.batch.get_recent_contact_list("alice")]
            before = service.report().total.calls
            inbox = await tim.batch.get_recent_c2c_unread_msg_num("alice")
        assert sorted(read) == sorted(members[:1234])
        assert sorted(unread) == sorted(members[1234:])
        assert len(contacts) == len({(contact.kind, contact.id) for contact in contacts}) == 350 + 87
        assert [contact.pinned for contact in contacts[:4]] == [True, True, True, False]
        assert inbox == C2CUnread({peer: number % 7 + 1 for number, peer in enumerate(peers)})
        assert service.report().total.calls - before == 5 + 35
