"""Each command over HTTP: its effects, answers and refusals."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from tim_async.emulator import Emulator, GroupType

from .support import (
    C2C_UNREAD,
    GROUP_INFO,
    MARK_READ,
    NOW,
    RECEIPT,
    RECEIPT_DETAIL,
    RECENT_CONTACTS,
    SET_UNREAD,
    Caller,
    Clock,
)


@pytest.fixture(autouse=True)
def filled(service: Emulator) -> None:
    state = service.state
    state.add_group("g", "Public", messages=50, members=["a", "b"])
    state.add_group("room", "AVChatRoom", messages=50, members=["a"])
    state.add_receipt("g", 7, read_num=1, unread_num=0)
    state.add_receipt("g", 9, readers=["b"])
    state.add_account("stranger")
    state.add_messages("a", "b", 3, at=NOW - 100)
    state.add_messages("a", "b", 2, at=NOW - 50)
    state.add_messages("a", "c", 1, at=NOW - 50)


def unread(**changes: Any) -> dict[str, Any]:
    return {"GroupId": "g", "Member_Account": "a", "UnreadMsgNum": 5, **changes}


def detail(**changes: Any) -> dict[str, Any]:
    return {"GroupId": "g", "MsgSeq": 9, "Filter": 0, "Cursor": "", "Count": 200, **changes}


def contacts_of(account: Any, **changes: Any) -> dict[str, Any]:
    start = dict.fromkeys(("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex"), 0)
    return {"From_Account": account, **start, "AssistFlags": 63, **changes}


async def assert_codes(call: Caller, path: str, expected: list[tuple[Any, int]]) -> None:
    """Compare the ErrorCode of each body with the expected one, all in one assertion."""
    assert [(body, await call.code(path, body)) for body, _ in expected] == expected


def without(body: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != field}


class TestSetUnreadMsgNum:
    async def test_sets_the_count_but_never_above_the_number_of_messages(self, call: Caller) -> None:
        for asked, kept in ((0, 0), (49, 49), (50, 50), (51, 50), (0, 0), (2**40, 50)):
            assert await call.fields(SET_UNREAD, unread(UnreadMsgNum=asked)) == {}
            assert call.service.state.unread_in_group("g", "a") == kept
            assert call.service.state.unread_in_group("g", "b") == 0

    async def test_counts_in_every_type_but_rooms_where_it_succeeds_without_effect(self, call: Caller) -> None:
        for group_type in get_args(GroupType):
            call.service.state.add_group(group_type, group_type, messages=9, members=["a"])
            is_room = group_type in ("ChatRoom", "Meeting", "AVChatRoom")
            for member in ("stranger", "nobody") if is_room else ():
                assert await call.fields(SET_UNREAD, unread(GroupId=group_type, Member_Account=member)) == {}
            assert await call.fields(SET_UNREAD, unread(GroupId=group_type)) == {}
            assert call.service.state.unread_in_group(group_type, "a") == (0 if is_room else 5)

    async def test_refuses_and_changes_nothing(self, call: Caller) -> None:
        refused: list[tuple[dict[str, Any], int]] = [
            ({"UnreadMsgNum": True}, 10004),
            ({"UnreadMsgNum": "5"}, 10004),
            ({"UnreadMsgNum": 5.0}, 10004),
            ({"UnreadMsgNum": -1}, 10004),
            ({"UnreadMsgNum": None}, 10004),
            ({"GroupId": 5}, 10004),
            ({"GroupId": ""}, 10004),
            ({"Member_Account": ["a"]}, 10004),
            ({"GroupId": "gone"}, 10010),
            ({"GroupId": "x" * 49}, 10015),
            ({"GroupId": "群"}, 10015),
            ({"GroupId": "g\n"}, 10015),
            ({"Member_Account": "nobody"}, 10019),
            ({"Member_Account": "stranger"}, 10007),
        ]
        await assert_codes(call, SET_UNREAD, [(unread(**changes), code) for changes, code in refused])
        await assert_codes(call, SET_UNREAD, [(without(unread(), field), 10004) for field in unread()])
        assert call.service.state.unread_in_group("g", "a") == 0


class TestAdminSetMsgRead:
    async def test_reads_everything_before_the_time_and_nothing_sent_at_it(self, call: Caller) -> None:
        body = {"Report_Account": "a", "Peer_Account": "b", "MsgReadTime": str(NOW - 50)}
        assert await call.fields(MARK_READ, body) == {}
        assert call.service.state.unread("a", "b") == 2
        assert call.service.state.unread("a", "c") == 1
        assert call.service.state.read_time("a", "b") == NOW - 50

    async def test_reads_everything_up_to_now_without_a_time(self, call: Caller, clock: Clock) -> None:
        await call.fields(MARK_READ, {"Report_Account": "a", "Peer_Account": "b"})
        assert call.service.state.unread("a", "b") == 0
        assert call.service.state.read_time("a", "b") == clock.now

    async def test_never_makes_read_messages_unread(self, call: Caller) -> None:
        await call.fields(MARK_READ, {"Report_Account": "a", "Peer_Account": "b"})
        body = {"Report_Account": "a", "Peer_Account": "b", "MsgReadTime": "1"}
        await call.fields(MARK_READ, body)
        assert call.service.state.unread("a", "b") == 0
        assert call.service.state.read_time("a", "b") == NOW

    async def test_does_not_touch_the_other_side(self, call: Caller) -> None:
        call.service.state.add_messages("b", "a", 4, at=NOW - 1)
        await call.fields(MARK_READ, {"Report_Account": "a", "Peer_Account": "b"})
        assert call.service.state.unread("b", "a") == 4

    async def test_takes_the_time_only_as_a_string_of_seconds(self, call: Caller) -> None:
        times = (NOW, None, "", "-1", "1.5", "\u0661", " 1", str(NOW * 1000), "9" * 5000, [1])
        body = {"Report_Account": "a", "Peer_Account": "b"}
        await assert_codes(call, MARK_READ, [({**body, "MsgReadTime": time}, 90001) for time in times])
        assert call.service.state.unread("a", "b") == 5

    async def test_needs_both_accounts_to_exist(self, call: Caller) -> None:
        missing = (None, "", 5, "nobody")
        await assert_codes(
            call,
            MARK_READ,
            [({"Report_Account": account, "Peer_Account": "b"}, 90008) for account in missing]
            + [({"Report_Account": "a", "Peer_Account": account}, 90003) for account in missing],
        )


class TestGetC2CUnreadMsgNum:
    async def test_counts_all_without_peers(self, call: Caller) -> None:
        assert await call.fields(C2C_UNREAD, {"To_Account": "a"}) == {"AllC2CUnreadMsgNum": 6}
        assert await call.fields(C2C_UNREAD, {"To_Account": "stranger"}) == {"AllC2CUnreadMsgNum": 0}

    async def test_counts_by_peer_and_names_the_unknown_apart(self, call: Caller) -> None:
        fields = await call.fields(
            C2C_UNREAD, {"To_Account": "a", "Peer_Account": ["b", "nobody", "c", "stranger", "b"]}
        )
        counts = {item["Peer_Account"]: item["C2CUnreadMsgNum"] for item in fields["C2CUnreadMsgNumList"]}
        assert counts == {"b": 5, "c": 1, "stranger": 0}
        assert fields["ErrorList"] == [{"Peer_Account": "nobody", "ErrorCode": 70107}]

    async def test_leaves_out_a_list_that_would_be_empty(self, call: Caller) -> None:
        assert set(await call.fields(C2C_UNREAD, {"To_Account": "a", "Peer_Account": ["b"]})) == {"C2CUnreadMsgNumList"}
        assert set(await call.fields(C2C_UNREAD, {"To_Account": "a", "Peer_Account": ["x"]})) == {"ErrorList"}

    async def test_keeps_no_order(self, call: Caller) -> None:
        peers = [f"peer{number}" for number in range(10)]
        call.service.state.add_account(*peers)
        fields = await call.fields(C2C_UNREAD, {"To_Account": "a", "Peer_Account": peers})
        answered = [item["Peer_Account"] for item in fields["C2CUnreadMsgNumList"]]
        assert sorted(answered) == peers
        assert answered != peers

    async def test_takes_one_to_ten_peers_that_are_strings_of_an_account_that_exists(self, call: Caller) -> None:
        peers = [([f"p{number}" for number in range(most)], code) for most, code in ((0, 90001), (10, 0), (11, 90018))]
        others = ("b", None, [5], [""], {"b": 1})
        await assert_codes(
            call,
            C2C_UNREAD,
            [({"To_Account": "a", "Peer_Account": names}, code) for names, code in peers]
            + [({"To_Account": "a", "Peer_Account": names}, 90001) for names in others]
            + [(body, 90003) for body in ({}, {"To_Account": 5}, {"To_Account": "nobody"}, {"to_account": "a"})],
        )

    async def test_answers_an_id_that_has_no_utf8_form(self, call: Caller) -> None:
        _, body = await call.raw(C2C_UNREAD, b'{"To_Account":"a","Peer_Account":["\\ud800"]}')
        assert b'"\\ud800"' in body


class TestGetGroupMsgReceipt:
    async def test_has_numbers_only_for_messages_with_a_receipt(self, call: Caller) -> None:
        fields = await call.fields(RECEIPT, {"GroupId": "g", "MsgSeqList": [{"MsgSeq": 7}, {"MsgSeq": 8}]})
        assert fields == {
            "GroupMsgReceiptList": [
                {"MsgSeq": 7, "Code": 0, "ReadNum": 1, "UnreadNum": 0},
                {"MsgSeq": 8, "Code": 10062},
            ]
        }

    async def test_takes_any_number_of_messages_by_default(self, call: Caller, clock: Clock) -> None:
        body = {"GroupId": "g", "MsgSeqList": [{"MsgSeq": n} for n in range(1, 52)]}
        assert len((await call.fields(RECEIPT, body))["GroupMsgReceiptList"]) == 51
        async with Emulator(max_msg_seqs=50, clock=clock) as capped:
            capped.state.add_group("g")
            assert await Caller(capped, call.session).code(RECEIPT, body) == 10004

    async def test_refuses_lists_of_another_shape_and_groups_without_receipts(self, call: Caller) -> None:
        call.service.state.add_group("big", members=[f"m{number}" for number in range(201)])
        lists: tuple[Any, ...] = (
            None,
            [],
            {},
            "7",
            [7],
            [{}],
            *([{"MsgSeq": seq}] for seq in ("7", True, 0)),
            [{"MsgSeq": 7}, 8],
        )
        groups = [("gone", 10010), ("é", 10015), (5, 10004), ("room", 10061), ("big", 10060)]
        await assert_codes(
            call,
            RECEIPT,
            [({"GroupId": "g", "MsgSeqList": seqs}, 10004) for seqs in lists]
            + [({"GroupId": group, "MsgSeqList": [{"MsgSeq": 7}]}, code) for group, code in groups],
        )


class TestGetGroupMsgReceiptDetail:
    async def test_lists_the_members_who_have_read_the_message_or_those_who_have_not(self, call: Caller) -> None:
        read = await call.fields(RECEIPT_DETAIL, detail())
        unread = await call.fields(RECEIPT_DETAIL, detail(Filter=1))
        assert without(read, "Cursor") == {"IsFinish": 1, "ReadList": [{"Read_Account": "b"}]}
        assert without(unread, "Cursor") == {"IsFinish": 1, "UnreadList": [{"Unread_Account": "a"}]}

    async def test_agrees_with_the_numbers_of_the_receipt_as_members_read(self, call: Caller) -> None:
        call.service.state.mark_read_in_group("g", 9, "a", "b")
        numbers = await call.fields(RECEIPT, {"GroupId": "g", "MsgSeqList": [{"MsgSeq": 9}]})
        assert numbers["GroupMsgReceiptList"] == [{"MsgSeq": 9, "Code": 0, "ReadNum": 2, "UnreadNum": 0}]
        read = await call.fields(RECEIPT_DETAIL, detail())
        assert read["ReadList"] == [{"Read_Account": "a"}, {"Read_Account": "b"}]
        assert (await call.fields(RECEIPT_DETAIL, detail(Filter=1)))["UnreadList"] == []

    async def test_refuses_a_cursor_of_another_list(self, call: Caller) -> None:
        call.service.state.add_group("other", members=["a"])
        call.service.state.add_receipt("other", 9)
        cursor = (await call.fields(RECEIPT_DETAIL, detail()))["Cursor"]
        others: list[dict[str, Any]] = [{"GroupId": "other"}, {"MsgSeq": 7}, {"Filter": 1}]
        await assert_codes(
            call,
            RECEIPT_DETAIL,
            [(detail(Cursor=cursor), 0), *((detail(Cursor=cursor, **changes), 10004) for changes in others)],
        )

    async def test_refuses_a_cursor_of_another_emulator_or_a_changed_one(self, call: Caller, clock: Clock) -> None:
        cursor = (await call.fields(RECEIPT_DETAIL, detail()))["Cursor"]
        for changed in (cursor + "0", cursor[:-1], cursor.upper() + " ", "0", "1-", "-", "\u0661-", "9" * 5000):
            assert await call.code(RECEIPT_DETAIL, detail(Cursor=changed)) == 10004
        async with Emulator(clock=clock) as other:
            other.state.add_group("g", members=["a", "b"])
            other.state.add_receipt("g", 9, readers=["b"])
            assert await Caller(other, call.session).code(RECEIPT_DETAIL, detail(Cursor=cursor)) == 10004

    async def test_refuses_undocumented_values(self, call: Caller) -> None:
        call.service.state.add_group("big", members=[f"m{number}" for number in range(201)])
        refused: list[tuple[dict[str, Any], int]] = [
            ({"GroupId": 5}, 10004),
            ({"GroupId": ""}, 10004),
            ({"GroupId": "gone"}, 10010),
            ({"GroupId": "x" * 49}, 10015),
            ({"GroupId": "room"}, 10061),
            ({"GroupId": "big"}, 10060),
            ({"MsgSeq": 8}, 10062),
            ({"MsgSeq": 1000}, 10062),
            ({"MsgSeq": 0}, 10004),
            ({"MsgSeq": "9"}, 10004),
            ({"MsgSeq": True}, 10004),
            ({"Filter": 2}, 10004),
            ({"Filter": -1}, 10004),
            ({"Filter": True}, 10004),
            ({"Cursor": None}, 10004),
            ({"Cursor": 0}, 10004),
            ({"Count": 0}, 10004),
            ({"Count": 201}, 10004),
            ({"Count": "200"}, 10004),
        ]
        await assert_codes(call, RECEIPT_DETAIL, [(detail(**changes), code) for changes, code in refused])
        await assert_codes(call, RECEIPT_DETAIL, [(without(detail(), field), 10004) for field in detail()])

    async def test_serves_larger_groups_by_an_option(self, call: Caller, clock: Clock) -> None:
        members = [f"m{number}" for number in range(1234)]
        async with Emulator(max_receipt_members=1234, clock=clock) as large:
            large.state.add_group("g", members=members)
            large.state.add_receipt("g", 9, readers=members)
            page = await Caller(large, call.session).fields(RECEIPT_DETAIL, detail())
            assert (len(page["ReadList"]), page["IsFinish"]) == (200, 0)
            assert await Caller(large, call.session).code(RECEIPT, {"GroupId": "g", "MsgSeqList": [{"MsgSeq": 9}]}) == 0


class TestGetRecentContactList:
    async def test_lists_peers_of_both_directions_and_groups_with_pinned_ones_first(self, call: Caller) -> None:
        state = call.service.state
        state.add_messages("d", "a", at=NOW - 10)
        state.add_recent_contact("a", "room", kind="group", at=NOW - 500, pinned=True)
        page = await call.fields(RECENT_CONTACTS, contacts_of("a"))
        assert page["SessionItem"] == [
            {"Type": 2, "GroupId": "room", "MsgTime": NOW - 500, "TopFlag": 1},
            {"Type": 2, "GroupId": "g", "MsgTime": NOW, "TopFlag": 0},
            {"Type": 1, "To_Account": "d", "MsgTime": NOW - 10, "TopFlag": 0},
            {"Type": 1, "To_Account": "b", "MsgTime": NOW - 50, "TopFlag": 0},
            {"Type": 1, "To_Account": "c", "MsgTime": NOW - 50, "TopFlag": 0},
        ]
        assert page["CompleteFlag"] == 1

    async def test_has_pages_of_100_by_default(self, call: Caller) -> None:
        for number in range(101):
            call.service.state.add_recent_contact("me", f"p{number}", at=NOW - number)
        page = await call.fields(RECENT_CONTACTS, contacts_of("me"))
        assert [item["To_Account"] for item in page["SessionItem"]] == [f"p{n}" for n in range(100)]
        assert page["CompleteFlag"] == 0

    async def test_is_empty_for_an_account_without_conversations(self, call: Caller) -> None:
        page = await call.fields(RECENT_CONTACTS, contacts_of("stranger"))
        positions = dict.fromkeys(("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex"), 0)
        assert page == {"SessionItem": [], "CompleteFlag": 1, **positions}

    async def test_needs_every_number_and_an_account_that_exists(self, call: Caller) -> None:
        await assert_codes(
            call, RECENT_CONTACTS, [(contacts_of(account), 90008) for account in (None, "", 5, "nobody")]
        )
        for field in contacts_of("a"):
            missing = 90008 if field == "From_Account" else 90001
            await assert_codes(call, RECENT_CONTACTS, [(without(contacts_of("a"), field), missing)])
        for field in without(contacts_of("a"), "From_Account"):
            values = [(value, 90001) for value in (None, "0", -1, True, 0.0, 2**63)] + [(2**63 - 1, 0)]
            await assert_codes(
                call, RECENT_CONTACTS, [(contacts_of("a", **{field: value}), code) for value, code in values]
            )


class TestGetGroupInfo:
    async def test_answers_each_group_in_turn_with_its_own_code(self, call: Caller) -> None:
        fields = await call.fields(
            GROUP_INFO,
            {"GroupIdList": ["room", "gone"], "ResponseFilter": {"GroupBaseInfoFilter": ["Type"]}},
        )
        room, gone = fields["GroupInfo"]
        assert room == {"GroupId": "room", "ErrorCode": 0, "ErrorInfo": "", "Type": "AVChatRoom"}
        assert (gone["GroupId"], gone["ErrorCode"]) == ("gone", 10010)

    async def test_has_every_field_it_knows_without_a_filter(self, call: Caller, clock: Clock) -> None:
        call.service.state.add_group("h", "Work", messages=9, members=["a"], at=NOW - 5, name="H", owner="o")
        call.service.state.set_unread_in_group("h", "a", 4)
        clock.now += 60
        call.service.state.add_members("h", "late")
        (group,) = (await call.fields(GROUP_INFO, {"GroupIdList": ["h"]}))["GroupInfo"]
        listed = {member["Member_Account"]: member for member in group.pop("MemberList")}
        assert group == {
            "GroupId": "h",
            "ErrorCode": 0,
            "ErrorInfo": "",
            "Type": "Work",
            "Name": "H",
            "Appid": 1400000000,
            **dict.fromkeys(("Introduction", "Notification", "FaceUrl"), ""),
            "Owner_Account": "o",
            "CreateTime": NOW,
            "LastInfoTime": NOW,
            "LastMsgTime": NOW - 5,
            "NextMsgSeq": 10,
            "MemberNum": 3,
            "MaxMemberNum": 6000,
            "ApplyJoinOption": "DisableApply",
            "ShutUpAllMember": "Off",
        }
        assert {account: (member["Role"], member["MsgSeq"]) for account, member in listed.items()} == {
            "o": ("Owner", 9),
            "a": ("Member", 5),
            "late": ("Member", 9),
        }

    async def test_a_group_has_its_id_as_name_and_no_owner_by_default(self, call: Caller) -> None:
        (group,) = (await call.fields(GROUP_INFO, {"GroupIdList": ["g"]}))["GroupInfo"]
        assert (group["Name"], group["Owner_Account"], group["ApplyJoinOption"]) == ("g", "", "NeedPermission")

    @pytest.mark.parametrize(
        ("response_filter", "base", "members"),
        [
            ({}, None, None),
            ({"GroupBaseInfoFilter": ["Name", "MemberNum", "Name", "Nothing"]}, {"Name", "MemberNum"}, None),
            ({"GroupBaseInfoFilter": []}, set(), None),
            ({"GroupBaseInfoFilter": None, "MemberInfoFilter": None}, None, None),
            ({"MemberInfoFilter": ["Account", "Role"]}, None, {"Role"}),
            ({"GroupBaseInfoFilter": ["Type"], "MemberInfoFilter": []}, {"Type"}, set()),
            ({"AppDefinedDataFilter_Group": ["x"], "AppDefinedDataFilter_GroupMember": ["y"]}, None, None),
        ],
    )
    async def test_has_the_fields_that_the_filter_names(
        self, call: Caller, response_filter: dict[str, Any], base: set[str] | None, members: set[str] | None
    ) -> None:
        """Without a filter for them, all of the group's own fields; members only with a filter for them."""
        body = {"GroupIdList": ["g"], "ResponseFilter": response_filter}
        (group,) = (await call.fields(GROUP_INFO, body))["GroupInfo"]
        listed = group.pop("MemberList", None)
        own = group.keys() - {"GroupId", "ErrorCode", "ErrorInfo"}
        assert own == base if base is not None else len(own) == 15
        assert (listed is None) == (members is None)
        for member in listed or ():
            assert member.keys() == {"Member_Account"} | (members or set())

    async def test_a_live_room_lists_no_members(self, call: Caller) -> None:
        for body in ({"GroupIdList": ["room"]}, {"GroupIdList": ["room"], "ResponseFilter": {"MemberInfoFilter": []}}):
            (group,) = (await call.fields(GROUP_INFO, body))["GroupInfo"]
            assert ("MemberList" in group, group["MemberNum"]) == (False, 1)

    async def test_refuses_a_body_of_another_shape(self, call: Caller) -> None:
        filters: tuple[Any, ...] = (
            [],
            {"GroupBaseInfoFilter": "Type"},
            {"GroupBaseInfoFilter": [5]},
            {"MemberInfoFilter": 5},
            None,
        )
        lists: tuple[Any, ...] = ([], [5], ["g"] * 51, "g", None)
        await assert_codes(
            call,
            GROUP_INFO,
            [({}, 10004)]
            + [({"GroupIdList": ids}, 10004) for ids in lists]
            + [({"GroupIdList": ["g"], "ResponseFilter": names}, 10004) for names in filters]
            + [({"GroupIdList": ["g"] * 50, "ResponseFilter": {}}, 0)],
        )
