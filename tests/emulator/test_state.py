"""What the service remembers, filled and read without HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.emulator.examples import fill_example
from tim_async.emulator.state import GroupType, State

from .support import Clock


@pytest.fixture
def state() -> State:
    return State(Clock(1000.0))


def test_an_unread_count_is_lowered_to_the_number_of_messages(state: State) -> None:
    state.add_group("g", "Work", messages=5, members=["a"])
    state.set_unread_in_group("g", "a", 9)
    assert state.unread_in_group("g", "a") == 5


@pytest.mark.parametrize("group_type", ["ChatRoom", "Meeting", "AVChatRoom"])
def test_rooms_keep_no_unread_counts(state: State, group_type: GroupType) -> None:
    state.add_group("g", group_type, messages=5, members=["a"])
    state.set_unread_in_group("g", "a", 3)
    state.add_group_messages("g", 2)
    assert state.unread_in_group("g", "a") == 0
    group = state.find_group("g")
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


def test_without_a_time_everything_there_is_by_now_is_read_and_what_comes_later_is_not(state: State) -> None:
    state.add_messages("me", "a", 2)
    state.add_messages("me", "a", at=1001.0)
    state.mark_read("me", "a")
    assert state.unread("me", "a") == 1
    state.add_messages("me", "a", 4)
    assert state.unread("me", "a") == 5


def test_who_was_never_heard_of_has_nothing_unread_and_no_read_time(state: State) -> None:
    assert state.unread("nobody") == 0
    assert state.read_time("nobody", "a") is None


def test_the_same_group_twice_is_refused(state: State) -> None:
    state.add_group("g")
    with pytest.raises(ValueError, match="exists"):
        state.add_group("g")


def test_what_cannot_be_is_refused(state: State) -> None:
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
