"""What the service tells an app by itself: webhooks about read state, checked and read without any I/O.

https://www.tencentcloud.com/document/product/1047/34354

A web framework hands over the query and the body; `verify` says whether the service sent them, `parse` makes an
event of them, and `ANSWER` is what to answer with, within 2 s::

    verify(token, request.query, time.time())
    event = parse(request.query, await request.read())
    if isinstance(event, ReadReceipt): ...

Everything that can be wrong with a request raises `WebhookError` and nothing else; answer such a one with a 4xx
status.  `TypeError` and `ValueError` are about the caller's own arguments.

**The signature does not cover the body**, nor anything of the query but the time: an eavesdropper on one signed request
can send it again within the minute, with any body.  Only HTTPS keeps others from seeing it, so take webhooks by HTTPS
alone, and keep their URLs out of logs.  Compare each event's ``sdk_app_id`` with your own, as the vendor asks.
"""

from __future__ import annotations

from typing import Final

from ._events import (
    Event,
    MsgReceipt,
    MsgReport,
    ReadReceipt,
    RequestOverLimit,
)
from ._query import Query, WebhookError
from ._reading import parse
from ._signature import MAX_AGE, verify

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

ANSWER: Final = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'
"""The body of the answer to every webhook about something that has happened; its type is ``application/json``."""
