"""The service without its HTTP server: from a request to an answer, by plain synchronous code.

A call arrives (the moment by which the rate is counted), may be over the rate, may meet a fault, has its query,
signature and body checked, and is carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import hdrs

from tim_async.emulator._answers import Answer, Refusal, json_answer
from tim_async.emulator._commands import COMMANDS, Command, Commands
from tim_async.emulator._faults import Fault, Faults
from tim_async.emulator._report import CallLog
from tim_async.emulator._signature import last_second
from tim_async.emulator._windows import Window

UNKNOWN_COMMAND = "(unknown command)"

_MOST_RANDOM = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Service:
    """Answers requests.

    Attributes:
        commands: the handlers of its commands.
        sdk_app_id: the one app there is.
        secret_key: the app's secret key.
        admins: the identifiers that may call.
        windows: each limited endpoint's window, by its method's name.
        rate_code: the ``ErrorCode`` of a call over the rate.
        clock: the current time, unix seconds.
        faults: the faults that calls meet.
        log: counts the calls.
    """

    commands: Commands
    sdk_app_id: int
    secret_key: str
    admins: tuple[str, ...]
    windows: Mapping[str, Window]
    rate_code: int
    clock: Callable[[], float]
    faults: Faults
    log: CallLog

    def answer(self, method: str, path: str, query: Mapping[str, str], raw: bytes) -> Answer:
        """Answer a request that arrives now.

        Args:
            method: its HTTP method.
            path: its path, with the leading ``/``.
            query: its query.
            raw: its body.
        """
        now = self.clock()
        command = COMMANDS.get(path[1:])
        name = UNKNOWN_COMMAND if command is None else command.name
        window = self.windows.get(name)
        refused = window is not None and not window.admit(now)
        fault = None if refused else self.faults.pick(name)
        if refused:
            answer = json_answer(self.rate_code, "over the calls a second of this endpoint")
        elif fault is not None and not fault.lets_the_call_through:
            answer = _replacement(fault)
        else:
            answer = self._carry_out(method, command, query, raw, now)
        if fault is not None:
            code = None if fault.cut else answer.code
            answer = replace(answer, code=code, retry_after=fault.retry_after, delay=fault.delay, cut=fault.cut)
        self.log.add(name, now, raw, code=answer.code, refused=refused, fault=fault.kind if fault else None)
        return answer

    def _carry_out(
        self, method: str, command: Command | None, query: Mapping[str, str], raw: bytes, now: float
    ) -> Answer:
        """The answer to a call that is within the rate and meets no fault."""
        try:
            if method != hdrs.METH_POST:
                raise Refusal(60002, "the method must be POST")
            if command is None:
                raise Refusal(60009, "no such command")
            self._check_query(query, now)
            body = _parse(raw)
            with self.commands.state.lock:
                return json_answer(0, "", command.carry_out(self.commands, body))
        except Refusal as refusal:
            return json_answer(refusal.code, refusal.info)

    def _check_query(self, query: Mapping[str, str], now: float) -> None:
        sdk_app_id = query.get("sdkappid")
        if not sdk_app_id:
            raise Refusal(60012, "the query has no sdkappid")
        if sdk_app_id != str(self.sdk_app_id):
            raise Refusal(60006, "no such SDKAppID")
        identifier = query.get("identifier")
        if not identifier:
            raise Refusal(60004, "the query has no identifier")
        number = query.get("random", "")
        # More than ten digits are too many, and Python refuses to read some thousands.
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and int(number) <= _MOST_RANDOM):
            raise Refusal(60002, "random must be an unsigned 32-bit integer")
        if query.get("contenttype") != "json":
            raise Refusal(60002, "contenttype must be json")
        if now > last_second(query.get("usersig", ""), identifier, self.sdk_app_id, self.secret_key):
            raise Refusal(70001, "UserSig has expired")
        if identifier not in self.admins:
            raise Refusal(60010, "the identifier is not an administrator of the app")


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(60003, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(60003, "the body is not a JSON object")
    return body


def _replacement(fault: Fault) -> Answer:
    """The answer in place of a call that is not carried out."""
    if fault.code is not None:
        return json_answer(fault.code, "a fault on request")
    if fault.status is None or fault.body is not None:
        return Answer(None, fault.body or b"", fault.status or 200)
    page = f"<html><head><title>{fault.status}</title></head><body><h1>{fault.status}</h1></body></html>"
    return Answer(None, page.encode(), fault.status, "text/html")
