"""The shape of the service's answers, and the exception that says one is a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """The service says no.

    Attributes:
        code: the ``ErrorCode``.
        info: the ``ErrorInfo``.
    """

    def __init__(self, code: int, info: str) -> None:
        super().__init__(code, info)
        self.code = code
        self.info = info


def success(fields: Mapping[str, Any]) -> bytes:
    """The body of an answer that says yes, with the fields of its command."""
    return _encode({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **fields})


def failure(code: int, info: str) -> bytes:
    """The body of an answer that says no."""
    return _encode({"ActionStatus": "FAIL", "ErrorInfo": info, "ErrorCode": code})


def _encode(document: Mapping[str, Any]) -> bytes:
    # Left as ASCII escapes: an id that a caller sent as half a surrogate pair has no UTF-8 form to answer in.
    return json.dumps(document, separators=(",", ":")).encode("ascii")
