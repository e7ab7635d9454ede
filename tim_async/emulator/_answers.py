"""Answers of the service, and the exception for a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Cut = Literal["", "half", "whole"]
"""How much of an answer is lost, as the connection is closed."""


class Refusal(Exception):
    """The service refuses a call.

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
        code: the ``ErrorCode`` that reaches the caller; None where no such code does.
        body: the body.
        status: the HTTP status.
        content_type: the type of the body.
        retry_after: the ``Retry-After`` header, if any.
        delay: seconds to wait before it is sent.
        cut: how much of it is lost.
    """

    code: int | None
    body: bytes
    status: int = 200
    content_type: str = "application/json"
    retry_after: str | int | None = None
    delay: float = 0.0
    cut: Cut = ""


def json_answer(code: int, info: str = "", fields: Mapping[str, Any] | None = None) -> Answer:
    """Make an answer of the service: ``ErrorCode`` (0 for success), ``ErrorInfo`` and the fields of the command."""
    status = "FAIL" if code else "OK"
    document = {"ActionStatus": status, "ErrorInfo": info, "ErrorCode": code, **(fields or {})}
    # Left as ASCII escapes: an id that a caller sent as half a surrogate pair has no UTF-8 form.
    return Answer(code, json.dumps(document, separators=(",", ":")).encode("ascii"))
