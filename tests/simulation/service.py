"""The service: it counts what arrives by a window of some shape, and answers; and the way to it.

Its replies are what `_wire.decode` reads.  A call that is given up while its request is on the way arrives when its
connection ends at the latest, or never: that is what the promise of the slots rests on.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from tim_async._secret import Secret
from tim_async._transport import Addressed
from tim_async._wire import Reply
from tim_async.emulator._windows import Window
from tim_async.errors import ClientClosed, ConnectFailed, ConnectionLost, RequestTimeout

from .network import Path
from .world import ProcessLoop, World


@dataclass
class Weather:
    """What befalls calls, by the service or on the way to it.

    Attributes:
        lost: share of requests that never arrive, and whose connection says nothing.
        dropped: share of calls whose connection ends after they arrived.
        refused: share of calls that find no connection.
        busy: share of calls answered with a transient error.
        paused: share of calls answered with HTTP 503 and a Retry-After of ``pause`` seconds.
        more: seconds added to each way.
    """

    lost: float = 0.0
    dropped: float = 0.0
    refused: float = 0.0
    busy: float = 0.0
    paused: float = 0.0
    pause: int = 1
    more: float = 0.0


class Watcher(Protocol):
    """What is told of every arrival."""

    def arrived(self, flight: Flight, taken: bool) -> None:
        """A call of the fleet's is at the service, which took or refused it."""


class Host(Protocol):
    """A process, as the service and the network see it."""

    loop: ProcessLoop
    name: str


@dataclass(eq=False)
class Flight:
    """One attempt.

    Attributes:
        host: who sent it.
        account: whom the request is about: it identifies the call.
        sent: the world's time.
        request: what is asked.
        arrived: whether it is at the service.
    """

    host: Host
    account: str
    sent: float
    answer: asyncio.Future[Reply]
    request: dict[str, Any]
    arrived: bool = False
    ended: bool = False


@dataclass
class Counts:
    """What the service has seen.

    Attributes:
        taken: the fleet's calls that were taken.
        refused: the fleet's calls that were not.
        foreign: calls of other consumers.
    """

    taken: int = 0
    refused: int = 0
    foreign: int = 0


class Service:
    """One endpoint of the service.

    Args:
        world: where it is.
        window: how it counts.
        watcher: told of every arrival.
    """

    def __init__(self, world: World, window: Window, watcher: Any) -> None:
        self.world = world
        self.dice = world.dice("service")
        self.window = window
        self.weather = Weather()
        self.counts = Counts()
        self.watcher = watcher

    def arrive(self, flight: Flight, back: float) -> None:
        """A request is here."""
        if flight.arrived:
            return
        flight.arrived = True
        world = self.world
        taken = self.window.admit(world.now)
        if taken:
            self.counts.taken += 1
        else:
            self.counts.refused += 1
        self.watcher.arrived(flight, taken)
        dice, weather = self.dice, self.weather
        if weather.dropped and dice.random() < weather.dropped:
            world.after(back, flight.host.loop.arrive, fail, flight.answer, ConnectionLost("the connection was lost"))
            return
        if taken and weather.paused and dice.random() < weather.paused:
            paused = Reply(503, b"", float(weather.pause), proxied=False, headers={})
            world.after(back, flight.host.loop.arrive, answer, flight, paused)
            return
        code = 60007 if not taken else 10002 if weather.busy and dice.random() < weather.busy else 0
        world.after(back, flight.host.loop.arrive, answer, flight, self.reply(code, flight))

    def account_of(self, request: dict[str, Any]) -> str:
        """Whom a request is about."""
        return str(request["To_Account"])

    def reply(self, code: int, flight: Flight) -> Reply:
        """The answer to a request, by its code."""
        if code:
            return failure(code)
        peers = flight.request.get("Peer_Account")
        if peers is None:
            return success(AllC2CUnreadMsgNum=7)
        return success(C2CUnreadMsgNumList=[{"Peer_Account": p, "C2CUnreadMsgNum": 1} for p in peers])

    def heard(self, flight: Flight, reply: Reply) -> None:
        """The process has the answer; for a service that wants to know."""

    def take_foreign(self, refusable: bool) -> None:
        """A call of another consumer of the same limit."""
        self.counts.foreign += 1
        (self.window.admit if refusable else self.window.fill)(self.world.now)


def failure(code: int) -> Reply:
    """An answer that says what is wrong."""
    return _reply({"ActionStatus": "FAIL", "ErrorInfo": "simulated", "ErrorCode": code})


def success(**fields: Any) -> Reply:
    """An answer that says that all is well."""
    return _reply({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **fields})


def _reply(body: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode(), None, proxied=False, headers={})


def answer(flight: Flight, reply: Reply) -> None:
    """The reply is back."""
    if not flight.answer.done():
        flight.answer.set_result(reply)


def fail(waiting: asyncio.Future[Reply], error: Exception) -> None:
    """The connection has ended."""
    if not waiting.done():
        waiting.set_exception(error)


class _UserSigs:
    """Signs nothing: the way here has no use for it."""

    _usersig = Secret("simulated")

    def current(self) -> Secret:
        return self._usersig

    def refused(self, usersig: Secret) -> None:
        raise RuntimeError("the simulated service refuses no UserSig")


@dataclass(eq=False)
class Wire:
    """What stands in for `Transport`: one process's way to the service.

    Attributes:
        sent: attempts sent so far.
        under_way: those whose connection has not ended.
        pause: when it was last told to pause, and until when; the world's time.
    """

    service: Service
    host: Host
    path: Path
    usersigs: _UserSigs = field(default_factory=_UserSigs)
    sent: int = 0
    under_way: dict[int, Flight] = field(default_factory=dict)
    pause: tuple[float, float] = (-1.0, -1.0)
    closed: bool = False

    def open(self) -> None:
        """Nothing: there is no session."""

    async def aclose(self) -> None:
        """As a session that is closed: connections end."""
        self.closed = True
        for flight in [*self.under_way.values()]:
            self._end(flight)
            fail(flight.answer, ClientClosed("the session was closed"))

    def vanish(self) -> None:
        """The process was killed."""
        for flight in [*self.under_way.values()]:
            self._end(flight)

    async def send(self, command: str, payload: bytes, usersig: Secret, seconds: float, addressed: Addressed) -> Reply:
        """Send one request."""
        addressed.host = "https://service"
        service, dice = self.service, self.service.dice
        world, weather = service.world, service.weather
        loop = asyncio.get_running_loop()
        self.sent += 1
        if self.closed:
            raise ClientClosed("the session is closed")
        request = json.loads(payload)
        flight = Flight(self.host, service.account_of(request), world.now, loop.create_future(), request)
        there, back = self.path.delay(dice) + weather.more, self.path.delay(dice) + weather.more
        self.under_way[id(flight)] = flight
        service.watcher.sending(self.host, flight.account)
        if weather.refused and dice.random() < weather.refused:
            world.after(there + back, self.host.loop.arrive, fail, flight.answer, ConnectFailed("no connection"))
            flight.arrived = True  # it never leaves
        elif not weather.lost or dice.random() >= weather.lost:
            world.after(there, service.arrive, flight, back)
        try:
            async with asyncio.timeout(seconds):
                reply = await flight.answer
        except TimeoutError:
            raise RequestTimeout("no answer in time") from None
        finally:
            self._end(flight)
        service.heard(flight, reply)
        if reply.retry_after is not None:
            self.pause = world.now, max(self.pause[1], world.now + reply.retry_after)
            service.watcher.paused(*self.pause)
        return reply

    def _end(self, flight: Flight) -> None:
        """The connection ends: a request that is still on its way is there now, or never."""
        if self.under_way.pop(id(flight), None) is not None and not flight.arrived:
            if self.service.dice.random() < 0.5:
                self.service.arrive(flight, 0.0)
            flight.arrived = True
