"""The service's answers, and the exception for a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Cut = Literal["", "half", "whole"]
"""The part of an answer that is lost because the connection is closed."""


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
        code: the ``ErrorCode`` that reaches the caller; None if none does.
        body: the body.
        status: the HTTP status.
        content_type: the type of the body.
        retry_after: the ``Retry-After`` header, if any.
        delay: seconds to wait before the answer is sent.
        cut: the part of the answer that is lost.
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
    # ASCII with escapes, because a caller's id with a lone surrogate has no UTF-8 form.
    return Answer(code, json.dumps(document, separators=(",", ":")).encode("ascii"))
