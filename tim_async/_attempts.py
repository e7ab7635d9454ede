"""The record of one attempt, for metrics, traces and logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ._lanes import Lane
from .errors import APIError

_log = logging.getLogger("tim_async")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that has ended, as the hook ``TIMClient(on_attempt=…)`` receives it.

    Attributes:
        endpoint: the method's name, or the command given to ``call``.
        number: 1 for a call's first request, 2 for its first retry, and so on.
        lane: interactive or bulk.
        waited: seconds that it waited for its permit.
        took: seconds from sending to the end of the answer, or to the failure.
        code: the service's ``ErrorCode``, 0 for success; None when no readable answer came.
        error: the class name of the exception; None for success.
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
        """Make the record of an attempt that raised ``error``, None for success."""
        code = 0 if error is None else error.code if isinstance(error, APIError) else None
        return cls(endpoint, number, lane, waited, took, code, None if error is None else type(error).__name__)


Hook = Callable[[Attempt], object]


def tell(hook: Hook, attempt: Attempt) -> None:
    """Call a hook; an exception of the hook is logged and does not fail the call."""
    try:
        hook(attempt)
    except Exception:  # noqa: BLE001 - a hook of the caller's can raise anything
        _log.exception("on_attempt raised")
