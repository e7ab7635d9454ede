"""The events, one class for each webhook about read state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_VERSION = re.compile(r"v[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Any webhook: the fields that all have, and the event of a command without a class of its own.

    Attributes:
        callback_command: the ``CallbackCommand``, e.g. ``"C2C.CallbackAfterSendMsg"``.
        sdk_app_id: the ``SdkAppid`` of the query, to compare with your own; None if absent.
        client_ip: the ``ClientIP`` of the query; "" if absent.
        opt_platform: the ``OptPlatform`` of the query, e.g. ``"RESTAPI"`` or ``"iOS"``; "" if absent.
        event_time: the ``EventTime``, unix milliseconds; None if absent, or if a command without a class of its own
            has it in another form.
        body: the whole JSON object, unlisted fields included; not part of ``repr()`` and the hash.
    """

    callback_command: str
    sdk_app_id: int | None = None
    client_ip: str = ""
    opt_platform: str = ""
    event_time: int | None = None
    body: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MsgReport(Event):
    """``C2C.CallbackAfterMsgReport``: an account has read its one-to-one messages with a peer.

    https://www.tencentcloud.com/document/product/1047/43465

    Attributes:
        report_account: the account that has read the messages.
        peer_account: the account at the other end of the conversation.
        last_read_time: the time up to which messages are read, unix seconds.
        unread_msg_num: the unread messages of ``report_account`` in all one-to-one conversations; None if absent.
    """

    callback_command: str = "C2C.CallbackAfterMsgReport"
    report_account: str
    peer_account: str
    last_read_time: int
    unread_msg_num: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MsgReceipt:
    """The read receipt of one group message, as a webhook reports it.

    Attributes:
        msg_seq: the message's sequence number in its group.
        read_num: the number of members who have read it.
        unread_num: the number of members who have not.
        members: the accounts that have just read it; may be empty.
    """

    msg_seq: int
    read_num: int
    unread_num: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReceipt(Event):
    """``Group.CallbackAfterReadReceipt``: members have read group messages that were sent with a receipt.

    https://www.tencentcloud.com/document/product/1047/60395

    Attributes:
        group_id: the group.
        type: its type, e.g. ``"Public"``.
        receipts: the receipts, in the order of the webhook.
    """

    callback_command: str = "Group.CallbackAfterReadReceipt"
    group_id: str
    type: str
    receipts: tuple[MsgReceipt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOverLimit(Event):
    """``Alert.RequestOverLimit``: the calls of one command exceed 80 % of its limit; for ``tim.on_alert(event)``.

    https://www.tencentcloud.com/document/product/1047/60256

    Attributes:
        service_name: the command's service, e.g. ``"openim"``.
        command: the name of the command, e.g. ``"admin_set_msg_read"``.
        request: the rate that the service has counted, calls/s.
        limit: the rate that the service allows, calls/s; 1 or more.
    """

    callback_command: str = "Alert.RequestOverLimit"
    service_name: str
    command: str
    request: int
    limit: int

    @property
    def path(self) -> str:
        """The command as a path below the host, e.g. ``"v4/openim/admin_set_msg_read"``.

        The vendor calls ``ServiceName`` an internal name and documents it without a version: ``v4`` is prepended if
        there is none, and superfluous slashes are dropped.  The path need not be that of a known endpoint.
        """
        parts = [part for part in f"{self.service_name}/{self.command}".split("/") if part]
        if not parts or not _VERSION.fullmatch(parts[0]):
            parts.insert(0, "v4")
        return "/".join(parts)
