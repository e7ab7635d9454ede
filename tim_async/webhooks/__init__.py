"""The service's webhooks about read state, verified and parsed without I/O.

https://www.tencentcloud.com/document/product/1047/34354

A web framework provides the query and the body; `verify` checks that the service sent them, `parse` returns an event,
and `ANSWER` is the body of the answer, which the service expects within 2 s::

    verify(token, request.query, time.time())
    event = parse(request.query, await request.read())
    if isinstance(event, ReadReceipt): ...

An invalid request raises `WebhookError` and nothing else; answer it with a 4xx status.  `TypeError` and `ValueError`
are raised for the caller's own arguments.

**The signature covers neither the body** nor the query, except for the time: an attacker who sees one signed request
can replay it within the minute, with any body.  Accept webhooks over HTTPS only, and keep their URLs out of logs.
Compare each event's ``sdk_app_id`` with your own, as the vendor advises.
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
"""The body of the answer to every webhook that reports an event; its type is ``application/json``."""
