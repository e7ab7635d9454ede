"""The four calls of the benchmarks: command, body, and the stand-in server's answer.

Commands and fields are written out again, from the vendor's documents and not from tim_async, so that the benchmarks
do not share its mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMMANDS = {
    "set_unread_msg_num": "v4/group_open_http_svc/set_unread_msg_num",
    "admin_set_msg_read": "v4/openim/admin_set_msg_read",
    "get_c2c_unread_msg_num": "v4/openim/get_c2c_unread_msg_num",
    "get_group_msg_receipt": "v4/group_open_http_svc/get_group_msg_receipt",
}
"""The paths below the host, by method name."""

NAMES = tuple(COMMANDS)

OK = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}
TOO_FAST = {"ActionStatus": "FAIL", "ErrorInfo": "over the calls-a-second limit", "ErrorCode": 60011}


def body(name: str, serial: int) -> dict[str, Any]:
    """Make the body of call number `serial` of the endpoint."""
    match name:
        case "set_unread_msg_num":
            return {"GroupId": "group", "Member_Account": f"member{serial}", "UnreadMsgNum": 1}
        case "admin_set_msg_read":
            return {"Report_Account": f"member{serial}", "Peer_Account": "peer"}
        case "get_c2c_unread_msg_num":
            return {"To_Account": f"member{serial}", "Peer_Account": ["peer1", "peer2"]}
        case "get_group_msg_receipt":
            return {"GroupId": "group", "MsgSeqList": [{"MsgSeq": serial + 1}]}
    raise ValueError(f"no such endpoint: {name}")


def answer(path: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Make the service's answer to an accepted call."""
    if path.endswith("/get_c2c_unread_msg_num"):
        peers = sent.get("Peer_Account")
        if peers is None:
            return {**OK, "AllC2CUnreadMsgNum": 1}
        return {**OK, "C2CUnreadMsgNumList": [{"Peer_Account": peer, "C2CUnreadMsgNum": 1} for peer in peers]}
    if path.endswith("/get_group_msg_receipt"):
        receipts = [
            {"Code": 0, "MsgSeq": wanted["MsgSeq"], "ReadNum": 1, "UnreadNum": 1} for wanted in sent["MsgSeqList"]
        ]
        return {**OK, "GroupMsgReceiptList": receipts}
    if path.endswith("/get_group_info"):
        groups = [
            {"GroupId": group_id, "ErrorCode": 0, "Type": "Public", "NextMsgSeq": 1000}
            for group_id in sent["GroupIdList"]
        ]
        return {**OK, "GroupInfo": groups}
    return OK
