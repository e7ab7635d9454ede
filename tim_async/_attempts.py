"""The record of one attempt, for metrics, traces and logs."""

from __future__ import annotations

from dataclasses import dataclass

from ._lanes import Lane


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that has ended, as passed to the hook ``TIMClient(on_attempt=…)``.

    Attributes:
        endpoint: the method's name, or the command given to ``call``.
        number: 1 for a call's first request, 2 for its first retry, and so on.
        lane: interactive or bulk.
        waited: seconds spent waiting for its permit.
        took: seconds from sending to the end of the answer, or to the failure.
        code: the service's ``ErrorCode``, 0 for success; None if no readable answer came.
        error: the class name of the exception; None for success.
        status: the HTTP status; None if no answer came.
        url: the URL of the request, without the query; the second one if both hosts were tried.
        started: the time of sending, unix seconds.
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
