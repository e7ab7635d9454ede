"""Hooks of a client: functions, called with each attempt, and `Telemetry`, which also gets errors and statistics."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from ._attempts import Attempt
from ._lanes import Lane
from ._stats import EndpointStats
from .errors import TIMError

_log = logging.getLogger("tim_async")
T = TypeVar("T")

Hook = Callable[[Attempt], object]


class StatsSource(Protocol):
    """A client as seen by a `Telemetry`."""

    @property
    def sdk_app_id(self) -> int:
        """The app's SDKAppID."""

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""

    def stats(self) -> dict[str, EndpointStats]:
        """Return the statistics of the endpoints used so far, by name."""


class Telemetry:
    """A hook for ``TIMClient(on_attempt=…)`` that gets errors and statistics as well as attempts.

    `OpenTelemetry` and `Prometheus` are subclasses; derive from this class to support another system.  One object
    serves any number of clients, event loops and threads: pass the same one to each client.  It keeps no client alive.

    Attributes:
        around: None, or a function that returns a context manager in which each request is sent.
    """

    around: Callable[[], AbstractContextManager[object]] | None = None

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[StatsSource] = weakref.WeakSet()
        self._lock = threading.Lock()

    def __call__(self, attempt: Attempt) -> object:
        """Handle an attempt that has ended; called in the context of its call."""

    def failed(self, sdk_app_id: int, endpoint: str, lane: Lane, error: TIMError) -> object:
        """Handle an error that a call or a look-up is about to raise, including `QuotaExhausted`.

        Args:
            sdk_app_id: the app's SDKAppID.
            endpoint: the method's name, or the command given to ``call``.
            lane: interactive or bulk.
            error: the error that the caller will see.
        """

    def watch(self, source: StatsSource) -> None:
        """Watch a client: `stats` includes it until it is closed or garbage-collected."""
        with self._lock:
            self._sources.add(source)

    def stats(self) -> dict[tuple[int, str], EndpointStats]:
        """Return the statistics of all open clients, by SDKAppID and endpoint; safe to call from any thread.

        The figures of one app's clients are added up, except those of a shared quota, which are the same for all.
        """
        with self._lock:
            sources = list(self._sources)
        merged: dict[tuple[int, str], EndpointStats] = {}
        for source in sources:
            if not source.closed:
                for name, stats in source.stats().items():
                    key = source.sdk_app_id, name
                    merged[key] = merged[key].plus(stats) if key in merged else stats
        return merged


class Hooks:
    """The hooks of one client.

    Args:
        given: a function or a `Telemetry`, several of them, or None.

    Raises:
        TypeError: a hook that is not callable or is a coroutine function, or a `Telemetry` that is not initialised.

    Attributes:
        surround: whether requests must be sent `inside` context managers.
    """

    __slots__ = ("_around", "_hooks", "_telemetry", "surround")

    def __init__(self, given: Hook | Iterable[Hook] | None) -> None:
        if given is not None and not callable(given) and not isinstance(given, Iterable):
            raise TypeError(f"on_attempt must be a function or an iterable of them, not {type(given).__name__}")
        self._hooks: tuple[Hook, ...] = () if given is None else (given,) if callable(given) else tuple(given)
        for hook in self._hooks:
            _check(hook)
        self._telemetry = tuple(hook for hook in self._hooks if isinstance(hook, Telemetry))
        self._around = tuple(each.around for each in self._telemetry if each.around is not None)
        self.surround: bool = bool(self._around)

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def watch(self, source: StatsSource) -> None:
        """Let each `Telemetry` watch the client."""
        for telemetry in self._telemetry:
            telemetry.watch(source)

    async def inside(self, request: Awaitable[T]) -> T:
        """Await a request inside the context managers of all `Telemetry` hooks."""
        with contextlib.ExitStack() as stack:
            for make in self._around:
                leave = _guarded(_enter, make)
                if leave is not None:
                    stack.callback(_guarded, leave, None, None, None)
            return await request

    def attempted(self, attempt: Attempt) -> None:
        """Report an attempt; an exception of a hook is logged and does not fail the call."""
        for hook in self._hooks:
            _guarded(hook, attempt)

    def failed(self, sdk_app_id: int, endpoint: str, lane: Lane, error: TIMError) -> None:
        """Report an error; an exception of a hook is logged."""
        for telemetry in self._telemetry:
            _guarded(telemetry.failed, sdk_app_id, endpoint, lane, error)


def _check(hook: object) -> None:
    """Raise a TypeError for a hook that would fail at each attempt, or never run."""
    if isinstance(hook, type) and issubclass(hook, Telemetry):
        raise TypeError(f"on_attempt must be an instance, {hook.__name__}(), not the class itself")
    called = [hook, type(hook).__call__] if callable(hook) else []
    if isinstance(hook, Telemetry):
        if not hasattr(hook, "_sources"):
            raise TypeError(f"on_attempt: {type(hook).__name__}.__init__ must call super().__init__()")
        called.append(hook.failed)
    if not called or any(map(inspect.iscoroutinefunction, called)):
        raise TypeError("on_attempt must be a plain function or an iterable of them; it is called, and not awaited")


def _guarded(call: Callable[..., T], *args: object) -> T | None:
    """Call a hook; if it raises, log the exception and return None."""
    try:
        return call(*args)
    except Exception:  # noqa: BLE001 - the caller's hook can raise anything
        _log.exception("an on_attempt hook raised; the call is not affected")
        return None


def _enter(make: Callable[[], AbstractContextManager[object]]) -> Callable[..., object]:
    """Enter a context manager, and return its ``__exit__``."""
    context = make()
    context.__enter__()
    return context.__exit__
