"""What is known of one attempt, for whoever watches: metrics, traces, logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ._lanes import Lane
from .errors import APIError

_log = logging.getLogger("tim_async")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, after its end; handed to ``TIMClient(on_attempt=…)``.

    Attributes:
        endpoint: the method's name, or the command given to ``call``.
        number: 1 for a call's first request, 2 for its first retry, and so on.
        lane: interactive or bulk.
        waited: seconds it stood before the turnstile.
        took: seconds from sending to the end of the answer.
        code: the service's ``ErrorCode``, 0 for success; None when no readable answer came.
        error: the class name of what the attempt raised, None for success.
    """

    endpoint: str
    number: int
    lane: Lane
    waited: float
    took: float
    code: int | None
    error: str | None

    @classmethod
    def of(
        cls, endpoint: str, number: int, lane: Lane, waited: float, took: float, error: BaseException | None
    ) -> Attempt:
        """The record of an attempt that ended with ``error``, or with success."""
        code = 0 if error is None else error.code if isinstance(error, APIError) else None
        return cls(endpoint, number, lane, waited, took, code, None if error is None else type(error).__name__)


Hook = Callable[[Attempt], object]


def tell(hook: Hook, attempt: Attempt) -> None:
    """Call a hook; one that raises is logged and harms no call."""
    try:
        hook(attempt)
    except Exception:  # noqa: BLE001 - whatever a stranger's function raises
        _log.exception("on_attempt raised")
