"""The description of a group in the answer to ``get_group_info``.

https://www.tencentcloud.com/document/product/1047/34961
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tim_async.emulator._groups import Group

_JOINING = {"Private": "DisableApply", "Work": "DisableApply", "Public": "NeedPermission"}
_MAX_MEMBERS = 6000


def describe(group: Group, sdk_app_id: int, response_filter: Mapping[str, list[str] | None] | None) -> dict[str, Any]:
    """Return the fields of a group that a ``ResponseFilter`` selects.

    Without ``GroupBaseInfoFilter`` these are all fields of the group itself; without ``MemberInfoFilter`` members are
    listed only if there is no filter at all.  An AVChatRoom lists no members.
    """
    filters = response_filter or {}
    base, of_members = filters.get("GroupBaseInfoFilter"), filters.get("MemberInfoFilter")
    fields = _only(_base(group, sdk_app_id), base)
    if group.type != "AVChatRoom" and (response_filter is None or of_members is not None):
        fields["MemberList"] = [
            {"Member_Account": account, **_only(_member(group, account), of_members)} for account in group.unread
        ]
    return fields


def _base(group: Group, sdk_app_id: int) -> dict[str, Any]:
    created, last = int(group.created_at), int(group.last_message_at)
    return {
        "Type": group.type,
        "Name": group.name,
        "Appid": sdk_app_id,
        "Introduction": "",
        "Notification": "",
        "FaceUrl": "",
        "Owner_Account": group.owner,
        "CreateTime": created,
        "LastInfoTime": created,
        "LastMsgTime": last,
        "NextMsgSeq": group.messages + 1,
        "MemberNum": len(group.unread),
        "MaxMemberNum": _MAX_MEMBERS,
        "ApplyJoinOption": _JOINING.get(group.type, "FreeAccess"),
        "ShutUpAllMember": "Off",
    }


def _member(group: Group, account: str) -> dict[str, Any]:
    return {
        "Role": "Owner" if account == group.owner else "Member",
        "MsgSeq": group.messages - group.unread[account],
        "MsgFlag": "AcceptAndNotify",
    }


def _only(fields: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    return fields if names is None else {name: fields[name] for name in names if name in fields}
