"""One examination: the client, what was asked for, and what the checks learn for one another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tim_async._call import Call, Caller
from tim_async._lanes import Lane
from tim_async.endpoints import Endpoint
from tim_async.errors import APIError, TIMError
from tim_async.retrying import RetryPolicy

NOBODY = "tim_async-doctor"
"""A group that no app has, presumably: an endpoint that says so can be reached, and is permitted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        error: what it raised; None for success.
        took: seconds, without the wait for its permit.
        date: the ``Date`` header of the answer.
        ended: when it ended, by this machine's clock, unix seconds.
    """

    error: TIMError | None
    took: float
    date: str
    ended: float

    @property
    def code(self) -> int | None:
        """The ``ErrorCode``, 0 for success; None where there was no answer of the service."""
        return 0 if self.error is None else self.error.code if isinstance(self.error, APIError) else None


@dataclass(slots=True)
class Visit:
    """One examination of a client.

    Attributes:
        caller: makes the calls; one without the quota where that does not work.
        group: a group of the app, to examine receipts with; "" for none.
        try_regions: whether to ask the hosts of other regions.
        timeout: seconds for one step: a name, a connection, an attempt, a permit.
        outcomes: the calls so far, by the check that made them.
    """

    caller: Caller
    group: str = ""
    try_regions: bool = False
    timeout: float = 5.0
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    async def ask(self, endpoint: Endpoint[..., Any], *args: Any, caller: Caller | None = None) -> Outcome:
        """Make one reading call, with one retry."""
        options = replace(
            self.caller.settings.options,
            timeout=self.timeout,
            max_wait=self.timeout,
            retry=RetryPolicy(attempts=2, wait=(0.2, 0.4), wait_rate_limited=(1.0, 1.0), total=2.0),
            lane=Lane.INTERACTIVE,
        )
        call = Call(endpoint, endpoint.build(*args), options)
        loop = asyncio.get_running_loop()
        error: TIMError | None = None
        began = loop.time()
        try:
            await (self.caller if caller is None else caller).make(call)
        except TIMError as raised:
            error = raised
        return Outcome(error, loop.time() - began - call.waited, call.headers.get("Date", ""), self.clock())
