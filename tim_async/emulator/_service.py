"""The service without its HTTP server: from a request to an answer, in plain synchronous code.

A call goes through these steps: its arrival, which counts towards the rate; the rate limit; an injected fault; the
checks of query, signature and body; its execution.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from aiohttp import hdrs

from tim_async.emulator._answers import Answer, Refusal, json_answer
from tim_async.emulator._apps import App
from tim_async.emulator._commands import COMMANDS, Command
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._fields import unknown_fields
from tim_async.emulator._signature import valid_until

_MAX_RANDOM = 2**32 - 1
_MAX_NAMED_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Service:
    """The service: it answers requests.

    Attributes:
        apps: the apps, by their SDKAppID as text; calls that name none of them count for the first, whose report counts
            those of all.
        rate_code: the ``ErrorCode`` of a call over the rate.
        refuse_unknown_fields: whether a request with an undocumented field is refused.
        clock: the current time, unix seconds, by which signatures expire.
        rate_clock: the time by which calls are counted, seconds, never running backwards.
        faults: the injected faults.
    """

    apps: dict[str, App]
    rate_code: int
    refuse_unknown_fields: bool
    clock: Callable[[], float]
    rate_clock: Callable[[], float]
    faults: Faults

    def answer(self, method: str, path: str, query: Mapping[str, str], raw: bytes) -> Answer:
        """Answer a request that arrives now.

        Args:
            method: its HTTP method.
            path: its path, with the leading ``/``.
            query: its query.
            raw: its body.
        """
        now = self.rate_clock()
        command = COMMANDS.get(path[1:])
        name = path[1:] if command is None else command.name
        first = next(iter(self.apps.values()))
        app = self.apps.get(query.get("sdkappid", ""), first)
        window = app._windows.get(name)  # noqa: SLF001 - of this package, as below
        refused = window is not None and not window.admit(now)
        fault = None if refused else self.faults.pick(name)
        unknown: Collection[str] = ()
        if refused:
            answer = json_answer(self.rate_code, "over the rate limit of this endpoint")
        elif fault is not None and not fault.executes_call:
            answer = _faulty_answer(fault)
        else:
            answer, unknown = self._execute(app, method, command, query, raw)
        for counting in {first, app}:
            counting._log.add(  # noqa: SLF001
                name,
                now,
                raw,
                code=None if fault is not None and fault.cuts_answer else answer.code,
                known=command is not None,
                refused=refused,
                fault=fault.kind if fault else None,
                unknown_fields=unknown,
            )
        return replace(answer, fault=fault)

    def _execute(
        self, app: App, method: str, command: Command | None, query: Mapping[str, str], raw: bytes
    ) -> tuple[Answer, Collection[str]]:
        """Execute a call that is within the rate; return its answer and the undocumented fields of its body."""
        unknown: Collection[str] = ()
        try:
            if method != hdrs.METH_POST:
                raise Refusal(60002, "the method must be POST")
            if command is None:
                raise Refusal(60008, "the request timed out: there is no such command")
            self._check_query(app, query)
            body = _parse(raw)
            unknown = unknown_fields(command.fields, body)
            if unknown and self.refuse_unknown_fields:
                some = ", ".join(sorted(unknown)[:_MAX_NAMED_FIELDS])
                raise Refusal(command.invalid, f"unknown fields: {some}")
            with app.state.lock:
                return json_answer(0, "", command.execute(app._commands, body)), unknown  # noqa: SLF001
        except Refusal as refusal:
            return json_answer(refusal.code, refusal.info), unknown

    def _check_query(self, app: App, query: Mapping[str, str]) -> None:
        sdk_app_id = query.get("sdkappid")
        if not sdk_app_id:
            raise Refusal(60012, "the query has no sdkappid")
        if sdk_app_id not in self.apps:
            raise Refusal(60006, "no such SDKAppID")
        identifier = query.get("identifier")
        if not identifier:
            raise Refusal(60004, "the query has no identifier")
        number = query.get("random", "")
        # The length is bounded because int() raises for thousands of digits.
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and int(number) <= _MAX_RANDOM):
            raise Refusal(60002, "random must be an unsigned 32-bit integer")
        if query.get("contenttype") != "json":
            raise Refusal(60002, "contenttype must be json")
        if self.clock() > valid_until(query.get("usersig", ""), identifier, app.sdk_app_id, app.secret_key):
            raise Refusal(70001, "UserSig has expired")
        if identifier not in app.identifiers:
            raise Refusal(60010, "the identifier is not an administrator of the app")


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        # json.loads also accepts UTF-16, UTF-32, NaN and Infinity, none of which is JSON.
        body = json.loads(raw.decode(), parse_constant=_not_json)
    except (ValueError, RecursionError):
        raise Refusal(60003, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(60003, "the body is not a JSON object")
    return body


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)


def _faulty_answer(fault: Fault) -> Answer:
    """Make the answer to a call that a fault replaces."""
    if fault.code is not None:
        return json_answer(fault.code, "injected fault")
    if fault.status is None or fault.body is not None:
        return Answer(None, fault.body or b"", fault.status or 200)
    page = f"<html><head><title>{fault.status}</title></head><body><h1>{fault.status}</h1></body></html>"
    return Answer(None, page.encode(), fault.status, "text/html")
