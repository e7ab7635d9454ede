"""One examination: the client, the caller's options, and the outcomes that checks share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

from tim_async._call import Call, Caller
from tim_async._lanes import Lane
from tim_async.endpoints import Endpoint
from tim_async.errors import APIError, TIMError
from tim_async.retrying import RetryPolicy

NO_GROUP = "tim_async-doctor"
"""A group that presumably no app has: an endpoint that says so is reachable and permitted."""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The outcome of a call.

    Attributes:
        error: the exception that it raised; None for success.
        took: its duration without the wait for its permit, in seconds.
        date: the ``Date`` header of the answer; "" without one.
        ended: the time of its end by this machine's clock, in unix seconds.
    """

    error: TIMError | None
    took: float
    date: str
    ended: float

    @property
    def code(self) -> int | None:
        """The ``ErrorCode``, 0 for success; None without an answer of the service."""
        return 0 if self.error is None else self.error.code if isinstance(self.error, APIError) else None


@dataclass(slots=True)
class Visit:
    """One examination of a client.

    Attributes:
        caller: makes the calls; replaced by one without the quota if that is unusable.
        group: a group of the app, to examine receipts with; "" for none.
        try_regions: whether to ask the hosts of other regions.
        timeout: seconds for one step: a look-up of a name, a connection, an attempt, a permit.
        outcomes: the outcomes of the calls so far, by the check that made them.
    """

    caller: Caller
    group: str
    try_regions: bool
    timeout: float
    outcomes: dict[str, CallOutcome] = field(default_factory=dict)

    async def ask(self, endpoint: Endpoint[..., Any], *args: Any, caller: Caller | None = None) -> CallOutcome:
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
        return CallOutcome(error, loop.time() - began - call.waited, call.headers.get("Date", ""), time.time())
