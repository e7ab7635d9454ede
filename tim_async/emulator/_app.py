"""The HTTP of the emulator: from a request to an answer, faults, rate and latency on the way.

A call takes these steps: it travels, arrives (this is the moment the rate is counted by), may be over the rate, may
meet a fault, has its query, signature and body checked, is carried out, is held by a delay or a stall, and travels
back.  What decides is plain synchronous code; only the travelling awaits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import hdrs, web

from tim_async.emulator._answers import Refusal, failure, success
from tim_async.emulator._commands import COMMANDS, Command, World
from tim_async.emulator._delays import Latency, Stall
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._report import Ledger
from tim_async.emulator._signature import UserSigChecker
from tim_async.emulator._windows import Window

UNKNOWN_COMMAND = "(unknown command)"

_BY_PATH = {f"/{command.path}": command for command in COMMANDS}
_MOST_RANDOM = 2**32 - 1
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may call, and how often.

    Attributes:
        sdk_app_id: the one app there is.
        admins: the identifiers that may call.
        windows: each limited endpoint's window, by its method's name.
        rate_code: the ``ErrorCode`` of a call over the rate.
    """

    sdk_app_id: int
    admins: frozenset[str]
    windows: Mapping[str, Window]
    rate_code: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """What goes back: an answer, half of one, or none."""

    body: bytes
    status: int = 200
    content_type: str = _JSON
    retry_after: str | None = None
    delay: float = 0.0
    cut: Literal["", "whole", "half"] = ""


class App:
    """Serves requests; one instance lives as long as its emulator runs."""

    def __init__(
        self,
        rules: Rules,
        world: World,
        checker: UserSigChecker,
        *,
        faults: Faults,
        ledger: Ledger,
        latency: Latency,
        stall: Stall,
        clock: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._world = world
        self._checker = checker
        self._faults = faults
        self._ledger = ledger
        self._latency = latency
        self._stall = stall
        self._clock = clock
        self._in_flight: set[asyncio.Task[Any]] = set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            return await self._serve(request)
        finally:
            self._in_flight.discard(task)

    async def abandon(self) -> None:
        """Stop serving whatever is being served, without an answer."""
        tasks = tuple(self._in_flight)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            await _continue(request)
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _respond(_Answer(failure(93000, "the body is too large")))
        except (web.RequestPayloadError, ConnectionResetError):
            return _respond(_Answer(failure(60003, "the body is incomplete")))
        await self._latency.travel()
        answer = self._decide(request, raw)
        if answer.delay:
            await asyncio.sleep(answer.delay)
        await self._stall.wait()
        await self._latency.travel()
        if answer.cut:
            return await _cut_off(request, answer)
        return _respond(answer)

    def _decide(self, request: web.BaseRequest, raw: bytes) -> _Answer:
        now = self._clock()
        command = _BY_PATH.get(request.path)
        name = UNKNOWN_COMMAND if command is None else command.name
        self._ledger.arrive(name, now, raw)
        window = self._rules.windows.get(name)
        if window is not None and not window.admit(now):
            self._ledger.close(name, raw, code=self._rules.rate_code, refused=True)
            return _Answer(failure(self._rules.rate_code, "over the calls a second of this endpoint"))
        fault = self._faults.pick(name)
        if fault is not None and not fault.lets_the_call_through:
            self._ledger.close(name, raw, code=fault.code, fault=fault.kind)
            return _stand_in(fault)
        code, body = self._carry_out(request, command, raw, now)
        if fault is None:
            self._ledger.close(name, raw, code=code)
            return _Answer(body)
        lost = fault.truncate or fault.drop is not None
        self._ledger.close(name, raw, code=None if lost else code, fault=fault.kind)
        cut: Literal["", "whole", "half"] = "half" if fault.truncate else "whole" if fault.drop else ""
        return _Answer(body, delay=fault.delay, cut=cut)

    def _carry_out(
        self, request: web.BaseRequest, command: Command | None, raw: bytes, now: float
    ) -> tuple[int, bytes]:
        """The ``ErrorCode`` and the body of a call that meets no fault."""
        try:
            if request.method != hdrs.METH_POST:
                raise Refusal(60002, "the method must be POST")
            if command is None:
                raise Refusal(60009, "no such command")
            self._check_query(request.query, now)
            body = _parse(raw)
            with self._world.state.lock:
                fields = command.handle(self._world, body)
        except Refusal as refusal:
            return refusal.code, failure(refusal.code, refusal.info)
        return 0, success(fields)

    def _check_query(self, query: Mapping[str, str], now: float) -> None:
        sdk_app_id = query.get("sdkappid")
        if not sdk_app_id:
            raise Refusal(60012, "the query has no sdkappid")
        if sdk_app_id != str(self._rules.sdk_app_id):
            raise Refusal(60006, "no such SDKAppID")
        identifier = query.get("identifier")
        if not identifier:
            raise Refusal(60004, "the query has no identifier")
        number = query.get("random", "")
        # Eleven digits are too many whatever they are, and Python would refuse to read some thousands.
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and int(number) <= _MOST_RANDOM):
            raise Refusal(60002, "random must be an unsigned 32-bit integer")
        if query.get("contenttype") != "json":
            raise Refusal(60002, "contenttype must be json")
        self._checker.check(query.get("usersig", ""), identifier, now)
        if identifier not in self._rules.admins:
            raise Refusal(60010, "the identifier is not an administrator of the app")


async def _continue(request: web.BaseRequest) -> None:
    """Ask for the body of a caller that waits to be asked, as curl does before a long one."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer itself, nothing is written yet


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(60003, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(60003, "the body is not a JSON object")
    return body


def _stand_in(fault: Fault) -> _Answer:
    """What is answered in place of a call that was not carried out."""
    retry_after = None if fault.retry_after is None else str(fault.retry_after)
    if fault.drop is not None:
        return _Answer(b"", delay=fault.delay, cut="whole")
    if fault.code is not None:
        return _Answer(failure(fault.code, "a fault on request"), delay=fault.delay, retry_after=retry_after)
    status = 200 if fault.status is None else fault.status
    if fault.body is not None:
        return _Answer(fault.body, status, delay=fault.delay, retry_after=retry_after)
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return _Answer(page.encode(), status, "text/html", retry_after, fault.delay)


def _respond(answer: _Answer) -> web.Response:
    response = web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)
    if answer.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = answer.retry_after
    return response


async def _cut_off(request: web.BaseRequest, answer: _Answer) -> web.StreamResponse:
    """Close the connection with none or half of the answer sent."""
    transport = request.transport
    if answer.cut == "half":
        response = web.StreamResponse(status=answer.status)
        response.content_type = answer.content_type
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
    else:
        response = web.Response()
    if transport is not None:
        transport.close()
    return response
