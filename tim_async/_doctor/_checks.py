"""The table of checks, and `doctor`, which runs them in that order.

A check is skipped if one that it depends on failed or was skipped: a fault is reported once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import NamedTuple

from tim_async import _arguments
from tim_async._call import Caller
from tim_async.client import TIMClient

from . import _configuration, _findings, _network, _probe, _service, _way
from ._findings import CALLS, Finding, failure, ok, redacted
from ._quota import quota
from ._regions import region
from ._visit import Visit

TIMEOUT = 5.0
"""The default time-out of one step, in seconds."""
TOTAL = 27.0
"""The time-out of all checks together, in seconds."""


class Check(NamedTuple):
    """A row of the table.

    Attributes:
        name: the name that its findings have or begin with.
        needs: the checks that it depends on.
        run: makes the findings.
        steps: its time-out, in time-outs of one step.
        more: its time-out in seconds, instead of ``steps`` and not limited by `TOTAL`; 0 for none.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Visit], Awaitable[list[Finding]]]
    steps: int = 2
    more: float = 0.0


_ENDPOINTS = tuple(Check(reading.endpoint.name, ("admin",), _service.endpoint(reading)) for reading in _service.READING)
CHECKS = (
    Check("quota", (), quota),
    Check("network", (), _network.network, 4),
    Check("answer", ("network",), _service.answer),
    Check("clock", ("answer",), _service.clock),
    Check("access", ("answer",), _service.access),
    Check("region", ("access",), region, 3),
    Check("app", ("region",), _service.stage("app")),
    Check("signature", ("app",), _service.stage("signature")),
    Check("admin", ("signature",), _service.stage("admin")),
    *_ENDPOINTS,
    Check("receipts", tuple(check.name for check in _ENDPOINTS if "receipt" in check.name), _service.receipts),
    *(Check(one.name, ("admin",), _service.not_called(one)) for one in _service.WRITING),
    Check("round_trip", ("admin",), _service.round_trip),
)
"""All checks of a client, in the order in which they run."""


async def doctor(
    tim: TIMClient,
    *,
    group: str | None = None,
    try_regions: bool = False,
    probe: float | None = None,
    timeout: float = TIMEOUT,
) -> tuple[Finding, ...]:
    """Examine a client: its configuration, its connection to the service, its rights and its quota.

    It makes about five reading calls, at the client's pace, and writes nothing to the service.  Without ``probe`` it
    takes less than 30 s.  No finding contains the secret key, a UserSig or a password.

    Args:
        tim: the client.
        group: a group of the app, to examine receipts with; by default, a group that does not exist.
        try_regions: if the service reports a wrong region, find the right one by asking the hosts of all other regions,
            with the same signature.
        probe: seconds, at least 6, for which to measure whether the service accepts the rate of
            ``get_c2c_unread_msg_num``, and how it counts the calls of a second.  The probe exceeds the endpoint's rate,
            so that other clients' calls are refused meanwhile.
        timeout: seconds for one step, such as a connection or a call.

    Returns:
        All findings, in the order of the checks.  The client works if no ``level`` is ``"failure"``.

    Raises:
        ClientClosed: the client is closed.
        RuntimeError: it belongs to another event loop.
        TypeError, ValueError: an argument is invalid.
    """
    _arguments.kind("tim", tim, TIMClient)
    seconds = _arguments.positive("timeout", timeout)
    if probe is not None and _arguments.positive("probe", probe) < _probe.SHORTEST:
        raise ValueError(f"probe must be at least {_probe.SHORTEST:g} s, not {probe}")
    known = "" if group is None else _arguments.text("group", group)
    caller = tim._caller  # noqa: SLF001 - of this package
    settings = caller.settings
    configured = {
        "sdk_app_id": settings.sdk_app_id,
        "secret_key": settings.key,
        "identifier": settings.identifier,
        "base_url": caller.base_url,
        "allow_http": True,
    }
    found = [
        ok("configuration", f"app {settings.sdk_app_id}, from the arguments of the client"),
        *_configuration.of(configured),
        _configuration.time_out(settings.options.timeout),
    ]
    checks = CHECKS
    if probe is not None:
        # Three times, it waits for its last answers.
        checks = (*CHECKS, Check("probe", ("admin",), _probe.probe(probe), 0, probe + 3 * seconds + 1.0))
    try:
        caller.open()
    except ValueError as error:
        remedy = "Correct HTTPS_PROXY or HTTP_PROXY."
        found.append(failure("proxy.invalid", f"the environment's: {error}", "No call can be made.", remedy))
        found += unrun("proxy.invalid")
    else:
        found += await _run(checks, Visit(caller, known, try_regions, seconds))
    return tuple(redacted(found, settings.key))


def unrun(failed: str) -> list[Finding]:
    """Return the findings of all checks of a client, each skipped because of a failure."""
    return [finding for check in CHECKS for finding in _skip(check, failed)]


def _skip(check: Check, failed: str) -> list[Finding]:
    names = _way.NAMES if check.name == "network" else (check.name,)
    return [_findings.unrun(name, failed) for name in names]


async def _run(checks: Iterable[Check], visit: Visit) -> list[Finding]:
    """Run the checks in order."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TOTAL
    all_found: list[Finding] = []
    blocked: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for check in checks:
            cause = next((blocked[name] for name in check.needs if name in blocked), "")
            if cause:
                found, blocked[check.name] = _skip(check, cause), cause
            else:
                left = check.more or min(check.steps * visit.timeout, end - loop.time())
                found = await _run_one(check, visit, left)
            failed = next((one.name for one in found if one.level == "failure"), "")
            if failed and check.name == "quota":
                # Run the other checks without the quota: its fault must not hide others.
                visit.caller = Caller(replace(visit.caller.settings, quota=None))
                stack.push_async_callback(visit.caller.aclose)
                visit.caller.open()
            elif failed:
                blocked[check.name] = failed
            all_found += found
    return all_found


async def _run_one(check: Check, visit: Visit, seconds: float) -> list[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await check.run(visit)
    except TimeoutError:
        found = f"not finished within {max(0.0, seconds):.3g} s"
    remedy = "Try again; if that does not help, check the network, proxies and gateways."
    if check.name == "quota":
        return [failure("quota.late", found, "The quota's store, or the network to it, is slow.", remedy)]
    return [failure(f"{check.name}.late", found, "The service, or the network to it, is slow.", remedy, CALLS)]
