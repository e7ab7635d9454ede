"""The checks that call the service: the app, the signature, the identifier and each endpoint.

One reading call answers most of them: the service returns the code of the first fault that it finds.  The order in
which it looks for faults is not documented; the stages before the refused one in `STAGES` are taken as passed.  A code
of no stage needs a second call, of another endpoint, to tell a refusal of all calls from that of one command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, NamedTuple

from tim_async._codes import DOCUMENT, WRONG_REGION
from tim_async._wire import unix_time
from tim_async.endpoints import (
    ENDPOINTS,
    GET_ALL_C2C_UNREAD_MSG_NUM,
    GET_GROUP_INFO,
    GET_GROUP_MSG_RECEIPT,
    GET_GROUP_MSG_RECEIPT_DETAIL,
    GET_RECENT_CONTACT_LIST,
    Endpoint,
)
from tim_async.errors import (
    AccountNotFound,
    APIError,
    AuthError,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    GroupNotFound,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    ReceiptUnavailable,
    RequestTimeout,
    ServerBusy,
    TIMError,
)

from ._findings import CALLS, USERSIG, Finding, failure, ok, skipped, warning
from ._visit import NO_GROUP, CallOutcome, Visit

STAGES: dict[str, dict[int, str]] = {
    "access": {60021: "address_refused"},
    "app": {
        60006: "unknown",
        60012: "not_sent",
        60016: "disabled",
        60017: "disabled",
        60020: "disabled",
        60025: "disabled",
        60028: "disabled",
    },
    "signature": {
        70001: "expired",
        70052: "expired",
        70002: "not_sent",
        70003: "unreadable",
        70005: "unreadable",
        60004: "refused",
        60005: "refused",
        20002: "refused",
        70009: "wrong_key",
        70013: "other_identifier",
        70014: "other_app",
        70050: "too_many_failed",
    },
    "admin": {60010: "missing", 90009: "missing", 70051: "blocked"},
}
"""The stages of the service's own checks, each with the codes of its refusals and the names of the problems.

The check of the region, after the first stage, is in `_regions`.
"""

UNKNOWN_CODE = "Look up the code in the vendor's list."
"""The remedy for a code that is not in the table."""
NO_RECEIPTS = 10059
"""The code of a plan without read receipts."""
_REFUSED = {10026: "disabled", 10003: "unknown", 60009: "unknown"}
"""The codes that refuse a whole command, with the names of the problems."""

TOLERATED, TOO_FAR = 5.0, 60.0
"""Seconds by which the clock may differ without a warning, and beyond which webhooks are refused."""
SLOW = 0.5
"""A round trip in seconds that is longer than to any region from any place."""


async def answer(visit: Visit) -> list[Finding]:
    """Make the first call; check that the service answers."""
    outcome = await visit.ask(GET_ALL_C2C_UNREAD_MSG_NUM, visit.caller.settings.identifier)
    visit.outcomes["answer"] = visit.outcomes[GET_ALL_C2C_UNREAD_MSG_NUM.name] = outcome
    error = outcome.error
    if error is None or (isinstance(error, APIError) and not isinstance(error, RateLimited | ServerBusy)):
        result = "success" if error is None else f"error {error.code}"
        return [ok("answer", f"{visit.caller.base_url} answered with {result}")]
    page = DOCUMENT if isinstance(error, APIError) else ""
    return [failure(f"answer.{_problem(error)}", summary(error), error.meaning, error.remedy, page)]


_UNANSWERED: tuple[tuple[type[TIMError], str], ...] = (
    (RateLimited, "rate"),
    (ServerBusy, "busy"),
    (RequestTimeout, "late"),
    (BadResponse, "foreign"),
    (ConnectFailed, "not_connected"),
    (ConnectionLost, "lost"),
    (QuotaExhausted, "no_permit"),
)
"""The names of the problems of calls without a conclusive answer."""


def _problem(error: TIMError) -> str:
    return next((problem for kind, problem in _UNANSWERED if isinstance(error, kind)), "failed")


async def clock(visit: Visit) -> list[Finding]:
    """Compare this machine's clock with the answer's ``Date``."""
    outcome = visit.outcomes["answer"]
    service_time = unix_time(outcome.date)
    if service_time is None:
        return [skipped("clock", "the answer has no valid Date header")]
    # The header has whole seconds, rounded down.
    difference = outcome.ended - outcome.took / 2 - (service_time + 0.5)
    found = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} the service's"
    if abs(difference) <= TOLERATED:
        return [ok("clock", "agrees with the service's")]
    remedy = "Synchronise this machine's clock, e.g. with NTP."
    if abs(difference) <= TOO_FAR:
        meaning = "UserSigs and read times are wrong by as much; beyond 60 s, webhooks are refused."
        return [warning("clock.off", found, meaning, remedy, USERSIG)]
    meaning = "Webhooks are refused, read times are wrong, and UserSigs may count as expired."
    return [failure("clock.wrong", found, meaning, remedy, USERSIG)]


def stage(name: str) -> Callable[[Visit], Awaitable[list[Finding]]]:
    """Make the check of one stage, by the code of the first call."""

    async def check(visit: Visit) -> list[Finding]:
        error = visit.outcomes["answer"].error
        if isinstance(error, APIError) and error.code in STAGES[name]:
            return [refused(f"{name}.{STAGES[name][error.code]}", error)]
        return [ok(name, _ACCEPTED[name].format(visit.caller.settings.identifier))]

    return check


async def access(visit: Visit) -> list[Finding]:
    """Check whether the service accepts calls at all: not if a second endpoint returns the same code as the first."""
    name, (first, second) = "access", READING[:2]
    outcome = visit.outcomes["answer"]
    error = outcome.error
    if (
        isinstance(error, APIError)
        and error.code not in WRONG_REGION.union(*STAGES.values())
        and _endpoint(first, outcome, given=False).level != "ok"
    ):
        other = visit.outcomes[second.endpoint.name] = await visit.ask(second.endpoint, *second.arguments(visit))
        if other.code == error.code:
            meaning = error.meaning or "The service refuses all calls."
            return [failure(f"{name}.refused", summary(error), meaning, error.remedy or UNKNOWN_CODE, DOCUMENT)]
    return await stage(name)(visit)


_ACCEPTED = {
    "access": "calls from this machine are accepted",
    "app": "the service knows it",
    "signature": "accepted",
    "admin": "{!r} is permitted",
}


def refused(name: str, error: APIError, found: str = "") -> Finding:
    """Return the failure for an error code of the service."""
    page = {"signature": USERSIG, "region": CALLS, "admin": CALLS}.get(name.partition(".")[0], DOCUMENT)
    return failure(name, found or summary(error), error.meaning, error.remedy, page)


def summary(error: TIMError) -> str:
    """Return an error as one line, with the service's own text."""
    if isinstance(error, APIError):
        return f"error {error.code}{': ' + error.info if error.info else ''}"
    return str(error)


# The endpoints


class ReadCheck(NamedTuple):
    """An endpoint that reads, with the arguments of the doctor's call."""

    endpoint: Endpoint[..., Any]
    arguments: Callable[[Visit], tuple[Any, ...]]
    page: str


READING = (
    ReadCheck(
        GET_ALL_C2C_UNREAD_MSG_NUM,
        lambda visit: (visit.caller.settings.identifier,),
        "https://www.tencentcloud.com/document/product/1047/41046",
    ),
    ReadCheck(
        GET_RECENT_CONTACT_LIST,
        lambda visit: (visit.caller.settings.identifier, None),
        "https://www.tencentcloud.com/document/product/1047/43087",
    ),
    ReadCheck(
        GET_GROUP_MSG_RECEIPT,
        lambda visit: (visit.group or NO_GROUP, [1]),
        "https://www.tencentcloud.com/document/product/1047/49439",
    ),
    ReadCheck(
        GET_GROUP_MSG_RECEIPT_DETAIL,
        lambda visit: (visit.group or NO_GROUP, 1, True, "", 1),
        "https://www.tencentcloud.com/document/product/269/77693",
    ),
    ReadCheck(
        GET_GROUP_INFO,
        lambda visit: ({"GroupIdList": [visit.group or NO_GROUP]},),
        "https://www.tencentcloud.com/document/product/1047/34961",
    ),
)
"""The endpoints that read."""
_READ = {reading.endpoint.command for reading in READING}
WRITING = tuple(one for one in ENDPOINTS if one.command not in _READ)
"""The endpoints that write, which are not called."""


def endpoint(reading: ReadCheck) -> Callable[[Visit], Any]:
    """Make the check of an endpoint that reads."""
    name = reading.endpoint.name

    async def check(visit: Visit) -> list[Finding]:
        if name not in visit.outcomes:
            visit.outcomes[name] = await visit.ask(reading.endpoint, *reading.arguments(visit))
        return [_endpoint(reading, visit.outcomes[name], given=bool(visit.group))]

    return check


def _endpoint(reading: ReadCheck, outcome: CallOutcome, *, given: bool) -> Finding:
    name, page, error = reading.endpoint.name, reading.page, outcome.error
    if error is None:
        return ok(name, "permitted")
    if not isinstance(error, APIError) or isinstance(error, RateLimited | ServerBusy):
        level = warning if isinstance(error, RateLimited | QuotaExhausted) else failure
        return level(f"{name}.{_problem(error)}", summary(error), error.meaning, error.remedy, page)
    if error.code == NO_RECEIPTS:
        return ok(name, f"reachable; {summary(error)}")
    if isinstance(error, GroupNotFound) and given:
        return warning(f"{name}.group", summary(error), error.meaning, error.remedy, page)
    if isinstance(error, GroupNotFound | AccountNotFound | ReceiptUnavailable):
        return ok(name, f"permitted; {summary(error)}")
    if error.code in _REFUSED:
        return failure(f"{name}.{_REFUSED[error.code]}", summary(error), error.meaning, error.remedy, page)
    if isinstance(error, PermissionDenied | AuthError):
        # For a group that does not exist, it may mean only that.
        level = failure if given or isinstance(error, AuthError) else warning
        return level(f"{name}.denied", summary(error), error.meaning, error.remedy, page)
    meaning = error.meaning or "The endpoint is reachable, but refuses this call."
    return warning(f"{name}.refused", summary(error), meaning, error.remedy or UNKNOWN_CODE, DOCUMENT)


def not_called(one: Endpoint[..., Any]) -> Callable[[Visit], Any]:
    """Make the check of an endpoint that writes, which is always skipped."""

    async def check(_visit: Visit) -> list[Finding]:
        return [skipped(one.name, "not called, because it writes; it has the same requirements as the others")]

    return check


_UNAVAILABLE = {NO_RECEIPTS: "plan", 10060: "group_too_large", 10061: "group_type"}
"""The codes for missing receipts, with the names of the problems."""


async def receipts(visit: Visit) -> list[Finding]:
    """Check whether the app's plan has read receipts, by the outcomes of the calls about them."""
    errors = [visit.outcomes[one.name].error for one in (GET_GROUP_MSG_RECEIPT, GET_GROUP_MSG_RECEIPT_DETAIL)]
    codes = {error.code: error for error in errors if isinstance(error, APIError)}
    page = READING[2].page
    for code, problem in _UNAVAILABLE.items():
        if code in codes:
            error = codes[code]
            return [warning(f"receipts.{problem}", summary(error), error.meaning, error.remedy, page)]
    if None in errors or 10062 in codes:
        return [ok("receipts", "the app's plan includes them")]
    why = "only calls for a group of the app show whether its plan includes them"
    return [skipped("receipts", why, "Name a group: --group ID, or group=….")]


async def round_trip(visit: Visit) -> list[Finding]:
    """Check the duration of a call on an open connection."""
    first = visit.outcomes["answer"]
    # The first call may have opened the connection.
    others = [one.took for one in visit.outcomes.values() if one is not first and one.code is not None]
    if not others:
        return [skipped("round_trip", "no call was answered")]
    seconds = median(others)
    found = f"{seconds * 1000:.0f} ms, median of {len(others)} calls"
    if seconds <= SLOW:
        return [ok("round_trip", found)]
    return [
        warning(
            "round_trip.slow",
            found,
            "Each call takes this long; the full rate needs more concurrent calls.",
            "Run the program nearer to the app's region; check proxies and gateways.",
            CALLS,
        )
    ]
