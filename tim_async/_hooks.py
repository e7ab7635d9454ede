"""The record of an attempt, and the hooks of a client that receive it.

A hook is a function, or a `Telemetry`, which also gets errors and statistics.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ._lanes import Lane
from ._stats import EndpointStats
from .errors import TIMError

if TYPE_CHECKING:
    from ._call import Caller

_log = logging.getLogger("tim_async")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that has ended, as passed to the hook ``TIMClient(on_attempt=…)``.

    Attributes:
        endpoint: the method's name, or the command given to ``call``.
        number: 1 for a call's first request, 2 for its first retry, and so on.
        lane: interactive or bulk.
        waited: seconds spent waiting for its permit.
        took: seconds from sending to the end of the answer, or to the failure.
        code: the service's ``ErrorCode``, 0 for success; None if no readable answer came.
        error: the class name of the exception; None for success.
        status: the HTTP status; None if no answer came.
        url: the URL of the request, without the query; the second one if both hosts were tried.
        started: the time of sending, unix seconds.
        sdk_app_id: the app's SDKAppID.
    """

    endpoint: str
    number: int
    lane: Lane
    waited: float
    took: float
    code: int | None
    error: str | None
    status: int | None = None
    url: str = ""
    started: float = 0.0
    sdk_app_id: int = 0


Hook = Callable[[Attempt], object]


class Telemetry:
    """A hook for ``TIMClient(on_attempt=…)`` that gets errors and statistics as well as attempts.

    `OpenTelemetry` and `Prometheus` are subclasses; derive from this class to support another system.  One object
    serves any number of clients, event loops and threads: pass the same one to each client.  It keeps no client alive.

    Attributes:
        around: None, or a function that returns a context manager in which each request is sent.
    """

    around: Callable[[], AbstractContextManager[object]] | None = None

    def __init__(self) -> None:
        self._callers: weakref.WeakSet[Caller] = weakref.WeakSet()
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

    def watch(self, caller: Caller) -> None:
        """Watch a client: `stats` includes it until it is closed or garbage-collected."""
        with self._lock:
            self._callers.add(caller)

    def stats(self) -> dict[tuple[int, str], EndpointStats]:
        """Return the statistics of all open clients, by SDKAppID and endpoint; safe to call from any thread.

        The figures of one app's clients are added up, except those of a shared quota, which are the same for all.
        """
        with self._lock:
            callers = list(self._callers)
        merged: dict[tuple[int, str], EndpointStats] = {}
        for caller in callers:
            if not caller.closed:
                for name, stats in caller.channels.stats().items():
                    key = caller.settings.sdk_app_id, name
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

    def watch(self, caller: Caller) -> None:
        """Let each `Telemetry` watch the client."""
        for telemetry in self._telemetry:
            telemetry.watch(caller)

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
        if not hasattr(hook, "_callers"):
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
