"""The threads of the product's executors in virtual time: each function runs instantly, some time after its request.

`SerialExecutor` itself is the product's; only its thread and its queue are replaced.
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
    """A process, from the side of its threads."""

    loop: ProcessLoop
    name: str

    def latency(self) -> float:
        """Return the time of a function that begins now, seconds."""

    def blocks(self, function: Callable[[], object]) -> None:
        """Run a function in a thread of the process."""


class Threads:
    """The threads of all processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._hosts: dict[ProcessLoop, Host] = {}

    def add(self, host: Host) -> None:
        """Register a process, by its loop, as the owner of threads."""
        self._hosts[host.loop] = host

    def of(self, loop: object) -> Host:
        """Return the process of a loop."""
        assert isinstance(loop, ProcessLoop)
        return self._hosts[loop]

    def _queue(self) -> _Queue:
        return _Queue(self, asyncio.get_running_loop())

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Make every new executor use these threads."""
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
        """Do nothing: the thread runs whenever there is a job."""

    def join(self) -> None:
        """Do nothing: a thread that is joined has no job left."""


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
        """Queue a job."""
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
