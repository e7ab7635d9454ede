"""What the service tells an app by itself: webhooks about read state, checked and read without any I/O.

https://www.tencentcloud.com/document/product/1047/34354

A web framework hands over the query and the body; `verify` says whether the service sent them, `parse` makes an
event of them, and `ANSWER` is what to answer with, within 2 s::

    verify(token, request.query, time.time())
    event = parse(request.query, await request.read())
    if isinstance(event, ReadReceipt): ...

Everything that can be wrong with a request raises `WebhookError` and nothing else; answer such a one with a 4xx
status.  `TypeError` and `ValueError` are about the caller's own arguments.

**The signature does not cover the body**, nor anything of the query but the time: whoever sees one signed request
can send it again within the minute, with any body.  Only HTTPS keeps others from seeing it, so take webhooks by HTTPS
alone, and keep their URLs out of logs.  Compare each event's ``sdk_app_id`` with your own, as the vendor asks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from .errors import TIMError

__all__ = [
    "ANSWER",
    "MAX_AGE",
    "Event",
    "MsgReceipt",
    "MsgReport",
    "Query",
    "ReadReceipt",
    "RequestOverLimit",
    "WebhookError",
    "parse",
    "verify",
]

Query: TypeAlias = Mapping[str, str | Sequence[str]]
"""A request's query parameters, decoded: a dict, a framework's mapping, or what ``urllib.parse.parse_qs`` makes."""

MAX_AGE: Final = 60
"""Seconds that ``RequestTime`` may be from now, before or after; exactly so many is still in time."""

ANSWER: Final = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'
"""The body of the answer to every webhook about something that has happened; its type is ``application/json``."""

# A time has 10 digits, in ms 13; the bound keeps int() and what is computed with it cheap and exact.
_TIME = re.compile(r"[0-9]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1
_VERSION = re.compile(r"v[0-9]+")


class WebhookError(TIMError):
    """A webhook that is not to be believed, or cannot be read.

    Its text names the cause and is fit for logs: it holds neither the token nor the signature that would have been
    right, and nothing of the body.
    """


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


def verify(token: str, query: Query, now: float | None = None) -> Literal[True]:
    """Make sure that the service sent a webhook, and within the last minute.

    Nothing needs to be done with what this returns: **whatever is wrong raises**, so a forgotten ``if`` lets nothing
    pass.  The true value is there for ``assert verify(…)`` and ``if verify(…)``.

    ``Sign`` is the hex SHA-256 of the token followed by ``RequestTime``, in lower case as the vendor writes it.  One is
    computed and compared in constant time for every request of the right form, also for one that is too old.

    It covers **neither the body nor the rest of the query**: whoever sees one signed request can, for a minute, send
    another body with it.  Take webhooks by HTTPS alone.  Nor does a ``Sign`` seen before mean a request sent again:
    all webhooks of one second have the same.

    https://www.tencentcloud.com/document/product/1047/34354

    Args:
        token: the token set up for webhook authentication in the console.
        query: the request's query parameters, decoded; Starlette's, aiohttp's and Django's mappings do as they are.
        now: unix seconds to judge ``RequestTime`` by; None for the machine's clock.

    Returns:
        True.

    Raises:
        WebhookError: ``Sign`` or ``RequestTime`` is missing, there twice or malformed; ``RequestTime`` is over
            60 s from now, either way; or ``Sign`` is not what the token gives.
        TypeError: an argument of the wrong type.
        ValueError: the token is empty or cannot be written in UTF-8, or ``now`` can be no time.
    """
    secret = _token(token)
    _check_query(query)
    moment = time.time() if now is None else _moment(now)

    sign = _required(query, "Sign")
    request_time = _required(query, "RequestTime")
    if not _TIME.fullmatch(request_time):
        raise WebhookError("RequestTime is not a time in unix seconds")

    # Both are worked out before either decides: a late request takes as long as a forged one, and looks the same
    # whether or not its signature was right.
    expected = hashlib.sha256(secret + request_time.encode("ascii")).hexdigest()
    genuine = hmac.compare_digest(expected.encode("ascii"), sign.encode("utf-8"))
    away = moment - int(request_time)
    if abs(away) > MAX_AGE:
        raise WebhookError(f"RequestTime is {abs(away):.1f} s {'ago' if away > 0 else 'ahead'}, over {MAX_AGE} s")
    if not genuine:
        raise WebhookError("Sign is not what the token and RequestTime give")
    return True


def parse(query: Query, body: bytes | bytearray | str) -> Event:
    """Read a webhook.  Call `verify` first: this trusts what it is given.

    Numbers may be written as JSON numbers or as strings of digits; the vendor's samples have both.  Unknown fields
    are kept in the event's ``body`` and do no harm.

    https://www.tencentcloud.com/document/product/1047/34354

    Args:
        query: the request's query parameters, as for `verify`.
        body: the request's body; bytes are UTF-8.

    Returns:
        A `MsgReport`, `ReadReceipt` or `RequestOverLimit`; a plain `Event` for any other command.

    Raises:
        WebhookError: the body is no JSON object, a documented field is missing or of the wrong type, or query and
            body name different commands.
        TypeError: an argument of the wrong type.
    """
    _check_query(query)
    document = _document(body)
    command = _command(query, document)
    sdk_app_id = _one(query, "SdkAppid")
    common: dict[str, Any] = {
        "callback_command": command,
        "sdk_app_id": None if sdk_app_id is None else _number(sdk_app_id, "SdkAppid"),
        "client_ip": _one(query, "ClientIP") or "",
        "opt_platform": _one(query, "OptPlatform") or "",
        "body": document,
    }
    read = _READERS.get(command)
    if read is None:
        # Nothing is known of these: what is no number of milliseconds may be right for that command.
        return Event(event_time=_number_or_none(document.get("EventTime")), **common)
    return read(document, event_time=_optional_count(document, "EventTime"), **common)


def _msg_report(document: Mapping[str, Any], **common: Any) -> MsgReport:
    return MsgReport(
        report_account=_name(document, "Report_Account"),
        peer_account=_name(document, "Peer_Account"),
        last_read_time=_count(document, "LastReadTime"),
        unread_msg_num=_optional_count(document, "UnreadMsgNum"),
        **common,
    )


def _read_receipt(document: Mapping[str, Any], **common: Any) -> ReadReceipt:
    return ReadReceipt(
        group_id=_name(document, "GroupId"),
        type=_str(document, "Type"),
        receipts=tuple(
            MsgReceipt(
                msg_seq=_count(row, "MsgSeq"),
                read_num=_count(row, "ReadNum"),
                unread_num=_count(row, "UnreadNum"),
                # Sending a message with a receipt is announced too, and nobody has read that yet.
                members=tuple(
                    _name(member, "Member_Account") for member in _rows(row, "ReadReceiptMembers", required=False)
                ),
            )
            for row in _rows(document, "GroupMsgReceiptList")
        ),
        **common,
    )


def _request_over_limit(document: Mapping[str, Any], **common: Any) -> RequestOverLimit:
    limit = _count(document, "Limit")
    if limit == 0:
        raise _ill_typed("Limit")
    return RequestOverLimit(
        service_name=_name(document, "ServiceName"),
        command=_name(document, "Command"),
        request=_count(document, "Request"),
        limit=limit,
        **common,
    )


_READERS: dict[str, Callable[..., Event]] = {
    "C2C.CallbackAfterMsgReport": _msg_report,
    "Group.CallbackAfterReadReceipt": _read_receipt,
    "Alert.RequestOverLimit": _request_over_limit,
}


def _token(token: str) -> bytes:
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    # Raised outside the handler: a UnicodeEncodeError, even as a context, would carry the token.
    secret = token.encode() if _is_text(token) else b""
    if not secret:
        raise ValueError("token must be non-empty text: without one, anybody could sign")
    return secret


def _moment(now: float) -> float:
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise TypeError(f"now must be a number of unix seconds, not {type(now).__name__}")
    if not abs(now) < 1e15:  # also when it is NaN
        raise ValueError("now must be unix seconds")
    return now


def _check_query(query: Query) -> None:
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be a mapping of the decoded parameters, not {type(query).__name__}")


def _one(query: Query, key: str) -> str | None:
    """The one value of a query parameter; None when it is absent."""
    if key not in query:
        return None
    # The two ways by which the frameworks' mappings tell that a parameter was there twice.
    read_all = getattr(query, "getall", None) or getattr(query, "getlist", None)
    value = query[key] if read_all is None else read_all(key)
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise WebhookError(f"{key} is {len(value)} times in the query")
        value = value[0]
    if not isinstance(value, str) or not _is_text(value):
        raise WebhookError(f"{key} in the query is not text")
    return value


def _required(query: Query, key: str) -> str:
    value = _one(query, key)
    if value is None:
        raise WebhookError(f"{key} is missing from the query: is webhook authentication switched on?")
    return value


def _is_text(value: str) -> bool:
    """Whether a str is free of lone surrogates, which no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _document(body: bytes | bytearray | str) -> dict[str, Any]:
    if not isinstance(body, bytes | bytearray | str):
        raise TypeError(f"body must be bytes or a str, not {type(body).__name__}")
    try:
        document = json.loads(body if isinstance(body, str) else body.decode())
        # json.loads takes NaN, numbers that overflow and lone surrogates; what cannot be written was no JSON.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise WebhookError("the body is not JSON, or nested too deeply") from None
    if not isinstance(document, dict):
        raise WebhookError("the body is not a JSON object")
    return document


def _command(query: Query, document: Mapping[str, Any]) -> str:
    asked = _one(query, "CallbackCommand")
    told = document.get("CallbackCommand")
    if told is not None and not isinstance(told, str):
        raise _ill_typed("CallbackCommand")
    if asked and told and asked != told:
        raise WebhookError("query and body name different values of CallbackCommand")
    command = asked or told
    if not command:
        raise WebhookError("CallbackCommand is missing")
    return command


def _number_or_none(value: object) -> int | None:
    """A number that is none, or more, than any time or count can be is None; so is a bool."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    return value if type(value) is int and 0 <= value <= _LARGEST else None


def _number(value: object, key: str) -> int:
    number = _number_or_none(value)
    if number is None:
        raise _ill_typed(key)
    return number


def _count(row: Mapping[str, Any], key: str) -> int:
    return _number(row.get(key), key)


def _optional_count(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return None if value is None else _number(value, key)


def _str(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _ill_typed(key)
    return value


def _name(row: Mapping[str, Any], key: str) -> str:
    value = _str(row, key)
    if not value:
        raise _ill_typed(key)
    return value


def _rows(row: Mapping[str, Any], key: str, *, required: bool = True) -> Iterator[Mapping[str, Any]]:
    rows = row.get(key)
    if rows is None and not required:
        return
    if not isinstance(rows, list):
        raise _ill_typed(key)
    for item in rows:
        if not isinstance(item, dict):
            raise _ill_typed(key)
        yield item


def _ill_typed(key: str) -> WebhookError:
    return WebhookError(f"{key} is missing from the webhook or not as documented")
