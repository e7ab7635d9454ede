"""The probe: whether an endpoint takes its rate, and how the service counts the calls of a second.

It sends calls past the client's own limiter: first nearly at the rate; then, in two bursts that begin in different
parts of a second, twice as many, so that the service has to refuse some.  So it uses the quota, which others then lack.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tim_async import _wire
from tim_async.endpoints import DEFAULT_RATE, GET_ALL_C2C_UNREAD_MSG_NUM
from tim_async.errors import APIError, RateLimited, TIMError

from ._findings import Finding, failure, ok, warning
from ._service import told
from ._visit import Visit
from ._windows import Sent, explain

IDLE = 1.1
"""Seconds without a call, after which all that is counted has been forgotten."""
BURST = 1.4
"""Seconds of a burst; with the pause after it no whole number, so that the next one begins elsewhere in a second."""
EXCESS = 2.0
"""Times the rate, in a burst."""
SHORTEST = 2 * (IDLE + BURST) + 1.0
"""Seconds of the shortest probe."""
STEADY = 0.9
"""The part of the rate that is sent first: at all of it, a few calls that arrive early would be refused."""
LOST = 0.05
"""The part of the calls that may be refused by chance, as by others' calls, or fail."""

PAGE = "https://www.tencentcloud.com/document/product/1047/41046"


def probe(seconds: float) -> Callable[[Visit], Awaitable[list[Finding]]]:
    """Make the check that sends calls for some seconds, at least `SHORTEST`."""

    async def look(visit: Visit) -> list[Finding]:
        endpoint = GET_ALL_C2C_UNREAD_MSG_NUM
        rate = visit.caller.settings.rates.get(endpoint.command, DEFAULT_RATE)
        answers = [await _send(visit, STEADY * rate, seconds - SHORTEST + 1.0)]
        for _ in range(2):
            await asyncio.sleep(IDLE)
            answers.append(await _send(visit, EXCESS * rate, BURST))
        for each in answers:
            errors = [one for one in each if isinstance(one, TIMError)]
            if len(errors) > LOST * len(each):
                return [_failed(errors, len(each))]
        steady, *bursts = ([one for one in each if isinstance(one, Sent)] for each in answers)
        return [_judged(rate, steady, bursts)]

    return look


def _failed(errors: list[TIMError], calls: int) -> Finding:
    """The failure for calls of which too many say nothing of the rate."""
    ((found, _),) = Counter(map(told, errors)).most_common(1)
    error = next(error for error in errors if told(error) == found)
    return failure(
        "probe.failed",
        f"of {calls} calls, {len(errors)} failed, most with: {found}",
        error.meaning or "Calls fail at this rate.",
        error.remedy or "Look the code up.",
        PAGE,
    )


def _judged(rate: float, steady: list[Sent], bursts: list[list[Sent]]) -> Finding:
    refused = sum(not call.took for call in steady)
    if refused > LOST * len(steady):
        span = max(call.at for call in steady) - min(call.at for call in steady)
        taken = (len(steady) - refused) / max(span, 1.0)
        return warning(
            "probe.below",
            f"of {STEADY * rate:g} calls/s, the service took {taken:.0f}",
            "The service allows less than the configured rate, or others use a part of it.",
            "Set `rates` to what the service allows, and share one quota among all that call.",
            PAGE,
        )
    over = [call.took for burst in bursts for call in burst]
    if over.count(False) <= LOST * len(over):
        return warning(
            "probe.above",
            f"the service took {EXCESS * rate:.0f} calls/s, {EXCESS:g} times the configured rate",
            "The service allows more than the configured rate.",
            "Set `rates` to what was bought: calls can go faster.",
            PAGE,
        )
    shape = explain(bursts, round(rate))
    how = f"it counts them in {shape}" if shape else "how it counts them does not show"
    return ok("probe", f"of {len(steady)} calls at {STEADY * rate:g}/s, {refused} were refused; {how}")


async def _send(visit: Visit, rate: float, seconds: float) -> list[Sent | TIMError]:
    """Send calls evenly, whatever becomes of them; returns what was answered, or why nothing was."""
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
        # An answer that a single call had as well, such as that there is no such account, is one of a call taken.
        took = not isinstance(answer, TIMError) or (isinstance(answer, APIError) and answer.code == usual)
        if isinstance(answer, TIMError) and not took and not isinstance(answer, RateLimited):
            answer.__traceback__ = None
            return answer
        return Sent((sent + loop.time()) / 2, took)

    calls = (one(began + number / rate) for number in range(max(1, int(rate * seconds))))
    return await asyncio.gather(*calls)
