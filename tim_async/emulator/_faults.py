"""Faults that a test injects."""

from __future__ import annotations

import math
import random
import threading
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fault:
    """An injected fault: a kind of faulty answer, and the calls that it affects.

    Choose one of ``code``, ``status`` and ``body`` (these two combine), ``drop`` and ``truncate``; each combines with
    ``delay``, which may also stand alone.  An affected call is counted, and counts towards the rate.

    Attributes:
        code: answer this ``ErrorCode`` and change nothing.
        status: answer this HTTP status, 200 to 999, with an HTML page, as a gateway would, and change nothing.
        body: answer these bytes and change nothing; ``b""`` is the empty body.
        drop: close the connection without an answer, ``"before"`` or ``"after"`` the change is made.
        truncate: make the change, then send half of the answer and close the connection.
        delay: seconds before the answer is sent, and after the change, if any, is made.
        endpoint: the only endpoint affected, by its method's name; every endpoint by default.
        times: the number of calls affected; unlimited by default.
        probability: the probability that a call is affected, above 0 and at most 1.
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
        kinds = (self.code, self.body if self.status is None else self.status, self.drop, self.truncate or None)
        chosen = sum(kind is not None for kind in kinds)
        if chosen > 1:
            raise ValueError("code, status or body, drop, and truncate exclude each other; choose one")
        if chosen == 0 and not self.delay:
            raise ValueError("a fault needs one of code, status, body, drop, truncate and delay")
        if self.drop not in (None, "before", "after"):
            raise ValueError(f"drop must be 'before' or 'after', not {self.drop!r}")
        if not 0.0 < self.probability <= 1.0:
            raise ValueError(f"probability must be above 0 and at most 1, not {self.probability}")
        if not 0.0 <= self.delay < math.inf:
            raise ValueError(f"delay must be at least 0 and finite, not {self.delay}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1, not {self.times}")
        if self.status is not None and not 200 <= self.status <= 999:  # 1xx only announces an answer
            raise ValueError(f"status must be from 200 to 999, not {self.status}")

    @property
    def kind(self) -> str:
        """Its name in the report, e.g. ``"code 10002"``, ``"status 502"`` or ``"dropped before"``."""
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
    def cuts_answer(self) -> bool:
        """Whether the connection is closed before the whole answer is sent."""
        return self.truncate or self.drop is not None

    @property
    def executes_call(self) -> bool:
        """Whether the call is executed, and only its answer is faulty."""
        return self.kind in ("dropped after", "truncated", "delayed")


class Faults:
    """The injected faults, and the random choice of the calls that they affect.  Thread-safe."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._active: list[tuple[Fault, float]] = []  # each with the number of calls left

    def add(self, fault: Fault) -> None:
        """Add a fault, after all earlier ones."""
        with self._lock:
            self._active.append((fault, math.inf if fault.times is None else fault.times))

    def clear(self, fault: Fault | None) -> None:
        """Remove the first fault equal to ``fault``; None for all."""
        with self._lock:
            if fault is None:
                self._active.clear()
            index = next((index for index, (one, _) in enumerate(self._active) if one == fault), None)
            if index is not None:
                del self._active[index]

    def active(self) -> tuple[Fault, ...]:
        """Return the active faults, in order."""
        with self._lock:
            return tuple(fault for fault, _ in self._active)

    def pick(self, endpoint: str) -> Fault | None:
        """Draw the fault of a call to ``endpoint``: the first that applies to it; None for no fault."""
        with self._lock:
            for index, (fault, left) in enumerate(self._active):
                applies = fault.endpoint in (None, endpoint)
                if applies and (fault.probability == 1.0 or self._random.random() < fault.probability):
                    self._active[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None
