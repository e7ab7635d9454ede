"""The parser of webhooks: from a query and a body to an event."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._events import (
    Event,
    MsgReceipt,
    MsgReport,
    ReadReceipt,
    RequestOverLimit,
)
from ._query import Query, WebhookError, one

_DIGITS = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1


def parse(query: Query, body: bytes | bytearray | str) -> Event:
    """Parse a webhook.  Call `verify` first: this does not check the signature.

    Numbers may be JSON numbers or strings of digits; the vendor's samples have both.  Unknown fields are ignored; the
    event's ``body`` keeps them.

    https://www.tencentcloud.com/document/product/1047/34354

    Args:
        query: the request's query parameters, as for `verify`.
        body: the request's body; bytes are UTF-8.

    Returns:
        A `MsgReport`, `ReadReceipt` or `RequestOverLimit`; a plain `Event` for any other command.

    Raises:
        WebhookError: the body is not a JSON object, a documented field is missing or of the wrong type, or the commands
            of query and body differ.
        TypeError: an argument of the wrong type.
    """
    sdk_app_id = one(query, "SdkAppid")
    document = _document(body)
    command = _command(query, document)
    common: dict[str, Any] = {
        "callback_command": command,
        "sdk_app_id": None if sdk_app_id is None else _number(sdk_app_id, "SdkAppid"),
        "client_ip": one(query, "ClientIP") or "",
        "opt_platform": one(query, "OptPlatform") or "",
        "body": document,
    }
    read = _READERS.get(command)
    if read is None:
        # Other commands may have an EventTime in another form.
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
                # Absent when a message with a receipt has been sent and nobody has read it yet.
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


def _document(body: bytes | bytearray | str) -> dict[str, Any]:
    if not isinstance(body, bytes | bytearray | str):
        raise TypeError(f"body must be bytes or a str, not {type(body).__name__}")
    try:
        document = json.loads(body if isinstance(body, str) else body.decode())
        # json.loads accepts NaN, numbers that overflow and lone surrogates, none of which is JSON.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise WebhookError("the body is not JSON, or is nested too deeply") from None
    if not isinstance(document, dict):
        raise WebhookError("the body is not a JSON object")
    return document


def _command(query: Query, document: Mapping[str, Any]) -> str:
    in_query = one(query, "CallbackCommand")
    in_body = document.get("CallbackCommand")
    if in_body is not None and not isinstance(in_body, str):
        raise _ill_typed("CallbackCommand")
    if in_query and in_body and in_query != in_body:
        raise WebhookError("CallbackCommand differs between query and body")
    command = in_query or in_body
    if not command:
        raise WebhookError("CallbackCommand is missing from query and body")
    return command


def _number_or_none(value: object) -> int | None:
    """Read a time or a count from an int or a string of digits; None for anything else, also a bool."""
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
