"""The state of the service, filled and read without HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.emulator import GroupType, RecentContact, State, fill_example

from .support import Clock


@pytest.fixture
def state() -> State:
    return State(Clock(1000.0))


def test_rooms_keep_no_unread_counts(state: State) -> None:
    rooms: tuple[GroupType, ...] = ("ChatRoom", "Meeting", "AVChatRoom")
    for room in rooms:
        state.add_group(room, room, messages=5, members=["a"])
        state.set_unread_in_group(room, "a", 3)
        state.add_group_messages(room, 2)
        assert state.unread_in_group(room, "a") == 0
        group = state.find_group(room)
        assert group is not None
        assert group.messages == 7


def test_a_message_to_a_group_is_unread_for_each_member(state: State) -> None:
    state.add_group("g", messages=5, members=["a", "b"])
    state.add_group_messages("g", 2)
    assert (state.unread_in_group("g", "a"), state.unread_in_group("g", "b")) == (2, 2)


def test_a_receipt_makes_the_group_hold_its_message(state: State) -> None:
    state.add_group("g", messages=5)
    state.add_receipt("g", 9, read_num=1, unread_num=2)
    assert state.receipt("g", 9) == (1, 2)
    assert state.receipt("g", 8) is None
    state.add_members("g", "a")
    state.set_unread_in_group("g", "a", 100)
    assert state.unread_in_group("g", "a") == 9


MESSAGES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 3)), max_size=15)
READS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=6)


@given(MESSAGES, READS, MESSAGES)
def test_a_message_is_unread_unless_it_was_sent_before_the_latest_read_time(
    before: list[tuple[str, int, int]], reads: list[tuple[str, int]], after: list[tuple[str, int, int]]
) -> None:
    state = State(Clock())
    for peer, at, count in before:
        state.add_messages("me", peer, count, at=at)
    for peer, time in reads:
        state.mark_read("me", peer, time)
    for peer, at, count in after:
        state.add_messages("me", peer, count, at=at)
    for name in "abc":
        read_until = max((time for peer, time in reads if peer == name), default=None)
        expected = sum(
            count for peer, at, count in before + after if peer == name and (read_until is None or at >= read_until)
        )
        assert state.unread("me", name) == expected
        assert state.read_time("me", name) == read_until
    assert state.unread("me") == sum(state.unread("me", name) for name in "abc")


def test_without_a_time_all_messages_until_now_are_read_and_later_ones_are_not(state: State) -> None:
    state.add_messages("me", "a", 2)
    state.add_messages("me", "a", at=1001.0)
    state.mark_read("me", "a")
    assert state.unread("me", "a") == 1
    state.add_messages("me", "a", 4)
    assert state.unread("me", "a") == 5


def test_an_unknown_account_has_nothing_unread_and_no_read_time(state: State) -> None:
    assert state.unread("nobody") == 0
    assert state.read_time("nobody", "a") is None


def test_the_same_group_twice_is_refused(state: State) -> None:
    state.add_group("g")
    with pytest.raises(ValueError, match="exists"):
        state.add_group("g")


def test_invalid_values_are_refused(state: State) -> None:
    state.add_group("g")
    with pytest.raises(ValueError):
        state.add_group("h", "Secret")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        state.add_group("", "Public")
    with pytest.raises(ValueError):
        state.add_group_messages("g", -1)
    with pytest.raises(ValueError):
        state.add_messages("a", "b", -1)
    with pytest.raises(ValueError):
        state.add_receipt("g", 0, read_num=0, unread_num=0)
    with pytest.raises(KeyError):
        state.set_unread_in_group("g", "stranger", 1)


def test_the_example_is_as_its_docstring_says(state: State) -> None:
    fill_example(state)
    assert (state.unread("alice", "bob"), state.unread("alice", "carol"), state.unread("alice")) == (3, 2, 5)
    assert [state.receipt("@TGS#public", seq) for seq in (117, 118, 119, 120)] == [None, (2, 0), (1, 1), (0, 2)]
    assert [state.readers("@TGS#public", seq) for seq in (118, 119, 120)] == [("alice", "bob"), ("alice",), ()]
    assert state.readers("@TGS#public", 119, read=False) == ("bob",)
    contacts = state.recent_contacts("alice")
    assert (contacts[0].id, contacts[0].pinned) == ("@TGS#work", True)
    assert {contact.id for contact in contacts} == {"bob", "carol", "@TGS#public", "@TGS#work", "@TGS#avchatroom"}
    assert [contact.pinned for contact in contacts[1:]] == [False] * 4


def test_a_receipt_by_numbers_names_its_readers(state: State) -> None:
    """Members first, then accounts that have left: they exist, but are not members."""
    state.add_group("g", members=["a", "former1", "b"])
    state.add_receipt("g", 1, read_num=2, unread_num=3)
    assert state.readers("g", 1) == ("a", "former1")
    assert state.readers("g", 1, read=False) == ("b", "former2", "former3")
    assert state.has_account("former3")
    group = state.find_group("g")
    assert group is not None
    assert [*group.unread] == ["a", "former1", "b"]


def test_members_read_a_message_and_reading_it_again_changes_nothing(state: State) -> None:
    state.add_group("g", messages=3, members=["a", "b", "c"])
    state.add_receipt("g", 2, sender="c")
    state.set_unread_in_group("g", "b", 3)
    assert state.receipt("g", 2) == (0, 2)
    state.mark_read_in_group("g", 2, "b")
    state.mark_read_in_group("g", 2, "b")
    assert (state.receipt("g", 2), state.readers("g", 2)) == ((1, 1), ("b",))
    assert state.unread_in_group("g", "b") == 3
    state.add_members("g", "late")
    assert state.receipt("g", 2) == (1, 1)
    for who in ("c", "late", "stranger"):
        with pytest.raises(KeyError):
            state.mark_read_in_group("g", 2, "a", who)
    assert state.receipt("g", 2) == (1, 1)
    with pytest.raises(KeyError):
        state.mark_read_in_group("g", 1, "a")


def test_a_receipt_that_contradicts_itself_is_refused(state: State) -> None:
    state.add_group("g", members=["a", "b"])
    for read_num, unread_num in ((1, None), (None, 1), (-1, 1), (1, -1)):
        with pytest.raises(ValueError):
            state.add_receipt("g", 1, read_num=read_num, unread_num=unread_num)
    with pytest.raises(ValueError):
        state.add_receipt("g", 1, readers=["a"], read_num=1, unread_num=0)
    with pytest.raises(KeyError, match="stranger"):
        state.add_receipt("g", 1, readers=["a", "stranger"])
    with pytest.raises(KeyError):
        state.add_receipt("g", 1, readers=["a"], sender="a")
    assert (state.receipt("g", 1), state.has_account("stranger")) == (None, False)


def test_messages_make_both_sides_contacts_of_each_other(state: State) -> None:
    state.add_messages("a", "b", at=10.9)
    state.add_messages("b", "a", at=5)
    state.add_messages("a", "c", 0)
    assert state.recent_contacts("a") == [RecentContact("c2c", "b", 10)]
    assert state.recent_contacts("b") == [RecentContact("c2c", "a", 10)]
    assert (state.recent_contacts("c"), state.has_account("c")) == ([], True)


def test_a_message_older_than_the_read_time_still_makes_a_contact(state: State) -> None:
    state.mark_read("a", "b", 100)
    state.add_messages("a", "b", at=50)
    assert (state.unread("a"), state.recent_contacts("a")) == (0, [RecentContact("c2c", "b", 50)])


def test_a_group_is_a_contact_of_its_members_once_it_has_messages(state: State) -> None:
    state.add_group("g", members=["a"])
    state.add_group("old", messages=4, members=["a"], at=7)
    assert state.recent_contacts("a") == [RecentContact("group", "old", 7)]
    state.add_group_messages("g", 2, at=20)
    state.add_group_messages("g", 0, at=30)
    state.add_members("g", "late")
    expected = [RecentContact("group", "g", 20), RecentContact("group", "old", 7)]
    assert state.recent_contacts("a") == expected
    assert state.recent_contacts("late") == expected[:1]
    state.add_receipt("g", 2)
    assert state.recent_contacts("late") == expected[:1]
    state.add_receipt("g", 3)
    assert state.recent_contacts("late") == [RecentContact("group", "g", 1000)]


def test_a_member_who_joins_again_keeps_unread_count_and_contact(state: State) -> None:
    state.add_group("g", messages=4, members=["a", "a"])
    state.set_unread_in_group("g", "a", 2)
    state.add_recent_contact("a", "g", kind="group", at=5)
    state.add_members("g", "a", "b")
    assert (state.unread_in_group("g", "a"), state.unread_in_group("g", "b")) == (2, 0)
    assert state.recent_contacts("a") == [RecentContact("group", "g", 5)]


def test_a_contact_is_set_to_any_time_and_a_later_message_makes_it_newer(state: State) -> None:
    state.add_messages("a", "b", at=50)
    state.add_recent_contact("a", "b", at=20, pinned=True)
    state.add_recent_contact("a", "new")
    assert state.recent_contacts("a") == [RecentContact("c2c", "b", 20, True), RecentContact("c2c", "new", 1000)]
    assert state.has_account("new")
    state.add_messages("b", "a", at=30)
    assert state.recent_contacts("a")[0] == RecentContact("c2c", "b", 30, True)
    state.add_recent_contact("a", "b")
    assert state.recent_contacts("a")[1] == RecentContact("c2c", "b", 30, False)


def test_a_time_of_no_date_is_kept_in_the_range_of_the_wire(state: State) -> None:
    for at, msg_time in ((float("-inf"), 0), (-5, 0), (float("inf"), 2**63 - 1)):
        state.add_messages("a", "b", at=at)
        assert [contact.msg_time for contact in state.recent_contacts("a")] == [msg_time]


def test_invalid_contacts_are_refused(state: State) -> None:
    for account, contact_id, kind in (("", "b", "c2c"), ("a", "", "c2c"), ("a", "b", "room")):
        with pytest.raises(ValueError):
            state.add_recent_contact(account, contact_id, kind=kind)  # type: ignore[arg-type]
    assert not state.has_account("a")
