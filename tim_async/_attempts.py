"""The record of one attempt, for metrics, traces and logs."""

from __future__ import annotations

from dataclasses import dataclass

from ._lanes import Lane


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
        status: the HTTP status; None when no answer came.
        url: where it was sent, without the query; of two hosts that were tried, the second.
        started: when it was sent, unix seconds.
        sdk_app_id: the app's SDKAppID.
    """

    endpoint: str
    number: int
    lane: Lane
    waited: float
    took: float
    code: int | None
    error: str | None
    status: int | None = None
    url: str = ""
    started: float = 0.0
    sdk_app_id: int = 0
