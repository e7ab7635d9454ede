"""Parsing of answers: any JSON is a valid result or a BadResponse."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import BadResponse, C2CUnread, Done, Failed, GroupMsgReceipts, ItemError, Receipt
from tim_async.models import all_c2c_unread

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
PEERS = ["bob", "carol", "dave"]
SEQS = [0, 1, 2]
# Rows that are nearly valid, where a parser is most likely to fail.
rows = st.lists(
    json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "Peer_Account": st.sampled_from(PEERS) | json_values,
            "C2CUnreadMsgNum": st.integers(-1, 9) | json_values,
            "ErrorCode": st.integers(-1, 70107) | json_values,
            "ErrorInfo": st.text() | json_values,
            "Code": st.sampled_from([0, 0, 10062]) | json_values,
            "MsgSeq": st.sampled_from(SEQS) | json_values,
            "ReadNum": st.integers(-1, 9) | json_values,
            "UnreadNum": st.integers(-1, 9) | json_values,
        },
    ),
    max_size=4,
)
answers = st.dictionaries(st.text(max_size=5), json_values, max_size=3) | st.fixed_dictionaries(
    {},
    optional={
        "AllC2CUnreadMsgNum": st.integers(-1, 9) | json_values,
        "C2CUnreadMsgNumList": rows | json_values,
        "ErrorList": rows | json_values,
        "GroupMsgReceiptList": rows | json_values,
    },
)


@given(answers)
def test_any_answer_about_peers_is_a_valid_result_or_a_bad_response(answer: dict[str, Any]) -> None:
    """The result has each requested peer once, as a count or an error, and no other."""
    try:
        found = C2CUnread.from_wire(answer, PEERS)
    except BadResponse:
        return
    assert {*found.counts} | {*found.errors} == {*PEERS}
    assert len(found.counts) + len(found.errors) == len(PEERS)
    assert all(type(count) is int and count >= 0 for count in found.counts.values())
    assert_errors(found.errors)


@given(answers)
def test_any_answer_about_messages_is_a_valid_result_or_a_bad_response(answer: dict[str, Any]) -> None:
    """The result has each requested message once, as a receipt or an error, and no other."""
    try:
        found = GroupMsgReceipts.from_wire(answer, SEQS)
    except BadResponse:
        return
    assert {*found.receipts} | {*found.errors} == {*SEQS}
    assert len(found.receipts) + len(found.errors) == len(SEQS)
    for receipt in found.receipts.values():
        assert all(type(number) is int and number >= 0 for number in (receipt.read_num, receipt.unread_num))
    assert_errors(found.errors)


@given(answers)
def test_any_answer_about_the_total_is_a_count_or_a_bad_response(answer: dict[str, Any]) -> None:
    try:
        found = all_c2c_unread(answer)
    except BadResponse:
        return
    assert type(found) is int
    assert found == answer["AllC2CUnreadMsgNum"] >= 0


def assert_errors(errors: dict[Any, ItemError]) -> None:
    for error in errors.values():
        assert error.code is None or type(error.code) is int
        assert type(error.info) is str


def test_an_ill_typed_row_of_counts_fails_alone() -> None:
    """A count is a non-negative int of a peer that is a str; any other row is an error, not a count of 0."""
    good = {"Peer_Account": "carol", "C2CUnreadMsgNum": 3}
    ill_typed: list[object] = [
        {"Peer_Account": "bob"},
        {"C2CUnreadMsgNum": 3},
        {"Peer_Account": "bob", "C2CUnreadMsgNum": True},
        {"Peer_Account": "bob", "C2CUnreadMsgNum": "3"},
        {"Peer_Account": "bob", "C2CUnreadMsgNum": 3.0},
        {"Peer_Account": "bob", "C2CUnreadMsgNum": -1},
        {"Peer_Account": "bob", "C2CUnreadMsgNum": 2**32},
        {"Peer_Account": ["bob"], "C2CUnreadMsgNum": 3},
        {"Peer_Account": {}, "C2CUnreadMsgNum": 3},
        {"Peer_Account": None, "C2CUnreadMsgNum": 3},
        "bob",
        None,
        [],
        3,
    ]
    for row in ill_typed:
        for rows in ([row, good], [good, row]):
            found = C2CUnread.from_wire({"C2CUnreadMsgNumList": rows}, ["bob", "carol"])
            assert (found.counts, *found.errors) == ({"carol": 3}, "bob"), row
            assert found.errors["bob"].code is None
            if isinstance(row, dict) and row.get("Peer_Account") == "bob":
                said = "C2CUnreadMsgNum is missing from the answer or not as documented"
                assert found.errors["bob"].info == said


def test_an_ill_typed_code_is_an_error_without_a_code() -> None:
    codes: list[object] = [None, "70107", 10**30, 2**31, -(2**31) - 1, True, 70107.0, [], {}]
    for code in codes:
        rows = [{"Peer_Account": "bob", "ErrorCode": code}, {"Peer_Account": "carol", "ErrorCode": 90003}]
        found = C2CUnread.from_wire({"ErrorList": rows}, ["bob", "carol"])
        assert found.errors["bob"] == ItemError(None, "ErrorCode is missing from the answer or not as documented"), code
        assert found.errors["carol"].code == 90003


def test_an_ill_typed_receipt_fails_alone() -> None:
    """Its message has an error without a code; the others have their receipts."""
    good = {"MsgSeq": 2, "Code": 0, "ReadNum": 3, "UnreadNum": 4}
    ill_typed: list[object] = [
        {"MsgSeq": 1},
        {"MsgSeq": 1, "ReadNum": 1},
        {"MsgSeq": 1, "ReadNum": -1, "UnreadNum": 0},
        {"MsgSeq": 1, "ReadNum": 10**30, "UnreadNum": 0},
        {"MsgSeq": 1, "ReadNum": 1, "UnreadNum": "2"},
        {"MsgSeq": "1", "ReadNum": 1, "UnreadNum": 2},
        {"MsgSeq": True, "ReadNum": 1, "UnreadNum": 2},
        {"MsgSeq": [1], "ReadNum": 1, "UnreadNum": 2},
        {"MsgSeq": 1, "Code": 10**30},
        {"MsgSeq": 1, "Code": None, "ReadNum": 1, "UnreadNum": 2},
        {"MsgSeq": 1, "Code": False, "ReadNum": 1, "UnreadNum": 2},
        None,
        7,
    ]
    for row in ill_typed:
        found = GroupMsgReceipts.from_wire({"GroupMsgReceiptList": [row, good]}, [1, 2])
        assert (found.receipts, *found.errors) == ({2: Receipt(3, 4)}, 1), row
        assert found.errors[1].code is None


def test_rows_that_are_not_a_list_are_a_bad_response() -> None:
    """Even if they are empty."""
    for value in (3, "rows", True, {"Peer_Account": "bob"}, 0, "", False):
        for name in ("C2CUnreadMsgNumList", "ErrorList"):
            with pytest.raises(BadResponse, match=name):
                C2CUnread.from_wire({name: value}, ["bob"])
        with pytest.raises(BadResponse, match="GroupMsgReceiptList"):
            GroupMsgReceipts.from_wire({"GroupMsgReceiptList": value}, [1])


def test_a_null_list_counts_as_absent() -> None:
    """Some servers write null for an empty list."""
    found = C2CUnread.from_wire({"C2CUnreadMsgNumList": None, "ErrorList": None}, ["bob"])
    assert found.errors == {"bob": ItemError(None, "not in the answer")}


def test_an_error_takes_precedence_over_a_count_of_the_same_peer() -> None:
    """The count cannot be trusted."""
    found = C2CUnread.from_wire(
        {
            "C2CUnreadMsgNumList": [{"Peer_Account": "bob", "C2CUnreadMsgNum": 0}],
            "ErrorList": [{"Peer_Account": "bob", "ErrorCode": 70107}],
        },
        ["bob"],
    )
    assert found == C2CUnread({}, {"bob": ItemError(70107)})


def nested(shape: str, depth: int) -> str:
    return "[" * depth + "]" * depth if shape == "list" else '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("shape", ["list", "dict"])
def test_the_deepest_json_is_a_result_or_a_bad_response(shape: str) -> None:
    """Nesting just within the JSON parser's limit must not exceed the recursion limit later."""
    deepest = 1
    for depth in range(100, 3000, 3):
        try:
            json.loads(nested(shape, depth))
        except RecursionError:
            break
        deepest = depth
    for depth in range(deepest, deepest - 60, -3):
        deep = json.loads(nested(shape, depth))
        answer = {"ErrorList": [{"Peer_Account": "bob", "ErrorCode": 70107, "ErrorInfo": deep}]}
        with contextlib.suppress(BadResponse):
            assert C2CUnread.from_wire(answer, ["bob"]).errors["bob"].code == 70107


def test_results_are_frozen_and_compare_copy_and_pickle() -> None:
    """They also convert to dicts."""
    for result in (
        C2CUnread({"bob": 1}, {"carol": ItemError(70107, "x")}),
        GroupMsgReceipts({1: Receipt(2, 3)}, {4: ItemError(None, "y")}),
        Done(("g", "alice", 1), None),
        Failed(("g",), ValueError("z")),
    ):
        if not isinstance(result, Failed):  # exceptions compare by identity
            assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
        assert isinstance(dataclasses.asdict(result), dict)
        name = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, name, None)


def test_subscripted_outcomes_can_be_constructed() -> None:
    """On every supported Python."""
    assert Done[tuple[str, int], None](("g", 1), None) == Done(("g", 1), None)
    failure = ValueError("x")
    assert Failed[tuple[str]](("g",), failure).error is failure


def test_results_do_not_share_default_dicts() -> None:
    C2CUnread().counts["bob"] = 1
    assert C2CUnread() == C2CUnread({}, {})
