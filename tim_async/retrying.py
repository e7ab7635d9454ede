"""The retry policy: ``TIMClient(retry=RetryPolicy(…))``, or ``with_options(retry=…)`` for some calls."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry policy for transient failures.

    Waits are drawn with full jitter: the n-th lies between 0 and ``min(most, first * 2**(n-1))`` seconds.

    Attributes:
        attempts: the most requests made for one call, the first included; 1 turns retrying off.
        wait: (first, most) seconds after a transient failure: 10002 and its like, HTTP 5xx, time-outs, lost
            connections.
        wait_rate_limited: (first, most) seconds after a refusal for the rate; the endpoint also slows down.
        total: seconds after its first request within which a call's last retry starts.
        budget: retries an endpoint can make beyond what success and time give back (half a retry for each
            success, and a tenth of the endpoint's rate each second).  When it is spent, the original error is
            raised at once: a service in trouble is not helped by clients that each ask eight times.

    Raises:
        ValueError: an attribute out of its range.
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
            first, most = getattr(self, name)
            if not (0 <= first < math.inf and 0 <= most < math.inf):
                raise ValueError(f"{name} must be two numbers of seconds, not negative")
            object.__setattr__(self, name, (first, most))  # a list, too, gives a policy that can be hashed
        if not (self.total >= 0 and self.budget >= 0):
            raise ValueError("total and budget must not be negative")
