"""Find the shape of a server's rate window from the calls that it accepted and refused.

The shapes are the emulator's: a `Window` predicts for each call, in the order of arrival, whether it is accepted.
Predictions and observations are compared by the number of calls accepted until each moment, and not call by call:
fractions of a millisecond, unknown to the client, decide which call is refused, but not how many are.  The shape with
the smallest error explains the calls if the others are clearly worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tim_async.emulator._windows import Window

PHASES = 20
"""The number of phases tried for a calendar second: the limiter's clock may differ from that of the answers."""
MARGIN = 0.06
"""The largest mean error of the best shape, and its smallest lead over the next one, as parts of the limit."""


class Sent(NamedTuple):
    """A call that was sent.

    Attributes:
        at: its estimated time of arrival, in seconds.
        accepted: whether it was accepted, not refused for exceeding the rate.
    """

    at: float
    accepted: bool


def explain(bursts: Sequence[Sequence[Sent]], limit: int) -> str:
    """Return the name of the shape that explains bursts of calls; "" if none clearly does.

    The bursts are so far apart that the calls of one do not count in the next.
    """
    ordered = [sorted(burst) for burst in bursts]
    calls = [call for burst in ordered for call in burst]
    start = calls[0].at

    def mean_error(window: Window, phase: float = 0.0) -> float:
        total = 0
        for burst in ordered:
            surplus = 0  # calls that the shape has accepted so far beyond those that the server has
            for call in burst:
                surplus += window.admit(call.at - start + 1.0 - phase) - call.accepted
                total += abs(surplus)
        return total / len(calls) / limit

    errors = {
        "a sliding second": mean_error(Window("sliding", limit)),
        "a sliding second, in which refused calls count": mean_error(Window("sliding", limit, count_refused=True)),
        "a bucket": mean_error(Window("bucket", limit)),
        "a calendar second": min(mean_error(Window("calendar", limit), phase / PHASES) for phase in range(PHASES)),
    }
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    return best if errors[best] <= MARGIN and errors[second] - errors[best] >= MARGIN else ""
