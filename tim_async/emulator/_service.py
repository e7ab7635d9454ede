"""The emulator itself: its options, its life, and the handles on its state, faults and report."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self

from aiohttp import web

from tim_async.emulator._app import App, Rules
from tim_async.emulator._commands import COMMANDS, World
from tim_async.emulator._delays import Latency, Stall
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._report import Ledger, Report
from tim_async.emulator._signature import UserSigChecker
from tim_async.emulator._state import State
from tim_async.emulator._threads import LoopThread, require_sockets
from tim_async.emulator._windows import Window, WindowKind, make_window

DEFAULT_SDK_APP_ID = 1_400_000_000
DEFAULT_SECRET_KEY = "0123456789abcdef" * 4
"""The emulator's own key, as long as a real one is.  It opens nothing else."""

_HOST = "127.0.0.1"
_LIMIT = 200


class Emulator:
    """The service, on loopback.

    ``async with`` runs it in the loop that is running; plain ``with`` runs it in a thread of its own.  Every method
    may be called from any thread, before, during and after.  The state, the faults and the report outlive a run, and
    one emulator can be run again.  Entering raises `OSError` where the port is taken, and `RuntimeError` where sockets
    or threads cannot be had.

    Attributes:
        sdk_app_id: the app it serves.
        secret_key: the key every UserSig must be made with.
        identifier: an administrator who may call it, the first of those given.
        state: what it remembers; fill it and read it.
    """

    _url = ""  # of the class, so that crash reports can show an emulator whose options were refused

    def __init__(
        self,
        *,
        port: int = 0,
        sdk_app_id: int = DEFAULT_SDK_APP_ID,
        secret_key: str = DEFAULT_SECRET_KEY,
        admins: Iterable[str] = ("administrator",),
        limit: int | Mapping[str, int | None] | None = _LIMIT,
        window: WindowKind = "sliding",
        bucket_capacity: int | None = None,
        count_refused: bool = False,
        rate_code: int = 60007,
        max_msg_seqs: int | None = None,
        max_receipt_members: int = 200,
        contacts_per_page: int = 100,
        latency: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Describe the service; it listens once it is entered.

        Args:
            port: to listen on at 127.0.0.1; 0 for any that is free.
            sdk_app_id: the app it serves.
            secret_key: the app's secret key.
            admins: the identifiers that may call, at least one; they are accounts, too.
            limit: calls a second, for each endpoint or by method name (200 for those not named); None for no limit.
            window: how they are counted: in a ``"sliding"`` second, a ``"calendar"`` second or a ``"bucket"``.
            bucket_capacity: what the bucket holds; the limit by default.
            count_refused: whether refused calls fill a sliding second too.
            rate_code: the ``ErrorCode`` of a call over the rate.
            max_msg_seqs: the most items of one ``MsgSeqList``; None, as documented, for no such limit.
            max_receipt_members: the most members of a group whose messages have receipts, at least 0.
            contacts_per_page: the most conversations of one page of recent contacts, at least 1.
            latency: the mean of a round trip, seconds, half of it before a call arrives and half after.
            jitter: the coefficient of variation of the round trip, lognormal.
            seed: of the faults' dice, the jitter and the order of answers that have none.
            clock: what time it is, unix seconds, never running backwards; judges rates, signatures and read times.

        Raises:
            ValueError: an option out of its range, or a limit for an endpoint that there is not.
        """
        self.sdk_app_id = sdk_app_id
        self.secret_key = secret_key
        who = (admins,) if isinstance(admins, str) else tuple(admins)
        if not who:
            raise ValueError("an app has at least one administrator")
        self.identifier: str = who[0]
        if max_receipt_members < 0 or contacts_per_page < 1:
            raise ValueError(
                "max_receipt_members must be at least 0 and contacts_per_page at least 1, "
                f"not {max_receipt_members} and {contacts_per_page}"
            )
        clock = clock or _steady_clock()
        self.state: State = State(clock)
        self.state.add_account(*who)
        self._faults = Faults(seed)
        self._ledger = Ledger()
        self._stall = Stall()
        self._app = App(
            Rules(
                sdk_app_id,
                frozenset(who),
                _windows(limit, window, capacity=bucket_capacity, count_refused=count_refused),
                rate_code,
            ),
            World(self.state, random.Random(seed), max_msg_seqs, max_receipt_members, contacts_per_page),
            UserSigChecker(sdk_app_id, secret_key),
            faults=self._faults,
            ledger=self._ledger,
            latency=Latency(latency, jitter, seed),
            stall=self._stall,
            clock=clock,
        )
        self._port = port
        self._runner: web.ServerRunner | None = None
        self._listener: socket.socket | None = None
        self._thread: LoopThread | None = None

    def __repr__(self) -> str:
        return f"<Emulator {self._url or 'not running'}>"

    @property
    def url(self) -> str:
        """Where it is, e.g. ``"http://127.0.0.1:8099"``.

        Raises:
            RuntimeError: it is not running.
        """
        if not self._url:
            raise RuntimeError("the emulator is not running")
        return self._url

    def client_options(self) -> dict[str, Any]:
        """The keyword arguments that make a ``TIMClient`` talk to this emulator: ``TIMClient(**…)``.

        Raises:
            RuntimeError: it is not running.
        """
        return {
            "base_url": self.url,
            "sdk_app_id": self.sdk_app_id,
            "secret_key": self.secret_key,
            "identifier": self.identifier,
        }

    def fault(
        self,
        *,
        code: int | None = None,
        status: int | None = None,
        body: bytes | None = None,
        drop: Literal["before", "after"] | None = None,
        truncate: bool = False,
        delay: float = 0.0,
        endpoint: str | None = None,
        times: int | None = None,
        probability: float = 1.0,
        retry_after: str | int | None = None,
    ) -> Fault:
        """Ask for a `Fault`, which describes the arguments; of several, the first asked for that applies is taken.

        Raises:
            ValueError: it contradicts itself, or there is no such endpoint.
        """
        fault = Fault(code, status, body, drop, truncate, delay, endpoint, times, probability, retry_after)
        if endpoint is not None:
            _check_names([endpoint])
        self._faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Inject no fault any more."""
        self._faults.clear()

    def stall(self, seconds: float) -> None:
        """Answer nothing for so many seconds from now.  Calls still arrive, are counted and carried out."""
        self._stall.start(seconds)

    def resume(self) -> None:
        """End a stall at once."""
        self._stall.end()

    def report(self) -> Report:
        """What it saw so far."""
        return self._ledger.report()

    async def __aenter__(self) -> Self:
        require_sockets()
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def __enter__(self) -> Self:
        self._refuse_to_start_twice()
        require_sockets()
        thread = LoopThread("tim-emulator")
        try:
            thread.run(self._start())
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        return self

    def __exit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        try:
            thread.run(self._stop())
        finally:
            self._forget()
            thread.close()

    async def _start(self) -> None:
        self._refuse_to_start_twice()
        # No access log: the request line holds the UserSig.  A compressed body is not JSON: no document allows one.
        server = web.Server(self._app, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.1)
        self._runner = runner
        try:
            await runner.setup()
            self._listener = socket.create_server((_HOST, self._port))
            await web.SockSite(runner, self._listener).start()
            self._url = f"http://{_HOST}:{self._listener.getsockname()[1]}"
        except BaseException:
            await self._stop()
            raise

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        self._url = ""
        assert runner is not None
        if self._listener is not None:
            # asyncio trips over a connection that was accepted but has no transport yet when its listener is closed,
            # and leaks it.  So first no more are accepted, then those that were become the server's, and only then is
            # the listener closed.  Windows' loop accepts in another way, which has neither that gap nor readers.
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().remove_reader(self._listener)
            await _turn_the_loop()
            for site in tuple(runner.sites):
                await site.stop()
            self._listener.close()
            self._listener = None
        # Before the runner's own clean-up, which would wait for calls that a stall or a delay is holding.
        await self._app.abandon()
        await runner.cleanup()
        await _turn_the_loop()

    def _forget(self) -> None:
        """Free the port and allow another start, where the loop could not stop the server."""
        self._runner, self._url = None, ""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _refuse_to_start_twice(self) -> None:
        if self._runner is not None:
            raise RuntimeError("the emulator is running already")


async def _turn_the_loop() -> None:
    """Let asyncio finish what it has begun with its sockets.

    A connection accepted a moment ago is the server's only after two turns of the loop, and one that was closed lets
    go of its socket in the turn that follows.  What is not waited for here would be left open behind us.
    """
    for _ in range(3):
        await asyncio.sleep(0)


def _steady_clock() -> Callable[[], float]:
    """Unix time that no correction of the system's clock can turn back."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


def _windows(
    limit: int | Mapping[str, int | None] | None,
    kind: WindowKind,
    *,
    capacity: int | None,
    count_refused: bool,
) -> dict[str, Window]:
    names = [command.name for command in COMMANDS]
    if isinstance(limit, Mapping):
        _check_names(limit)
        limits = {name: limit.get(name, _LIMIT) for name in names}
    else:
        limits = dict.fromkeys(names, limit)
    return {
        name: make_window(kind, calls, capacity=capacity, count_refused=count_refused)
        for name, calls in limits.items()
        if calls is not None
    }


def _check_names(names: Iterable[str]) -> None:
    known = {command.name for command in COMMANDS}
    for name in names:
        if name not in known:
            raise ValueError(f"no such endpoint: {name!r}; there are {', '.join(sorted(known))}")
