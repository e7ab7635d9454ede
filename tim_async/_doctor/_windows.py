"""Find the shape of a server's rate window from the calls that it accepted and refused.

A shape is a function that predicts for each call, in the order of arrival, whether it is accepted.  Predictions and
observations are compared by the number of calls accepted until each moment, and not call by call: fractions of a
millisecond, unknown to the client, decide which call is refused, but not how many are.  The shape with the smallest
error explains the calls if the others are clearly worse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

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


def sliding(times: Iterable[float], limit: int, *, count_refused: bool = False) -> list[bool]:
    """Accept at most ``limit`` calls in any second."""
    counted: deque[float] = deque()
    answers = []
    for at in times:
        while counted and counted[0] <= at - 1.0:
            counted.popleft()
        answers.append(len(counted) < limit)
        if answers[-1] or count_refused:
            counted.append(at)
    return answers


def bucket(times: Iterable[float], limit: int) -> list[bool]:
    """Accept the calls that fit into a bucket of ``limit`` calls, refilled at ``limit`` calls/s."""
    level, last = float(limit), -1.0
    answers = []
    for at in times:
        level = min(float(limit), level + max(0.0, at - last) * limit)
        last = at
        answers.append(level >= 1.0)
        level -= answers[-1]
    return answers


def calendar(phase: float) -> Callable[[Iterable[float], int], list[bool]]:
    """Make the shape that accepts at most ``limit`` calls in each second that begins at ``phase``."""

    def shape(times: Iterable[float], limit: int) -> list[bool]:
        second, accepted = -1, 0
        answers = []
        for at in times:
            if int(at - phase) != second:
                second, accepted = int(at - phase), 0
            answers.append(accepted < limit)
            accepted += answers[-1]
        return answers

    return shape


def explain(bursts: Sequence[Sequence[Sent]], limit: int) -> str:
    """Return the name of the shape that explains bursts of calls; "" if none clearly does.

    The bursts are so far apart that the calls of one do not count in the next.
    """
    ordered = [sorted(burst) for burst in bursts]
    calls = [call for burst in ordered for call in burst]
    times = [call.at - calls[0].at + 2.0 for call in calls]

    def mean_error(shape: Callable[[Iterable[float], int], list[bool]]) -> float:
        predictions = iter(shape(times, limit))
        total = 0
        for burst in ordered:
            surplus = 0  # calls that the shape has accepted so far beyond those that the server has
            for call in burst:
                surplus += next(predictions) - call.accepted
                total += abs(surplus)
        return total / len(calls) / limit

    errors = {
        "a sliding second": mean_error(sliding),
        "a sliding second, in which refused calls count": mean_error(partial(sliding, count_refused=True)),
        "a bucket": mean_error(bucket),
        "a calendar second": min(mean_error(calendar(phase / PHASES)) for phase in range(PHASES)),
    }
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    return best if errors[best] <= MARGIN and errors[second] - errors[best] >= MARGIN else ""
