"""The threads of the product's executors in virtual time: each function runs at once, some time after it was asked for.

`SerialExecutor` itself is the product's; only its thread and its queue are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from unittest import mock

from tests.simulation.world import ProcessLoop, World
from tim_async.migrate import _executor


class Host(Protocol):
    """A process, as its threads see it."""

    loop: ProcessLoop
    name: str

    def latency(self) -> float:
        """Seconds until a function has run that begins now."""

    def blocks(self, function: Callable[[], object]) -> None:
        """Run a function in a thread of the process."""


class Threads:
    """The threads of all processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._hosts: dict[ProcessLoop, Host] = {}

    def add(self, host: Host) -> None:
        """Have threads be known as those of a process by its loop."""
        self._hosts[host.loop] = host

    def of(self, loop: object) -> Host:
        """Whose loop it is."""
        assert isinstance(loop, ProcessLoop)
        return self._hosts[loop]

    def _queue(self) -> _Queue:
        return _Queue(self, asyncio.get_running_loop())

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Have every executor that is made now use these threads."""
        threading = types.SimpleNamespace(Thread=_Thread)
        with (
            mock.patch.object(time, "sleep", _no_sleep),
            mock.patch.object(_executor, "threading", threading),
            mock.patch.object(_executor, "SimpleQueue", self._queue),
        ):
            yield


def _no_sleep(_: float) -> None:
    raise RuntimeError("something waits for another process, which cannot run meanwhile")


class _Thread:
    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], **_: Any) -> None:
        queue, loop = args
        queue.work_off = lambda job: target(_Once(job), loop)

    def start(self) -> None:
        """It runs when there is something to do."""

    def join(self) -> None:
        """It has ended: who joins it has given it nothing more to do."""


class _Once:
    """A queue with one job."""

    def __init__(self, job: Any) -> None:
        self._left: deque[Any] = deque((job, None))

    def get(self) -> Any:
        return self._left.popleft()


class _Queue:
    def __init__(self, threads: Threads, loop: object) -> None:
        self._world = threads.world
        self._host = threads.of(loop)
        self._jobs: deque[Any] = deque()
        self.work_off: Callable[[Any], None]

    def put(self, job: Any) -> None:
        """Have a job be done after those before it."""
        if job is not None:
            self._jobs.append(job)
            if len(self._jobs) == 1:
                self._begin()

    def _begin(self) -> None:
        self._world.after(self._host.latency(), self._work)

    def _work(self) -> None:
        host = self._host
        if host.loop.dead:
            return
        job = self._jobs[0]
        host.blocks(lambda: self.work_off(job))
        self._jobs.popleft()
        if self._jobs:
            self._begin()
