"""Determinism: randomness and clocks that depend only on the seed and the virtual time.

The product draws from the module `random` (ticks, jitter, permits of the fallback share; also tenacity's waits), from
`os.urandom` by way of `secrets`, `uuid` and `random.SystemRandom` (tokens), and reads `time` for wall clocks.  Within
`shut` all of these are deterministic; afterwards they are restored.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from unittest import mock

EPOCH = 1_750_000_000.0
"""The unix time at the world's beginning."""


@contextlib.contextmanager
def shut(seed: int, now: Callable[[], float]) -> Iterator[None]:
    """Derive randomness from a seed, and all clocks from a virtual time, seconds."""
    state = random.getstate()
    hidden = random.Random(f"{seed} urandom")
    random.seed(f"{seed} random")

    def urandom(size: int) -> bytes:
        return hidden.randbytes(size)

    def clock() -> float:
        return EPOCH + now()

    with contextlib.ExitStack() as patched:
        for module, name, value in (
            (os, "urandom", urandom),
            (random, "_urandom", urandom),  # SystemRandom, and so `secrets`, calls this
            (os, "getpid", lambda: 4242),
            (socket, "gethostname", lambda: "simulated"),
            (time, "time", clock),
            (time, "time_ns", lambda: int(clock() * 1e9)),
            (time, "monotonic", now),
            (time, "perf_counter", now),
        ):
            patched.enter_context(mock.patch.object(module, name, value))
        try:
            yield
        finally:
            random.setstate(state)
