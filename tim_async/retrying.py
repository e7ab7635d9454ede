"""Which failures are tried again, when, and how often.

One layer only, and success never enters it: the first attempt is made directly, and tenacity is asked only
once there is a failure worth repeating, with that failure counted as its first attempt.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .errors import QuotaExhausted, Reaction, TIMError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a client is with failures that pass.

    Waits are drawn with full jitter: the n-th lies between 0 and ``min(most, first * 2**(n-1))`` seconds.

    Attributes:
        attempts: requests made for one call at most, the first included; 1 turns retrying off.
        wait: (first, most) seconds for a passing fault: 10002 and its like, HTTP 5xx, time-outs, lost connections.
        wait_rate_limited: (first, most) seconds after a refusal for the rate; the endpoint also slows down.
        total: seconds after its first request within which a call's last retry starts.
        budget: retries an endpoint can make beyond what success and time give back (half a retry for each
            success, and a tenth of the endpoint's rate each second).  When it is spent, the original error is
            raised at once: a service in trouble is not helped by everybody asking eight times.
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
        if not (self.total >= 0 and self.budget >= 0):
            raise ValueError("total and budget must not be negative")


class RetryBudget:
    """One endpoint's store of retries: spent one by one, refilled by success and by time.

    Args:
        size: the most it holds, and what it starts with.
        per_second: what time gives back.
    """

    PER_SUCCESS = 0.5

    __slots__ = ("_at", "_left", "_per_second", "_size")

    def __init__(self, size: float, per_second: float) -> None:
        self._size = self._left = size
        self._per_second = per_second
        self._at = 0.0

    def available(self, now: float) -> bool:
        """Whether one more retry may be made at the monotonic time ``now``."""
        if now > self._at:
            self._left = min(self._size, self._left + (now - self._at) * self._per_second)
            self._at = now
        return self._left >= 1.0

    def spend(self) -> None:
        """Make a retry that `available` allowed."""
        self._left -= 1.0

    def succeeded(self) -> None:
        """A call of this endpoint succeeded."""
        self._left = min(self._size, self._left + self.PER_SUCCESS)


class Retrier:
    """The retries of one call.

    Args:
        policy: how patient to be.
        budget: the endpoint's.
        repeatable: whether a call whose fate is unknown may be repeated.
        clock: monotonic seconds.
        started: when the call's first request was sent, by that clock.
        sign_again: called before a retry for the signature's sake.
        opens_at: gives the end of the endpoint's pause, by that clock.
        closed: set when the client is closed, which ends all waiting.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        *,
        repeatable: bool,
        clock: Callable[[], float],
        started: float,
        sign_again: Callable[[], None],
        opens_at: Callable[[], float] = lambda: -math.inf,
        closed: asyncio.Event | None = None,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._repeatable = repeatable
        self._clock = clock
        self._started = started
        self._opens_at = opens_at
        self._closed = asyncio.Event() if closed is None else closed
        self._sign_again = sign_again
        self._signed_again = False
        self._last = TIMError()

    def worth(self, error: BaseException) -> bool:
        """Whether one more attempt can help, and harms nobody."""
        if not isinstance(error, TIMError) or error.reaction is Reaction.GIVE_UP or self._closed.is_set():
            return False
        if error.outcome_unknown and not self._repeatable:
            return False
        if error.reaction is Reaction.SIGN_AGAIN and self._signed_again:
            return False
        if self._opens_at() > self._started + self._policy.total:  # it would only wait to be too late
            return False
        return self._budget.available(self._clock())

    async def run(self, failure: TIMError, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat ``attempt`` after its first ``failure`` until it succeeds or is not worth it.

        Raises:
            TIMError: the last attempt's own error.
        """
        if self._policy.attempts == 1 or not self.worth(failure):
            raise failure
        # Imported with the first failure: most programs start faster for it.
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

        first: TIMError | None = failure

        async def again() -> T:
            nonlocal first
            if first is not None:
                failed, first = first, None
                raise failed
            return await attempt()

        spent = self._clock() - self._started
        # A new AsyncRetrying for each call: one that is shared between tasks mixes up their errors.
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._policy.attempts) | stop_before_delay(max(0.0, self._policy.total - spent)),
            wait=self._wait,
            retry=retry_if_exception(self.worth),
            before_sleep=self._prepare,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(again)
        except QuotaExhausted as exhausted:  # the service's own error tells the caller more
            raise self._last from exhausted

    def _wait(self, state: RetryCallState) -> float:
        from tenacity import wait_random_exponential

        match _failure(state).reaction:
            case Reaction.SIGN_AGAIN:
                return 0.0
            case Reaction.SLOW_DOWN:
                first, most = self._policy.wait_rate_limited
            case _:
                first, most = self._policy.wait
        return wait_random_exponential(multiplier=first, max=most)(state)

    def _prepare(self, state: RetryCallState) -> None:
        self._budget.spend()
        self._last = _failure(state)
        if self._last.reaction is Reaction.SIGN_AGAIN:
            self._signed_again = True
            self._sign_again()

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not beyond the client's end: then the call ends as its last attempt did."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise self._last


def _failure(state: RetryCallState) -> TIMError:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, TIMError):  # only a failure that `worth` accepted comes this far
        raise TypeError(f"not a failure to wait for: {error!r}")
    return error
