"""The emulator: its options, its life, and access to its state, faults and report."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self

from tim_async.emulator._commands import COMMANDS, Commands, check_names
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._report import CallLog, Report
from tim_async.emulator._server import Latency, Server, Stall
from tim_async.emulator._service import Service
from tim_async.emulator._state import State
from tim_async.emulator._threads import LoopThread, require_sockets
from tim_async.emulator._windows import Window, WindowKind

DEFAULT_SDK_APP_ID = 1_400_000_000
DEFAULT_SECRET_KEY = "0123456789abcdef" * 4
"""The emulator's own key, as long as a real one.  It opens nothing else."""

_LIMIT = 200


class Emulator:
    """The service, on loopback.

    ``async with`` runs it in the running loop; plain ``with`` runs it in a thread of its own.  Every method may be
    called from any thread, before, during and after a run.  The state, the faults and the report outlive a run, and
    an emulator can be run again.  Entering raises `OSError` where the port is taken, and `RuntimeError` where sockets
    or threads are not available.

    Attributes:
        sdk_app_id: the app it serves.
        secret_key: the key with which every UserSig must be made.
        identifier: an administrator who may call it, the first of those given.
        state: its state, to fill and read.
    """

    _server: Server | None = None  # of the class, so that crash reports can show an emulator with refused options

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
            port: the port at 127.0.0.1; 0 for any free port.
            sdk_app_id: the app it serves.
            secret_key: the app's secret key.
            admins: the identifiers that may call, at least one; they are accounts, too.
            limit: calls a second, for each endpoint or by method name (200 for those not named); None for no limit.
            window: how calls are counted: in a ``"sliding"`` second, a ``"calendar"`` second or a ``"bucket"``.
            bucket_capacity: the capacity of the bucket; the limit by default.
            count_refused: whether refused calls fill a sliding second too.
            rate_code: the ``ErrorCode`` of a call over the rate.
            max_msg_seqs: the most items of one ``MsgSeqList``; None, as documented, for no limit.
            max_receipt_members: the most members of a group whose messages have receipts, at least 0.
            contacts_per_page: the most conversations of one page of recent contacts, at least 1.
            latency: the mean of a round trip, seconds, half of it before a call arrives and half after.
            jitter: the coefficient of variation of the round trip, lognormal.
            seed: seed of the faults, the jitter and the order of answers that have none.
            clock: the current time, unix seconds, never running backwards, for rates, signatures and read times.

        Raises:
            ValueError: an option out of its range, or a limit for an endpoint that does not exist.
        """
        admins = (admins,) if isinstance(admins, str) else tuple(admins)
        if not admins:
            raise ValueError("admins must name at least one administrator")
        self.sdk_app_id = sdk_app_id
        self.secret_key = secret_key
        self.identifier: str = admins[0]
        clock = clock or _steady_clock()
        self.state: State = State(clock)
        self.state.add_account(*admins)
        self._faults = Faults(seed)
        self._log = CallLog()
        self._service = Service(
            Commands(self.state, random.Random(seed), max_msg_seqs, max_receipt_members, contacts_per_page),
            sdk_app_id,
            secret_key,
            admins,
            {
                name: Window(window, calls, capacity=bucket_capacity, count_refused=count_refused)
                for name, calls in _limits(limit).items()
                if calls is not None
            },
            rate_code,
            clock,
            self._faults,
            self._log,
        )
        self._port = port
        self._latency = Latency(latency, jitter, seed)
        self._stall = Stall()

    def __repr__(self) -> str:
        return f"<Emulator {self._server.url if self._server else 'not running'}>"

    @property
    def url(self) -> str:
        """Its URL, e.g. ``"http://127.0.0.1:8099"``.

        Raises:
            RuntimeError: it is not running.
        """
        if self._server is None:
            raise RuntimeError("the emulator is not running")
        return self._server.url

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
        """Add a `Fault`, which describes the arguments.  Of several that apply to a call, it meets the first added.

        Raises:
            ValueError: it contradicts itself, or the endpoint does not exist.
        """
        fault = Fault(code, status, body, drop, truncate, delay, endpoint, times, probability, retry_after)
        if endpoint is not None:
            check_names([endpoint])
        self._faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Remove every fault."""
        self._faults.clear()

    def stall(self, seconds: float) -> None:
        """Send no answer until this many seconds from now.  Calls still arrive, are counted and carried out."""
        self._stall.start(seconds)

    def resume(self) -> None:
        """End a stall now."""
        self._stall.end()

    def report(self) -> Report:
        """Counts of the calls so far."""
        return self._log.report()

    async def __aenter__(self) -> Self:
        server = self._new_server()
        require_sockets(loop=False)
        await server.__aenter__()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        assert server is not None
        await server.__aexit__()

    def __enter__(self) -> Self:
        server = self._new_server()
        self._thread = LoopThread(server)
        self._server = server
        return self

    def __exit__(self, *_: object) -> None:
        server, self._server = self._server, None
        assert server is not None
        try:
            self._thread.leave()
        finally:
            if not self._thread.is_alive:
                server.release_port()

    def _new_server(self) -> Server:
        if self._server is not None:
            raise RuntimeError("the emulator is running already")
        return Server(self._service, self._port, self._latency, self._stall)


def _steady_clock() -> Callable[[], float]:
    """Unix time that no correction of the system's clock can turn back."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


def _limits(limit: int | Mapping[str, int | None] | None) -> dict[str, int | None]:
    """The limit of each endpoint."""
    names = [command.name for command in COMMANDS.values()]
    if not isinstance(limit, Mapping):
        return dict.fromkeys(names, limit)
    check_names(limit)
    return {name: limit.get(name, _LIMIT) for name in names}
