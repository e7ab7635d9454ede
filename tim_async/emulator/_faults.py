"""Faults on request: which call is answered wrongly, and how."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fault:
    """One way of answering wrongly, and when to.

    Choose one of ``code``, ``status`` and ``body`` (the two go together), ``drop`` and ``truncate``; each goes with
    ``delay``, which may also stand alone.  A faulty call counts as an arrival, and counts towards the rate.

    Attributes:
        code: answer this ``ErrorCode`` and change nothing.
        status: answer this HTTP status, as a gateway would, with a page of HTML, and change nothing.
        body: answer these bytes and change nothing; ``b""`` is the empty body.
        drop: close the connection without an answer, ``"before"`` or ``"after"`` the change was made.
        truncate: make the change, then send half of the answer and close the connection.
        delay: seconds between what was decided and the answer; the change, where one is made, is made before.
        endpoint: the one endpoint to do it on, by its method's name; every endpoint by default.
        times: how often in all; without end by default.
        probability: of doing it to a call that it could be done to, above 0 and up to 1.
        retry_after: the ``Retry-After`` header of the answer, which the real service is not known to send.
    """

    code: int | None = None
    status: int | None = None
    body: bytes | None = None
    drop: Literal["before", "after"] | None = None
    truncate: bool = False
    delay: float = 0.0
    endpoint: str | None = None
    times: int | None = None
    probability: float = 1.0
    retry_after: str | int | None = None

    def __post_init__(self) -> None:
        page = self.status is not None or self.body is not None
        chosen = (self.code is not None) + page + (self.drop is not None) + self.truncate
        if chosen > 1:
            raise ValueError("a fault is one of code, status or body, drop and truncate, not several at once")
        if chosen == 0 and not self.delay:
            raise ValueError("a fault needs a code, a status, a body, a drop, a truncation or a delay")
        if self.drop not in (None, "before", "after"):
            raise ValueError(f"drop is 'before' or 'after', not {self.drop!r}")
        if not 0.0 < self.probability <= 1.0:
            raise ValueError(f"a probability is above 0 and at most 1, not {self.probability}")
        if self.delay < 0.0 or (self.times is not None and self.times < 1):
            raise ValueError("a delay is not negative, and times is at least 1")

    @property
    def kind(self) -> str:
        """What the report calls it, e.g. ``"code 10002"``, ``"status 502"`` or ``"dropped before"``."""
        if self.code is not None:
            return f"code {self.code}"
        if self.status is not None:
            return f"status {self.status}"
        if self.body is not None:
            return "body" if self.body else "empty body"
        if self.drop is not None:
            return f"dropped {self.drop}"
        return "truncated" if self.truncate else "delayed"

    @property
    def lets_the_call_through(self) -> bool:
        """Whether the call is carried out, and only its answer goes wrong."""
        return self.truncate or self.drop == "after" or self.kind == "delayed"


class Faults:
    """The faults asked for, and the dice that choose among calls.  Any thread may call it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._left: dict[int, tuple[Fault, int | None]] = {}
        self._added = 0

    def add(self, fault: Fault) -> None:
        """Ask for a fault, after those that were asked for before it."""
        with self._lock:
            self._left[self._added] = (fault, fault.times)
            self._added += 1

    def clear(self) -> None:
        """Forget every fault that was asked for."""
        with self._lock:
            self._left.clear()

    def pick(self, endpoint: str) -> Fault | None:
        """The fault for a call to ``endpoint``, if it is to have one: the first whose dice say so."""
        if not self._left:
            return None
        with self._lock:
            for number, (fault, left) in self._left.items():
                if fault.endpoint not in (None, endpoint):
                    continue
                if fault.probability < 1.0 and self._random.random() >= fault.probability:
                    continue
                if left == 1:
                    del self._left[number]
                elif left is not None:
                    self._left[number] = (fault, left - 1)
                return fault
        return None
