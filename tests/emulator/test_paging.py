"""Pages: from the first to the last, they list each item exactly once, whatever changes in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.hypotheses import at_most
from tim_async.emulator import RecentContact

from .support import NOW, RECEIPT, RECEIPT_DETAIL, RECENT_CONTACTS, BlockingCaller, emulator

Change = Callable[[], None]


def receipt_pages(
    caller: BlockingCaller, *, read: bool, count: int, change: Change = lambda: None
) -> Iterator[list[str]]:
    """Yield the pages of message 7 of the group; ``change`` is called between pages."""
    name, item = ("ReadList", "Read_Account") if read else ("UnreadList", "Unread_Account")
    cursor = ""
    while True:
        body = {"GroupId": "g", "MsgSeq": 7, "Filter": 0 if read else 1, "Cursor": cursor, "Count": count}
        answer = caller.answer(RECEIPT_DETAIL, body)
        assert answer == caller.answer(RECEIPT_DETAIL, body)
        yield [row[item] for row in answer[name]]
        if answer["IsFinish"]:
            return
        assert answer["Cursor"] != cursor
        cursor = answer["Cursor"]
        change()


def contact_pages(caller: BlockingCaller, change: Change = lambda: None) -> Iterator[list[RecentContact]]:
    """Yield the pages of the contacts of ``me``; ``change`` is called between pages."""
    place = dict.fromkeys(("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex"), 0)
    while True:
        answer = caller.answer(RECENT_CONTACTS, {"From_Account": "me", **place, "AssistFlags": 63})
        yield [
            RecentContact("c2c", row["To_Account"], row["MsgTime"], bool(row["TopFlag"]))
            if row["Type"] == 1
            else RecentContact("group", row["GroupId"], row["MsgTime"], bool(row["TopFlag"]))
            for row in answer["SessionItem"]
        ]
        if answer["CompleteFlag"]:
            return
        after = {name: answer[name] for name in place}
        assert after != place
        place = after
        change()


def flat(pages: Iterator[list[Any]]) -> list[Any]:
    return [item for page in pages for item in page]


MEMBERS = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=25)


@at_most(40)
@given(MEMBERS, st.data(), st.integers(1, 30))
def test_each_recipient_is_on_exactly_one_page(members: list[str], data: st.DataObject, count: int) -> None:
    readers = data.draw(st.sets(st.sampled_from(members))) if members else set()
    sender = data.draw(st.sampled_from(sorted(set(members) - readers))) if set(members) - readers else None
    with emulator() as it:
        it.state.add_group("g", members=members)
        it.state.add_receipt("g", 7, readers=readers, sender=sender)
        for read in (True, False):
            expected = [name for name in members if name != sender and (name in readers) is read]
            pages = list(receipt_pages(it, read=read, count=count))
            assert [name for page in pages for name in page] == expected == list(it.state.readers("g", 7, read=read))
            assert [len(page) for page in pages[:-1]] == [count] * (len(pages) - 1)
            assert len(pages) == max(1, -(-len(expected) // count))
        numbers = it.answer(RECEIPT, {"GroupId": "g", "MsgSeqList": [{"MsgSeq": 7}]})["GroupMsgReceiptList"][0]
        unread_num = len(members) - len(readers) - (sender is not None)
        assert (numbers["ReadNum"], numbers["UnreadNum"]) == (len(readers), unread_num)


@at_most(40)
@given(st.integers(1, 15), st.data(), st.integers(1, 5), st.booleans())
def test_members_who_read_between_pages_shift_no_page(number: int, data: st.DataObject, count: int, read: bool) -> None:
    members = [f"m{n}" for n in range(number)]
    late = data.draw(st.lists(st.sampled_from(members), unique=True))
    early = data.draw(st.sets(st.sampled_from(members)))
    with emulator() as it:
        it.state.add_group("g", members=members)
        it.state.add_receipt("g", 7, readers=early - set(late))
        changing = set(late)

        def change() -> None:
            if late:
                it.state.mark_read_in_group("g", 7, late.pop())

        seen = flat(receipt_pages(it, read=read, count=count, change=change))
        assert len(seen) == len(set(seen))
        steady = [name for name in members if name not in changing and (name in early) is read]
        assert [name for name in seen if name not in changing] == steady


CONTACTS = st.lists(
    st.tuples(st.sampled_from(["c2c", "group"]), st.integers(0, 20), st.integers(0, 5), st.booleans()), max_size=25
)


@at_most(40)
@given(CONTACTS, st.integers(1, 10))
def test_each_contact_is_on_exactly_one_page(contacts: list[tuple[Any, int, int, bool]], size: int) -> None:
    """In order: pinned ones first, then newest first; many have the same second, some have 0."""
    with emulator(contacts_per_page=size) as it:
        it.state.add_account("me")
        expected: dict[tuple[str, str], RecentContact] = {}
        for kind, number, at, pinned in contacts:
            it.state.add_recent_contact("me", str(number), kind=kind, at=at, pinned=pinned)
            expected[kind, str(number)] = RecentContact(kind, str(number), at, pinned)
        pages = list(contact_pages(it))
        seen = [contact for page in pages for contact in page]
        assert seen == sorted(expected.values(), key=lambda contact: (not contact.pinned, -contact.msg_time))
        assert len(pages) == max(1, -(-len(expected) // size))


@at_most(40)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=15), st.data(), st.integers(1, 5))
def test_a_contact_with_a_new_message_shifts_no_page(
    contacts: list[tuple[int, bool]], data: st.DataObject, size: int
) -> None:
    with emulator(contacts_per_page=size) as it:
        for number, (at, pinned) in enumerate(contacts):
            it.state.add_recent_contact("me", str(number), at=at, pinned=pinned)
        names = [str(number) for number in range(len(contacts))]
        moved = data.draw(st.lists(st.sampled_from(names), unique=True))
        coming = [*moved]

        def change() -> None:
            if coming:
                it.state.add_messages("me", coming.pop(), at=NOW)

        seen = [contact.id for contact in flat(contact_pages(it, change))]
        assert len(seen) == len(set(seen))
        assert set(names) - set(moved) <= set(seen)
