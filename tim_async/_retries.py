"""The decision whether and when to retry a failed call; tenacity computes the policy's waits and stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import Reaction, TIMError
from .retrying import RetryPolicy

if TYPE_CHECKING:
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base


class RetryBudget:
    """The retries that one endpoint may make: spent one by one, refilled by success and by time.

    Args:
        size: the maximum of retries that it holds, and the number that it starts with.
        per_second: retries refilled per second.

    Attributes:
        per_second: as given; it may be changed.
    """

    PER_SUCCESS = 0.5
    """Retries refilled by each successful call."""

    __slots__ = ("_at", "_left", "_size", "per_second")

    def __init__(self, size: float, per_second: float) -> None:
        self._size = self._left = size
        self.per_second: float = per_second
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take one retry at the monotonic time ``now``; return False if none is left."""
        if now > self._at:
            self._left = min(self._size, self._left + (now - self._at) * self.per_second)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def succeeded(self) -> None:
        """Refill the budget after a successful call."""
        self._left = min(self._size, self._left + self.PER_SUCCESS)


class Retries:
    """The retries of one call; created at its first failure, so that success costs nothing.

    Args:
        policy: the retry policy.
        budget: the retry budget of the endpoint.
        repeatable: whether the call may be repeated if its outcome is unknown.
        started: the time of the call's first request, monotonic seconds.
    """

    __slots__ = ("_budget", "_policy", "_repeatable", "_signed_again", "_started", "_stop")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, *, repeatable: bool, started: float) -> None:
        # Imported at the first failure, so that programs start faster.
        from tenacity import stop_after_attempt, stop_before_delay

        self._policy = policy
        self._budget = budget
        self._repeatable = repeatable
        self._started = started
        self._signed_again = False
        self._stop: stop_base = stop_after_attempt(policy.attempts) | stop_before_delay(policy.total)

    def wait_after(self, failure: TIMError, attempts: int, now: float, opens_at: float) -> float | None:
        """Return the seconds to wait before the next attempt, and take one retry from the budget.

        Args:
            failure: the last attempt's error.
            attempts: attempts made so far, at least 1.
            now: the current time, monotonic seconds.
            opens_at: the end of the endpoint's pause, by the same clock.

        Returns:
            Seconds; None if another attempt cannot help, or could do harm.
        """
        from tenacity import RetryCallState, Retrying

        if failure.reaction is Reaction.GIVE_UP or (failure.outcome_unknown and not self._repeatable):
            return None
        if failure.reaction is Reaction.SIGN_AGAIN and self._signed_again:
            return None
        if opens_at > self._started + self._policy.total:  # the pause ends too late for another attempt
            return None
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = attempts
        state.start_time, state.outcome_timestamp = self._started, now
        state.upcoming_sleep = self._wait(failure)(state)
        if self._stop(state) or not self._budget.spend(now):
            return None
        self._signed_again = self._signed_again or failure.reaction is Reaction.SIGN_AGAIN
        return state.upcoming_sleep

    def _wait(self, failure: TIMError) -> wait_base:
        from tenacity import wait_none, wait_random_exponential

        match failure.reaction:
            case Reaction.SIGN_AGAIN:
                return wait_none()
            case Reaction.SLOW_DOWN:
                first, most = self._policy.wait_rate_limited
            case _:
                first, most = self._policy.wait
        return wait_random_exponential(multiplier=first, max=most)
