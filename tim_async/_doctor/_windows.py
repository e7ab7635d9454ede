"""Which shape of a rate window explains what a server took and what it refused.

A shape is a function that says of each call, in the order of arrival, whether it would be taken.  What it would have
taken by each moment is compared with what the server took by then: which single call is refused is decided by fractions
of a millisecond that cannot be seen from here, how many are is not.  The shape that comes closest explains the calls,
where the others are clearly worse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

PHASES = 20
"""Beginnings of a calendar second that are tried: a limiter's clock need not be that of the answers."""
CLEAR = 0.06
"""The part of the limit by which the best shape must be better than the next, and may itself be wrong, on average."""


class Sent(NamedTuple):
    """One call.

    Attributes:
        at: when it arrived, as far as that can be told from here, seconds.
        took: whether it was taken, and not refused for the rate.
    """

    at: float
    took: bool


def sliding(times: Iterable[float], limit: int) -> list[bool]:
    """At most ``limit`` calls taken in any second."""
    taken: deque[float] = deque()
    answers = []
    for at in times:
        while taken and taken[0] <= at - 1.0:
            taken.popleft()
        answers.append(len(taken) < limit)
        if answers[-1]:
            taken.append(at)
    return answers


def sliding_with_refused(times: Iterable[float], limit: int) -> list[bool]:
    """The same, where refused calls count as well."""
    seen: deque[float] = deque()
    answers = []
    for at in times:
        while seen and seen[0] <= at - 1.0:
            seen.popleft()
        answers.append(len(seen) < limit)
        seen.append(at)
    return answers


def bucket(times: Iterable[float], limit: int) -> list[bool]:
    """A bucket of ``limit`` calls, refilled by as many a second."""
    level, last = float(limit), -1.0
    answers = []
    for at in times:
        level = min(float(limit), level + max(0.0, at - last) * limit)
        last = at
        answers.append(level >= 1.0)
        level -= answers[-1]
    return answers


def calendar(phase: float) -> Callable[[Iterable[float], int], list[bool]]:
    """Make the shape of at most ``limit`` calls in each second that begins at ``phase``."""

    def shape(times: Iterable[float], limit: int) -> list[bool]:
        second, taken = -1, 0
        answers = []
        for at in times:
            if int(at - phase) != second:
                second, taken = int(at - phase), 0
            answers.append(taken < limit)
            taken += answers[-1]
        return answers

    return shape


def explain(bursts: Sequence[Sequence[Sent]], limit: int) -> str:
    """Name the shape that explains bursts of calls, between which all was forgotten; "" where none does clearly."""
    ordered = [sorted(burst) for burst in bursts]
    calls = [call for burst in ordered for call in burst]
    times = [call.at - calls[0].at + 2.0 for call in calls]

    def wrong(shape: Callable[[Iterable[float], int], list[bool]]) -> float:
        said = iter(shape(times, limit))
        apart = 0
        for burst in ordered:
            ahead = 0  # how many more the shape has taken by now
            for call in burst:
                ahead += next(said) - call.took
                apart += abs(ahead)
        return apart / len(calls) / limit

    errors = {
        "a sliding second": wrong(sliding),
        "a sliding second, in which refused calls count": wrong(sliding_with_refused),
        "a bucket": wrong(bucket),
        "a calendar second": min(wrong(calendar(phase / PHASES)) for phase in range(PHASES)),
    }
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    return best if errors[best] <= CLEAR and errors[second] - errors[best] >= CLEAR else ""
