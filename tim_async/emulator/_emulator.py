"""The emulator: its options, its start and stop, and access to its state, faults and report."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Self

from tim_async._loop_thread import LoopThread, require_sockets
from tim_async.emulator._apps import App
from tim_async.emulator._clocks import SteadyLoop, steady_clock, wall_clock
from tim_async.emulator._commands import COMMANDS, Commands, check_names
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._server import Latency, Server, Stall
from tim_async.emulator._service import Service
from tim_async.emulator._state import State
from tim_async.emulator._windows import Window, WindowKind

if TYPE_CHECKING:
    import ssl

DEFAULT_SDK_APP_ID = 1_400_000_000
DEFAULT_SECRET_KEY = "0123456789abcdef" * 4
"""The emulator's default key, as long as a real one.  It is no secret: nothing else uses it."""

_LIMIT = 200
_LAST_PORT = 65535


class Emulator(App):
    """An emulator of the service, on loopback: an app, and those that `add_app` adds.

    ``async with`` runs it in the running loop; plain ``with`` runs it in a thread of its own.  Every method may be
    called from any thread, before, during and after a run.  The state, the faults and the report outlive a run, and
    an emulator can be run again.  Entering raises `OSError` if the port is taken, and `RuntimeError` if sockets or
    threads are not available.

    Its attributes and credentials are those of its first app; `report` counts the calls of all of them.
    """

    _server: Server | None = None  # a class attribute, so that repr() works even if __init__ raises

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
        integer_read_time: bool = False,
        refuse_unknown_fields: bool = False,
        latency: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Configure the emulator; it listens once it is entered.

        Args:
            port: the port at 127.0.0.1; 0 for any free port.
            sdk_app_id: the app that it serves.
            secret_key: the app's secret key.
            admins: the identifiers that may call, at least one; they are also accounts.
            limit: calls a second, for each endpoint or by method name (200 for those not named); None for no limit.
            window: the shape of the rate window: a ``"sliding"`` second, a ``"calendar"`` second or a ``"bucket"``.
            bucket_capacity: the capacity of the bucket; the limit by default.
            count_refused: whether refused calls count in a sliding second too.
            rate_code: the ``ErrorCode`` of a call over the rate.
            max_msg_seqs: the maximum length of a ``MsgSeqList``; None, as documented, for no limit.
            max_receipt_members: the maximum size of a group whose messages have receipts, at least 0.
            contacts_per_page: the maximum number of conversations on a page of recent contacts, at least 1.
            integer_read_time: whether ``MsgReadTime`` may be an Integer, which some SDKs send and no document allows.
            refuse_unknown_fields: whether a request with an undocumented field is refused, by 10004 or 90001; by
                default such fields have no effect, and the report counts them.
            latency: the mean round trip, seconds, half of it before a call arrives and half after.
            jitter: the coefficient of variation of the round trip, lognormal.
            seed: seed of the faults, the jitter and the order of unordered lists.
            clock: the current time for everything, unix seconds, never running backwards.  By default signatures, read
                times and messages use ``time.time``, which freezegun and time-machine set, and rates use a monotonic
                clock, which they do not.
            ssl_context: serves HTTPS with its certificate; None for HTTP.

        Raises:
            ValueError: an option is out of its range, or ``limit`` names an endpoint that does not exist.
        """
        limits = _limits(limit)
        if not 0 <= port <= _LAST_PORT:
            raise ValueError(f"port must be from 0 to {_LAST_PORT}, not {port}")
        if not (clock is None or callable(clock)):
            raise ValueError(f"clock must be a function that returns unix seconds, not {clock!r}")

        def parts(sdk_app_id: int) -> tuple[Commands, dict[str, Window]]:
            """Make the parts of an app that depend on the options."""
            state = State(clock or wall_clock)
            rules = (max_msg_seqs, max_receipt_members, contacts_per_page, integer_read_time)
            windows = {
                name: Window(window, calls, capacity=bucket_capacity, count_refused=count_refused)
                for name, calls in limits.items()
                if calls is not None
            }
            return Commands(sdk_app_id, state, random.Random(seed), *rules), windows

        super().__init__(sdk_app_id, secret_key, admins, *parts(sdk_app_id), lambda: self.url)
        self._parts = parts
        self._faults = Faults(seed)
        self._service = Service(
            {str(sdk_app_id): self},
            rate_code,
            refuse_unknown_fields,
            clock or wall_clock,
            clock or steady_clock(),
            self._faults,
        )
        self._port = port
        self._latency = Latency(latency, jitter, seed)
        self._stall = Stall()
        self._ssl_context = ssl_context

    def __repr__(self) -> str:
        return f"<Emulator {self._server.url if self._server else 'not running'}>"

    @property
    def url(self) -> str:
        """Its URL, e.g. ``"http://127.0.0.1:8099"``.

        Raises:
            RuntimeError: it is not running.
        """
        if self._server is None:
            raise RuntimeError("the emulator is not running; enter it first, by `with` or `async with`")
        return self._server.url

    def add_app(
        self, sdk_app_id: int, secret_key: str = DEFAULT_SECRET_KEY, admins: Iterable[str] = ("administrator",)
    ) -> App:
        """Serve another app, with the same options, and with accounts, groups and rates of its own.

        Args:
            sdk_app_id: the app.
            secret_key: its secret key.
            admins: the identifiers that may call, at least one; they are also accounts.

        Raises:
            ValueError: the emulator already serves this app, or an argument is out of its range.
        """
        if str(sdk_app_id) in self._service.apps:
            raise ValueError(f"the app {sdk_app_id} exists already; choose another sdk_app_id")
        app = App(sdk_app_id, secret_key, admins, *self._parts(sdk_app_id), lambda: self.url)
        self._service.apps[str(sdk_app_id)] = app
        return app

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
        """Add a fault; `Fault` describes the arguments.  If several apply to a call, the first added takes effect.

        Raises:
            ValueError: the arguments contradict each other, or the endpoint does not exist.
        """
        fault = Fault(code, status, body, drop, truncate, delay, endpoint, times, probability, retry_after)
        if endpoint is not None:
            check_names([endpoint])
        self._faults.add(fault)
        return fault

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that are still active, in the order in which they were added."""
        return self._faults.active()

    def clear_faults(self, fault: Fault | None = None) -> None:
        """Remove faults.

        Args:
            fault: the fault to remove, the first of several equal ones; None for all.  An unknown fault is no error.
        """
        self._faults.clear(fault)

    def stall(self, seconds: float) -> None:
        """Send no answers for this many seconds.  Calls still arrive, are counted and executed."""
        self._stall.start(seconds)

    def resume(self) -> None:
        """End a stall now."""
        self._stall.end()

    async def __aenter__(self) -> Self:
        server = self._new_server()
        require_sockets("the emulator", loop=False)
        await server.__aenter__()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        assert server is not None
        await server.__aexit__()

    def __enter__(self) -> Self:
        server = self._new_server()
        self._thread = LoopThread(server, what="the emulator", name="tim-emulator", new_loop=SteadyLoop)
        self._thread.start()
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
            raise RuntimeError("the emulator is already running")
        return Server(self._service, self._port, self._latency, self._stall, self._ssl_context)


def _limits(limit: int | Mapping[str, int | None] | None) -> dict[str, int | None]:
    """Return the limit of each endpoint."""
    names = [command.name for command in COMMANDS.values()]
    if not isinstance(limit, Mapping):
        return dict.fromkeys(names, limit)
    check_names(limit)
    return {name: limit.get(name, _LIMIT) for name in names}
