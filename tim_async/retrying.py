"""The retry policy, for ``TIMClient(retry=RetryPolicy(…))`` or, for some calls, ``with_options(retry=…)``."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry policy for transient failures.

    Waits have full jitter: the n-th is a random number between 0 and ``min(most, first * 2**(n-1))`` seconds.

    Attributes:
        attempts: the maximum number of requests for one call, including the first; 1 disables retries.
        wait: (first, most) seconds after a transient failure: 10002 and similar codes, HTTP 5xx, time-outs, lost
            connections.
        wait_rate_limited: (first, most) seconds after a refusal because of the rate; the endpoint also slows down.
        total: seconds from a call's first request within which its last retry starts.
        budget: retries that an endpoint may make in addition to those that it regains (half a retry for each success,
            and a tenth of its rate each second).  When the budget is spent, the original error is raised at once:
            eight attempts by every client would not help a service in trouble.

    Raises:
        ValueError: an attribute out of range.
    """

    attempts: int = 8
    wait: tuple[float, float] = (0.1, 2.0)
    wait_rate_limited: tuple[float, float] = (1.0, 5.0)
    total: float = 25.0
    budget: float = 500.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts must be an int of at least 1, not {self.attempts!r}")
        for name in ("wait", "wait_rate_limited"):
            waits = getattr(self, name)
            pair = tuple(waits) if isinstance(waits, list | tuple) else ()
            if len(pair) != 2 or not all(_not_negative(wait) and wait < math.inf for wait in pair):
                raise ValueError(f"{name} must be two finite numbers of seconds, 0 or more, not {waits!r}")
            object.__setattr__(self, name, pair)  # a tuple even if given a list, so that a policy is hashable
        if not (_not_negative(self.total) and _not_negative(self.budget)):
            raise ValueError(f"total and budget must be 0 or more, not {self.total!r} and {self.budget!r}")


def _not_negative(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
