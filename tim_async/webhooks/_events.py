"""What a webhook says, as an object of its own class."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_VERSION = re.compile(r"v[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Any webhook: what all of them have in common, and all there is of a command that has no class of its own.

    Attributes:
        callback_command: the ``CallbackCommand``, e.g. ``"C2C.CallbackAfterSendMsg"``.
        sdk_app_id: the ``SdkAppid`` of the query, for you to compare with your own; None when it was absent.
        client_ip: the ``ClientIP`` of the query, as it was sent; "" when it was absent.
        opt_platform: the ``OptPlatform`` of the query, e.g. ``"RESTAPI"`` or ``"iOS"``; "" when it was absent.
        event_time: the ``EventTime``, unix milliseconds; None when it was absent.  A command without a class of its
            own may have it in another form; it is then in ``body`` alone.
        body: the whole JSON object as it was received, with the fields that are not listed here.  Left out of
            ``repr()`` and of the hash.
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
        report_account: whose messages became read.
        peer_account: the other side of the conversation.
        last_read_time: everything up to it is read, unix seconds.
        unread_msg_num: the one-to-one messages that ``report_account`` has still unread, over all conversations;
            None when the service did not say.
    """

    callback_command: str = "C2C.CallbackAfterMsgReport"
    report_account: str
    peer_account: str
    last_read_time: int
    unread_msg_num: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MsgReceipt:
    """The receipt of one group message, as a webhook tells it.

    Attributes:
        msg_seq: the message's sequence number in its group.
        read_num: members who have read it.
        unread_num: members who have not.
        members: the accounts whose reading caused this event; empty when the service named none.
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
        receipts: the messages, in the order of the webhook.
    """

    callback_command: str = "Group.CallbackAfterReadReceipt"
    group_id: str
    type: str
    receipts: tuple[MsgReceipt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOverLimit(Event):
    """``Alert.RequestOverLimit``: the calls to one command are over 80 % of its limit; for ``tim.on_alert(event)``.

    https://www.tencentcloud.com/document/product/1047/60256

    Attributes:
        service_name: the service the command belongs to, e.g. ``"openim"``.
        command: the command's own name, e.g. ``"admin_set_msg_read"``; the webhook's is ``callback_command``.
        request: the calls a second the service has counted.
        limit: the calls a second it allows, 1 or more.
    """

    callback_command: str = "Alert.RequestOverLimit"
    service_name: str
    command: str
    request: int
    limit: int

    @property
    def path(self) -> str:
        """The command as a path below the host, e.g. ``"v4/openim/admin_set_msg_read"``.

        The vendor calls ``ServiceName`` an internal name and shows it without a version: ``v4`` is put before one
        that has none, and slashes too many are dropped.  A path of no known endpoint is possible; never an exception.
        """
        parts = [part for part in f"{self.service_name}/{self.command}".split("/") if part]
        if not parts or not _VERSION.fullmatch(parts[0]):
            parts.insert(0, "v4")
        return "/".join(parts)
