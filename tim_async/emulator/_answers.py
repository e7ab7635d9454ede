"""The service's answers, and the exception for a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tim_async.emulator._faults import Fault


class Refusal(Exception):
    """A refusal of a call by the service.

    Attributes:
        code: the ``ErrorCode``.
        info: the ``ErrorInfo``.
    """

    def __init__(self, code: int, info: str) -> None:
        super().__init__(code, info)
        self.code = code
        self.info = info


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        code: the ``ErrorCode``; None for a body without one.
        body: the body.
        status: the HTTP status.
        content_type: the type of the body.
        fault: the injected fault of the call, if any, which also delays the answer or cuts it off.
    """

    code: int | None
    body: bytes
    status: int = 200
    content_type: str = "application/json"
    fault: Fault | None = None


def json_answer(code: int, info: str = "", fields: Mapping[str, Any] | None = None) -> Answer:
    """Make an answer of the service: ``ErrorCode`` (0 for success), ``ErrorInfo`` and the fields of the command."""
    status = "FAIL" if code else "OK"
    document = {"ActionStatus": status, "ErrorInfo": info, "ErrorCode": code, **(fields or {})}
    # ASCII with escapes, because a caller's id with a lone surrogate has no UTF-8 form.
    return Answer(code, json.dumps(document, separators=(",", ":")).encode("ascii"))
