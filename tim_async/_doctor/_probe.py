"""The probe: whether the service accepts an endpoint's rate, and how it counts the calls of a second.

It bypasses the client's own limiter.  It sends calls first just below the rate; then at twice the rate, in two bursts
that begin in different parts of a second, so that the service has to refuse some, also those of other clients.

The shapes of the service's window are the emulator's: a `Window` predicts for each call, in the order of arrival,
whether it is accepted.  Predictions and observations are compared by the number of calls accepted until each moment,
and not call by call: fractions of a millisecond, unknown to the client, decide which call is refused, but not how many
are.  The shape with the smallest error explains the calls if the others are clearly worse.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tim_async import _wire
from tim_async.emulator._windows import Window
from tim_async.endpoints import DEFAULT_RATE, GET_ALL_C2C_UNREAD_MSG_NUM
from tim_async.errors import APIError, RateLimited, TIMError

from ._findings import Finding, failure, ok, warning
from ._service import READING, UNKNOWN_CODE, summary
from ._visit import Visit

IDLE = 1.1
"""Seconds without a call after which the service counts none of the earlier ones."""
BURST = 1.4
"""The duration of a burst in seconds; `IDLE` + `BURST` is no whole number, so that bursts begin at different phases."""
EXCESS = 2.0
"""The rate of a burst, as a multiple of the rate."""
SHORTEST = 2 * (IDLE + BURST) + 1.0
"""The minimum duration of a probe, in seconds."""
STEADY = 0.9
"""The part of the rate that is sent first: at the full rate, a few calls that arrive early would be refused."""
TOLERATED = 0.05
"""The part of the calls that may fail, or be refused because of others' calls."""
PHASES = 20
"""The number of phases tried for a calendar second: the limiter's clock may differ from that of the answers."""
MARGIN = 0.06
"""The largest mean error of the best shape, and its smallest lead over the next one, as parts of the limit."""

PAGE = READING[0].page


class Sent(NamedTuple):
    """A call that was sent.

    Attributes:
        at: its estimated time of arrival, in seconds.
        accepted: whether it was accepted, not refused for exceeding the rate.
    """

    at: float
    accepted: bool


def probe(seconds: float) -> Callable[[Visit], Awaitable[list[Finding]]]:
    """Make the check that sends calls for some seconds, at least `SHORTEST`."""

    async def check(visit: Visit) -> list[Finding]:
        endpoint = GET_ALL_C2C_UNREAD_MSG_NUM
        rate = visit.caller.settings.rates.get(endpoint.command, DEFAULT_RATE)
        answers = [await _send(visit, STEADY * rate, seconds - SHORTEST + 1.0)]
        for _ in range(2):
            await asyncio.sleep(IDLE)
            answers.append(await _send(visit, EXCESS * rate, BURST))
        for each in answers:
            errors = [one for one in each if isinstance(one, TIMError)]
            if len(errors) > TOLERATED * len(each):
                return [_failed(errors, len(each))]
        steady, *bursts = ([one for one in each if isinstance(one, Sent)] for each in answers)
        return [_result(rate, steady, bursts)]

    return check


def _failed(errors: list[TIMError], calls: int) -> Finding:
    """Return the failure for too many calls without a conclusive answer."""
    ((found, _),) = Counter(map(summary, errors)).most_common(1)
    error = next(error for error in errors if summary(error) == found)
    return failure(
        "probe.failed",
        f"of {calls} calls, {len(errors)} failed, most of them with: {found}",
        error.meaning or "Calls fail at this rate.",
        error.remedy or UNKNOWN_CODE,
        PAGE,
    )


def _result(rate: float, steady: list[Sent], bursts: list[list[Sent]]) -> Finding:
    refused = sum(not call.accepted for call in steady)
    if refused > TOLERATED * len(steady):
        span = max(call.at for call in steady) - min(call.at for call in steady)
        accepted = (len(steady) - refused) / max(span, 1.0)
        return warning(
            "probe.below",
            f"of {STEADY * rate:g} calls/s, the service accepted {accepted:.0f}",
            "The service allows less than the configured rate, or other clients use a part of it.",
            "Set `rates` to the app's real limits, and share one quota among all clients.",
            PAGE,
        )
    over = [call.accepted for burst in bursts for call in burst]
    if over.count(False) <= TOLERATED * len(over):
        return warning(
            "probe.above",
            f"the service accepted {EXCESS * rate:.0f} calls/s, {EXCESS:g} times the configured rate",
            "The service allows more than the configured rate.",
            "Set `rates` to the app's real limits: calls can be faster.",
            PAGE,
        )
    shape = explain(bursts, round(rate))
    counting = f"the service counts calls in {shape}" if shape else "the way it counts them does not show"
    return ok("probe", f"of {len(steady)} calls at {STEADY * rate:g}/s, {refused} were refused; {counting}")


async def _send(visit: Visit, rate: float, seconds: float) -> list[Sent | TIMError]:
    """Send calls at an even rate, without waiting for answers; returns the accepted, refused and failed ones."""
    endpoint = GET_ALL_C2C_UNREAD_MSG_NUM
    loop = asyncio.get_running_loop()
    payload = _wire.encode(endpoint.build(visit.caller.settings.identifier))
    usual = visit.outcomes[endpoint.name].code
    began = loop.time()

    async def one(at: float) -> Sent | TIMError:
        await asyncio.sleep(at - loop.time())
        sent = loop.time()
        try:
            answer = _wire.decode(await visit.caller.attempt(endpoint.command, payload, visit.timeout))
        except TIMError as error:
            answer = error
        # An error that a single call had as well, such as an unknown account, does not concern the rate.
        accepted = not isinstance(answer, TIMError) or (isinstance(answer, APIError) and answer.code == usual)
        if isinstance(answer, TIMError) and not accepted and not isinstance(answer, RateLimited):
            answer.__traceback__ = None
            return answer
        return Sent((sent + loop.time()) / 2, accepted)

    calls = (one(began + number / rate) for number in range(max(1, int(rate * seconds))))
    return await asyncio.gather(*calls)


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
