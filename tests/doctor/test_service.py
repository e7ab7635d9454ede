"""Findings about the app, the signature, the identifier, each endpoint and the plan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stand_in import Fate, StandIn, client_of, error, failure_of, ok
from tim_async import ClientClosed, Finding, RetryPolicy, TIMClient, doctor
from tim_async.emulator import Emulator, fill_example

from .support import READS, WRITES, examine, level, problems

ALICE = "get_c2c_unread_msg_num"
RECEIPT = "get_group_msg_receipt"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator; asserts at the end that only reading endpoints were called."""
    with Emulator() as running:
        fill_example(running.state)
        yield running
    assert {*running.report().endpoints} <= READS


def client(emulator: Emulator, **options: Any) -> TIMClient:
    return TIMClient(**{**emulator.client_options(), **options})


async def examined(emulator: Emulator, **options: Any) -> tuple[Finding, ...]:
    async with client(emulator) as tim:
        return await examine(tim, **options)


async def test_a_working_client_has_no_problems(emulator: Emulator) -> None:
    """Five calls, each of another endpoint; with a group, receipts are examined, too."""
    found = await examined(emulator)
    assert problems(found) == set()
    assert {one.name for one in found if one.level == "skipped"} == {
        "quota",
        "region",
        "receipts",
        *WRITES,
    }
    report = emulator.report()
    assert {*report.endpoints} == READS
    assert report.total.calls == 5
    found = await examined(emulator, group="@TGS#public")
    assert problems(found) == set()
    assert level(found, "receipts") == "ok"


CODES = {
    60021: "access.address_refused",
    60026: "region.wrong",
    70016: "region.wrong",
    70020: "region.wrong",
    60006: "app.unknown",
    60012: "app.not_sent",
    60016: "app.disabled",
    60020: "app.disabled",
    70001: "signature.expired",
    70002: "signature.not_sent",
    70003: "signature.unreadable",
    60004: "signature.refused",
    70009: "signature.wrong_key",
    70013: "signature.other_identifier",
    70014: "signature.other_app",
    70050: "signature.too_many_failed",
    60010: "admin.missing",
    70051: "admin.blocked",
    10002: "answer.busy",
    60007: "answer.rate",
}
"""The finding for each error code."""


@pytest.mark.parametrize(("code", "name"), CODES.items())
async def test_an_error_code_is_one_finding(emulator: Emulator, code: int, name: str) -> None:
    """It is one failure; the checks after it are skipped, and no more calls are made."""
    emulator.fault(code=code)
    found = await examined(emulator)
    assert problems(found) == {name}
    assert level(found, name) == "failure"
    assert str(code) in next(one.found for one in found if one.name == name)
    for one in found:
        if one.name in READS:
            assert (one.level, one.found) == ("skipped", f"not run, because of {name}")
    assert {*emulator.report().endpoints} == {ALICE}
    assert emulator.report().total.calls <= 2


WRONG_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"secret_key": "f" * 64}, "signature.wrong_key"),
    "app": ({"sdk_app_id": 1400000001}, "app.unknown"),
    "identifier": ({"identifier": "alice"}, "admin.missing"),
    "timeout": ({"timeout": 3.0}, "timeout.short"),
    "identifier with a space": ({"identifier": "the admin"}, "identifier.unusual"),
}


@pytest.mark.parametrize(("options", "name"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
async def test_each_wrong_setting_is_found(emulator: Emulator, options: dict[str, Any], name: str) -> None:
    async with client(emulator, **options) as tim:
        found = await examine(tim)
    assert name in problems(found)
    assert problems(found) <= {name, "admin.missing"}


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"status": 502}, "answer.foreign"),
        ({"status": 404}, "answer.foreign"),
        ({"body": b"<html>Welcome</html>"}, "answer.foreign"),
        ({"drop": "before"}, "answer.lost"),
        ({"truncate": True}, "answer.foreign"),
        ({"delay": 20.0}, "answer.late"),
    ],
)
async def test_a_foreign_lost_or_late_answer_is_found(emulator: Emulator, fault: dict[str, Any], name: str) -> None:
    emulator.fault(**fault)
    assert problems(await examined(emulator, timeout=0.4)) == {name}


async def test_a_used_up_rate_is_answer_no_permit() -> None:
    async with StandIn() as service, client_of(service, rates={ALICE: 1}) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        found = await examine(tim, timeout=0.1)
    assert problems(found) == {"answer.no_permit"}


ENDPOINTS = {
    10007: ("denied", "warning"),
    10026: ("disabled", "failure"),
    60009: ("unknown", "failure"),
    10004: ("refused", "warning"),
    60007: ("rate", "warning"),
    10002: ("busy", "failure"),
    90009: ("denied", "failure"),
    77777: ("refused", "warning"),
}


@pytest.mark.parametrize("code", ENDPOINTS)
async def test_an_error_of_one_endpoint_is_a_finding_of_that_endpoint(emulator: Emulator, code: int) -> None:
    """All other endpoints are examined nevertheless."""
    emulator.fault(code=code, endpoint="get_group_info")
    problem, severity = ENDPOINTS[code]
    found = await examined(emulator)
    assert problems(found) == {f"get_group_info.{problem}"}
    assert level(found, f"get_group_info.{problem}") == severity
    assert {*emulator.report().endpoints} == READS


@pytest.mark.parametrize("code", [60009, 60002, 60013, 10026, 77777])
async def test_a_code_that_refuses_all_calls_is_one_failure(emulator: Emulator, code: int) -> None:
    """The first two endpoints are called; the other checks are skipped."""
    emulator.fault(code=code)
    found = await examined(emulator)
    assert problems(found) == {"access.refused"}
    assert level(found, "access.refused") == "failure"
    assert {one.found for one in found if one.name in READS} == {"not run, because of access.refused"}
    assert emulator.report().total.calls == 2


async def test_a_code_of_the_first_endpoint_alone_is_a_finding_of_that_endpoint(emulator: Emulator) -> None:
    """The others are examined nevertheless, each with one call."""
    emulator.fault(code=10026, endpoint=ALICE)
    assert problems(await examined(emulator)) == {f"{ALICE}.disabled"}
    report = emulator.report()
    assert ({*report.endpoints}, report.total.calls) == (READS, 5)


async def test_a_group_that_does_not_exist_is_found(emulator: Emulator) -> None:
    found = await examined(emulator, group="@TGS#gone")
    assert problems(found) == {f"{RECEIPT}.group", f"{RECEIPT}_detail.group"}


@pytest.mark.parametrize(
    ("code", "name"), [(10059, "receipts.plan"), (10060, "receipts.group_too_large"), (10061, "receipts.group_type")]
)
async def test_unavailable_receipts_are_a_warning(emulator: Emulator, code: int, name: str) -> None:
    """A program without receipts does not need them."""
    for each in (RECEIPT, f"{RECEIPT}_detail"):
        emulator.fault(code=code, endpoint=each)
    found = await examined(emulator, group="@TGS#public")
    assert problems(found) == {name}
    assert level(found, name) == "warning"


@pytest.mark.parametrize(
    ("ahead", "name"), [(0, ""), (30, "clock.off"), (-30, "clock.off"), (7200, "clock.wrong"), (-7200, "clock.wrong")]
)
async def test_a_wrong_clock_is_found_by_the_date_header(ahead: int, name: str) -> None:
    """The finding has the direction."""
    async with Emulator(clock=lambda: time.time() + ahead) as service, client(service) as tim:
        found = await examine(tim)
    assert problems(found) == ({name} if name else set())
    if name:
        text = next(one.found for one in found if one.name == name)
        assert ("behind" if ahead > 0 else "ahead of") in text


async def test_a_wrong_clock_and_the_expired_signature_are_both_findings() -> None:
    async with Emulator(clock=lambda: time.time() + 30 * 86400) as service, client(service) as tim:
        assert problems(await examine(tim)) == {"clock.wrong", "signature.expired"}


@pytest.mark.parametrize("header", ["", "soon", "Fri, 99 Nov 2026 00:00:00 GMT"])
async def test_the_clock_is_skipped_without_a_valid_date_header(service: StandIn, header: str) -> None:
    answered = ok(AllC2CUnreadMsgNum=7)
    dated = (*answered.headers, *([("Date", header)] if header else []))
    service.script.append(answered._replace(headers=dated))
    async with client_of(service) as tim:
        found = await examine(tim)
    assert level(found, "clock") == "skipped"
    assert problems(found) == set()


async def test_a_slow_connection_is_round_trip_slow(emulator: Emulator) -> None:
    """The median of the calls counts; the first one has to connect."""
    for name in READS - {ALICE, "get_group_info"}:
        emulator.fault(delay=0.6, endpoint=name)
    assert problems(await examined(emulator)) == {"round_trip.slow"}


async def test_the_clients_hook_sees_the_calls(emulator: Emulator) -> None:
    seen: list[str] = []
    async with client(emulator, on_attempt=lambda attempt: seen.append(attempt.endpoint)) as tim:
        await examine(tim)
    assert {*seen} == READS


async def test_the_retry_policy_of_the_client_is_not_used(emulator: Emulator) -> None:
    """An overloaded service gets two calls, not eight."""
    emulator.fault(code=10002)
    async with client(emulator, retry=RetryPolicy(attempts=8)) as tim:
        await examine(tim)
    assert emulator.report().total.calls == 2


async def test_a_single_transient_error_is_no_finding(service: StandIn) -> None:
    """The call is retried once."""
    service.script.extend([error(10002, "busy")])
    async with client_of(service) as tim:
        assert problems(await examine(tim)) == set()
    service.script.append(Fate.DROP)
    async with client_of(service) as tim:
        assert problems(await examine(tim)) == set()


async def test_invalid_arguments_and_a_closed_client_are_errors(emulator: Emulator) -> None:
    tim = client(emulator)
    wrong: Any = "tim"
    with pytest.raises(TypeError, match=r"^tim must be a TIMClient, not str$"):
        await doctor(wrong)
    for options in ({"group": ""}, {"timeout": 0}):
        with pytest.raises(ValueError, match=r"group|timeout"):
            await doctor(tim, **options)
    await tim.aclose()
    assert isinstance(await failure_of(doctor(tim)), ClientClosed)
