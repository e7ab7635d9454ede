"""Each request is as documented, and each documented answer is read."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from urllib.parse import unquote

import pytest

from tim_async import BadResponse, C2CUnread, GroupMsgReceipts, ItemError, Receipt
from tim_async.errors import Reaction
from tim_async.usersig import verify

from .stand_in import (
    APP,
    KEY,
    METHODS,
    Method,
    Reply,
    StandIn,
    client_of,
    count_of,
    error,
    failure_of,
    ok,
)


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_each_method_sends_the_documented_request_and_reads_its_answer(service: StandIn, method: Method) -> None:
    """One POST to the documented path, with exactly the documented parameters and fields."""
    async with client_of(service) as tim:
        assert await method.run(tim) == method.result
    (seen,) = service.seen
    assert (seen.method, seen.path, seen.json) == ("POST", method.path, method.body)
    assert seen.headers["content-type"] == "application/json"
    given = {name: value for name, value in seen.query.items() if name not in ("random", "usersig")}
    assert given == {"sdkappid": str(APP), "identifier": "administrator", "contenttype": "json"}
    assert seen.raw_query.count("=") == 5


@pytest.mark.parametrize("identifier", ["administrator", "管理员", "a&b=c", "a b+c", "50%", "#1?/é", "관리자"])
async def test_the_identifier_is_percent_encoded_and_in_the_usersig(service: StandIn, identifier: str) -> None:
    async with client_of(service, identifier=identifier) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
    (seen,) = service.seen
    part = next(part for part in seen.raw_query.split("&") if part.startswith("identifier="))
    assert part.isascii()
    assert unquote(part.removeprefix("identifier=")) == identifier
    claims = verify(seen.usersig, APP, KEY, now=dt.datetime.now(dt.UTC).timestamp())
    assert (claims.identifier, claims.sdk_app_id) == (identifier, APP)


async def test_the_usersig_is_valid_for_at_least_a_day_and_reused(service: StandIn) -> None:
    """The vendor advises a day or more."""
    async with client_of(service) as tim:
        for _ in range(5):
            await tim.get_all_c2c_unread_msg_num("alice")
    (usersig,) = service.usersigs
    assert verify(usersig, APP, KEY, now=0).expire >= 86400


async def test_random_is_a_new_unsigned_32_bit_number_for_each_attempt(service: StandIn) -> None:
    """For calls and retries, over the whole range."""
    service.script.extend([error(10002)] * 5)
    async with client_of(service, rates={"get_c2c_unread_msg_num": 1000}) as tim:
        for _ in range(60):
            await tim.get_all_c2c_unread_msg_num("alice")
    numbers = [int(seen.query["random"]) for seen in service.seen]
    assert len(set(numbers)) == len(numbers) == 65
    assert all(0 <= number <= 0xFFFFFFFF for number in numbers)
    assert max(numbers) > 0x7FFFFFFF, "65 draws miss the upper half with a probability of 2**-65"


async def test_a_read_time_is_sent_as_a_string_of_seconds(service: StandIn) -> None:
    """From an int or an aware datetime of any zone; without a time there is no field."""
    east = dt.timezone(dt.timedelta(hours=8))
    async with client_of(service) as tim:
        await tim.admin_set_msg_read("alice", "bob", msg_read_time=1700000000)
        await tim.admin_set_msg_read("alice", "bob", msg_read_time=dt.datetime(2023, 11, 15, 6, 13, 20, tzinfo=east))
        await tim.admin_set_msg_read(
            "alice", "bob", msg_read_time=dt.datetime(2023, 11, 14, 22, 13, 20, 999999, tzinfo=dt.UTC)
        )
        await tim.admin_set_msg_read("alice", "bob")
    assert [body.get("MsgReadTime") for body in service.bodies] == ["1700000000"] * 3 + [None]
    assert "MsgReadTime" not in service.bodies[-1]


async def test_ids_of_any_script_arrive_unchanged(service: StandIn) -> None:
    """Also emoji, quotes, backslashes and control characters."""
    names = ["管理员", "😀", 'a"b\\c', "tab\tline\n", "é", " "]
    async with client_of(service) as tim:
        assert [*(await tim.get_c2c_unread_msg_num("管理员", names)).counts] == names
    assert service.bodies == [{"To_Account": "管理员", "Peer_Account": names}]


async def test_ten_peers_are_one_call_without_duplicates(service: StandIn) -> None:
    """In the order of their first occurrence."""
    peers = [f"user{number}" for number in range(10)]
    async with client_of(service) as tim:
        found = await tim.get_c2c_unread_msg_num("alice", iter(peers + peers[::-1] + peers))
    assert service.bodies == [{"To_Account": "alice", "Peer_Account": peers}]
    assert [*found.counts] == peers


async def test_a_repeated_sequence_number_is_sent_once(service: StandIn) -> None:
    async with client_of(service) as tim:
        found = await tim.get_group_msg_receipt("@TGS#1", [5, 3, 5, 3, 4])
    assert service.bodies == [{"GroupId": "@TGS#1", "MsgSeqList": [{"MsgSeq": 5}, {"MsgSeq": 3}, {"MsgSeq": 4}]}]
    assert [*found.receipts] == [5, 3, 4]


async def test_a_batch_of_238_peers_is_merged_from_24_calls(service: StandIn) -> None:
    """Each has at most 10 peers; the result has the given order, and an error for the unknown peer."""
    peers = [f"user{number}" for number in range(237)]
    asked = [*peers[:100], "unknown", *peers[100:]]
    async with client_of(service) as tim:
        found = await tim.batch.get_c2c_unread_msg_num("alice", asked + peers[:50])
    assert len(service.seen) == 24
    assert max(len(body["Peer_Account"]) for body in service.bodies) == 10
    assert sorted(peer for body in service.bodies for peer in body["Peer_Account"]) == sorted(asked)
    assert [*found.counts.items()] == [(peer, count_of(peer)) for peer in peers]
    assert found.errors == {"unknown": ItemError(70107)}


async def test_a_batch_of_1000_receipts_is_merged_from_20_calls(service: StandIn) -> None:
    """Each has 50 messages; the result has the given order, and errors for some messages."""
    seqs = [*range(1000, 0, -1)]
    async with client_of(service) as tim:
        found = await tim.batch.get_group_msg_receipt("@TGS#1", seqs + seqs[:100])
    assert len(service.seen) == 20
    assert {len(body["MsgSeqList"]) for body in service.bodies} == {50}
    assert [*found.receipts] == [seq for seq in seqs if seq % 100 != 99]
    assert found.receipts[13] == Receipt(3, 1)
    assert found.errors == {seq: ItemError(10062) for seq in seqs if seq % 100 == 99}


async def test_the_number_of_receipts_per_call_is_configurable(service: StandIn) -> None:
    """No maximum is documented."""
    async with client_of(service) as tim:
        found = await tim.batch.get_group_msg_receipt("@TGS#1", range(1, 11), chunk=4)
    assert sorted(len(body["MsgSeqList"]) for body in service.bodies) == [2, 4, 4]
    assert len(found.receipts) == 10


async def test_call_sends_the_body_and_returns_the_whole_answer(service: StandIn) -> None:
    """An empty body is sent as {}."""
    service.script.append(ok(GroupInfo=[{"GroupId": "g", "Type": "Public"}], New=None))
    async with client_of(service) as tim:
        answer = await tim.call("v4/openim/anything", {"A": [1, 2.5, None, True, {"b": "管"}]})
        await tim.call("/v4/openim/anything/", {})
    assert answer["GroupInfo"] == [{"GroupId": "g", "Type": "Public"}]
    assert answer["New"] is None
    assert [seen.path for seen in service.seen] == ["/v4/openim/anything"] * 2
    assert service.bodies == [{"A": [1, 2.5, None, True, {"b": "管"}]}, {}]


async def test_successive_calls_share_one_connection(service: StandIn) -> None:
    async with client_of(service) as tim:
        for method in METHODS:
            await method.run(tim)
    assert service.connections == 1


# Answers with fewer or more fields than the documented samples


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"ActionStatus": "OK"},
        {"Action1Status": "OK"},  # as one official sample spells it
        {"ActionStatus": "FAIL"},  # ErrorCode decides
        {"ActionStatus": None, "ErrorInfo": None, "RequestId": {"new": ["field"]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_the_error_code_alone_decides_on_success(service: StandIn, method: Method, extra: dict[str, Any]) -> None:
    """ActionStatus may be absent, misspelt or wrong; unknown fields are ignored."""
    plain: dict[str, Any] = {
        "AllC2CUnreadMsgNum": 7,
        "C2CUnreadMsgNumList": [
            {"Peer_Account": peer, "C2CUnreadMsgNum": count_of(peer), "New": [1]} for peer in ("bob", "carol")
        ],
        "GroupMsgReceiptList": [
            {"Code": 0, "MsgSeq": 1, "ReadNum": 1, "UnreadNum": 1, "New": {}},
            {"Code": 0, "MsgSeq": 2, "ReadNum": 2, "UnreadNum": 2},
        ],
        "IsFinish": 1,
        "UnreadList": [{"Unread_Account": "carol", "New": 1}],
        "CompleteFlag": 1,
        "SessionItem": [{"Type": 1, "To_Account": "bob", "MsgTime": 1700000000, "TopFlag": 1, "New": 1}],
    }
    answer = {"ErrorCode": 0, **extra, **plain}
    service.script.append(Reply(json.dumps(answer).encode()))
    async with client_of(service) as tim:
        found = await method.run(tim)
    assert found == (answer if method.name == "call" else method.result)


async def test_the_content_type_of_an_answer_is_ignored(service: StandIn) -> None:
    service.script.append(Reply(b'{"ErrorCode":0,"AllC2CUnreadMsgNum":3}', headers=(("Content-Type", "text/plain"),)))
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 3


async def test_peers_missing_from_the_answer_are_errors_not_counts_of_0(service: StandIn) -> None:
    """The errors have no code; a missing count is a KeyError."""
    service.script.append(ok())
    async with client_of(service) as tim:
        found = await tim.get_c2c_unread_msg_num("alice", ["bob", "carol"])
    assert found == C2CUnread({}, dict.fromkeys(["bob", "carol"], ItemError(None, "not in the answer")))
    with pytest.raises(KeyError):
        _ = found.counts["bob"]


async def test_a_partial_answer_has_counts_and_errors(service: StandIn) -> None:
    """One peer is counted, one failed, one is missing; a peer that was not requested is left out."""
    service.script.append(
        ok(
            C2CUnreadMsgNumList=[
                {"Peer_Account": "bob", "C2CUnreadMsgNum": 0},
                {"Peer_Account": "stranger", "C2CUnreadMsgNum": 9},
            ],
            ErrorList=[{"Peer_Account": "carol", "ErrorCode": 70107, "ErrorInfo": "no such account"}],
        )
    )
    async with client_of(service) as tim:
        found = await tim.get_c2c_unread_msg_num("alice", ["bob", "carol", "dave"])
    assert found.counts == {"bob": 0}
    assert found.errors == {
        "carol": ItemError(70107, "no such account"),
        "dave": ItemError(None, "not in the answer"),
    }


async def test_messages_missing_from_the_answer_are_errors(service: StandIn) -> None:
    """A missing receipt is an error without a code; a refused one keeps its code."""
    service.script.append(
        ok(GroupMsgReceiptList=[{"MsgSeq": 1, "ReadNum": 0, "UnreadNum": 4}, {"Code": 10062, "MsgSeq": 2}])
    )
    async with client_of(service) as tim:
        found = await tim.get_group_msg_receipt("g", [1, 2, 3])
    assert found == GroupMsgReceipts({1: Receipt(0, 4)}, {2: ItemError(10062), 3: ItemError(None, "not in the answer")})


async def test_a_missing_total_is_a_bad_response_without_a_retry(service: StandIn) -> None:
    """It is not 0; the call was carried out, and a retry would have the same answer."""
    service.script.append(ok())
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, BadResponse)
    assert str(failure).startswith("get_c2c_unread_msg_num: AllC2CUnreadMsgNum is missing from the answer")
    assert (failure.attempts, len(service.seen)) == (1, 1)
    assert (failure.status, failure.reaction, failure.outcome_unknown) == (200, Reaction.GIVE_UP, False)


async def test_the_command_of_an_endpoint_has_its_name_in_errors_and_its_whole_answer(service: StandIn) -> None:
    service.script.append(error(10007))
    async with client_of(service) as tim:
        failure = await failure_of(
            tim.call("v4/openim/admin_set_msg_read", {"Report_Account": "a", "Peer_Account": "b"})
        )
        answer = await tim.call("v4/openim/get_c2c_unread_msg_num", {"To_Account": "alice"})
    assert str(failure).startswith("admin_set_msg_read: ")
    assert (answer["ErrorCode"], answer["AllC2CUnreadMsgNum"]) == (0, 7)
