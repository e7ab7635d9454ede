"""The service, which counts arrivals by a window and answers, and the network to it.

Its replies are those that `_wire.decode` reads.  The request of a call that times out arrives before its connection
ends, or never: the guarantee of the slots depends on this.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from tim_async._secret import Secret
from tim_async._transport import Addressed
from tim_async._wire import Response
from tim_async.emulator._windows import Window
from tim_async.errors import ClientClosed, ConnectFailed, ConnectionLost, RequestTimeout

from .network import Path
from .world import ProcessLoop, World


@dataclass
class Weather:
    """The current faults of the service and of the network to it.

    Attributes:
        lost: the share of requests that never arrive, without an error of the connection.
        dropped: the share of calls whose connection ends after they arrived.
        refused: the share of calls that get no connection.
        busy: the share of calls answered with a transient error.
        paused: the share of calls answered with HTTP 503 and a Retry-After of ``pause`` seconds.
        more: seconds added to each one-way delay.
    """

    lost: float = 0.0
    dropped: float = 0.0
    refused: float = 0.0
    busy: float = 0.0
    paused: float = 0.0
    pause: int = 1
    more: float = 0.0


class Host(Protocol):
    """A process, from the side of the service and the network."""

    loop: ProcessLoop
    name: str


@dataclass(eq=False)
class Flight:
    """One attempt.

    Attributes:
        host: its sender.
        account: the account in the request, which identifies the call.
        sent: the time of sending, in the world's time.
        request: the request's fields.
        arrived: whether it has reached the service.
    """

    host: Host
    account: str
    sent: float
    answer: asyncio.Future[Response]
    request: dict[str, Any]
    arrived: bool = False
    ended: bool = False


@dataclass
class Counts:
    """The service's counts.

    Attributes:
        taken: accepted calls of the fleet.
        refused: refused calls of the fleet.
        foreign: calls of other consumers.
    """

    taken: int = 0
    refused: int = 0
    foreign: int = 0


class Service:
    """One endpoint of the service.

    Args:
        world: its world.
        window: its rate window.
        watcher: the observer of every arrival: a `Watch`, of a fleet or of a migration.
    """

    def __init__(self, world: World, window: Window, watcher: Any) -> None:
        self.world = world
        self.dice = world.dice("service")
        self.window = window
        self.weather = Weather()
        self.counts = Counts()
        self.watcher = watcher

    def arrive(self, flight: Flight, back: float) -> None:
        """Handle the arrival of a request."""
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
            paused = Response(503, b"", {"Retry-After": str(weather.pause)}, proxied=False)
            world.after(back, flight.host.loop.arrive, answer, flight, paused)
            return
        code = 60007 if not taken else 10002 if weather.busy and dice.random() < weather.busy else 0
        world.after(back, flight.host.loop.arrive, answer, flight, self.reply(code, flight))

    def account_of(self, request: dict[str, Any]) -> str:
        """Return the account in a request."""
        return str(request["To_Account"])

    def reply(self, code: int, flight: Flight) -> Response:
        """Make the answer to a request, by its code."""
        if code:
            return failure(code)
        peers = flight.request.get("Peer_Account")
        if peers is None:
            return success(AllC2CUnreadMsgNum=7)
        return success(C2CUnreadMsgNumList=[{"Peer_Account": p, "C2CUnreadMsgNum": 1} for p in peers])

    def delivered(self, flight: Flight, reply: Response) -> None:
        """Handle the delivery of an answer; a hook for subclasses."""

    def take_foreign(self, refusable: bool) -> None:
        """Count a call of another consumer of the same limit."""
        self.counts.foreign += 1
        (self.window.admit if refusable else self.window.fill)(self.world.now)


def failure(code: int) -> Response:
    """Make an answer with an error code."""
    return _reply({"ActionStatus": "FAIL", "ErrorInfo": "simulated", "ErrorCode": code})


def success(**fields: Any) -> Response:
    """Make a successful answer."""
    return _reply({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **fields})


def _reply(body: dict[str, Any]) -> Response:
    return Response(200, json.dumps(body).encode(), {}, proxied=False)


def answer(flight: Flight, reply: Response) -> None:
    """Deliver the reply."""
    if not flight.answer.done():
        flight.answer.set_result(reply)


def fail(waiting: asyncio.Future[Response], error: Exception) -> None:
    """Fail a waiting call because its connection has ended."""
    if not waiting.done():
        waiting.set_exception(error)


class _UserSigs:
    """A stand-in for the signer, because this network needs no signatures."""

    _usersig = Secret("simulated")

    def current(self, _now: float) -> Secret:
        return self._usersig

    def refused(self, usersig: Secret) -> None:
        raise RuntimeError("the simulated service refuses no UserSig")


@dataclass(eq=False)
class Wire:
    """A stand-in for `Transport`: one process's network to the service.

    Attributes:
        sent: the number of attempts sent.
        in_flight: the attempts whose connections have not ended.
        pause: the begin and the end of the last pause that the service asked for, in the world's time.
    """

    service: Service
    host: Host
    path: Path
    usersigs: _UserSigs = field(default_factory=_UserSigs)
    sent: int = 0
    in_flight: dict[int, Flight] = field(default_factory=dict)
    pause: tuple[float, float] = (-1.0, -1.0)
    closed: bool = False

    def open(self) -> None:
        """Do nothing: there is no session."""

    async def aclose(self) -> None:
        """End all connections, as a session does on closing."""
        self.closed = True
        for flight in [*self.in_flight.values()]:
            self._end(flight)
            fail(flight.answer, ClientClosed("the session was closed"))

    def vanish(self) -> None:
        """End all connections of a killed process."""
        for flight in [*self.in_flight.values()]:
            self._end(flight)

    async def send(
        self, command: str, payload: bytes, usersig: Secret, seconds: float, addressed: Addressed
    ) -> Response:
        """Send one request and return the reply."""
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
        self.in_flight[id(flight)] = flight
        service.watcher.sending(self.host, flight.account)
        if weather.refused and dice.random() < weather.refused:
            world.after(there + back, self.host.loop.arrive, fail, flight.answer, ConnectFailed("no connection"))
            flight.arrived = True  # it will never arrive
        elif not weather.lost or dice.random() >= weather.lost:
            world.after(there, service.arrive, flight, back)
        try:
            async with asyncio.timeout(seconds):
                reply = await flight.answer
        except TimeoutError:
            raise RequestTimeout("no answer in time") from None
        finally:
            self._end(flight)
        service.delivered(flight, reply)
        if reply.retry_after is not None:
            self.pause = world.now, max(self.pause[1], world.now + reply.retry_after)
            service.watcher.paused(*self.pause)
        return reply

    def _end(self, flight: Flight) -> None:
        """End the connection: a request still in flight arrives now, or never."""
        if self.in_flight.pop(id(flight), None) is not None and not flight.arrived:
            if self.service.dice.random() < 0.5:
                self.service.arrive(flight, 0.0)
            flight.arrived = True
