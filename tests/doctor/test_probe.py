"""The probe: an endpoint's rate, and its kind of window."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stand_in import APP, KEY
from tim_async import Attempt, TIMClient, doctor
from tim_async._doctor._probe import Sent, explain
from tim_async.emulator import Emulator, WindowKind
from tim_async.emulator._windows import Window

from .support import examine, problems

GET = "get_c2c_unread_msg_num"
SHAPES: dict[str, tuple[WindowKind, bool]] = {
    "a sliding second": ("sliding", False),
    "a sliding second, in which refused calls count": ("sliding", True),
    "a calendar second": ("calendar", False),
    "a bucket": ("bucket", False),
}


@settings(max_examples=60)
@given(
    shape=st.sampled_from([*SHAPES]),
    limit=st.sampled_from([30, 100, 200, 500]),
    phase=st.floats(0.0, 1.0),
    jitter=st.sampled_from([0.0, 0.002, 0.01]),
    seed=st.integers(0, 1000),
)
def test_bursts_show_the_kind_of_a_window(shape: str, limit: int, phase: float, jitter: float, seed: int) -> None:
    """Wherever in a second they begin, although no arrival time is known exactly."""
    kind, count_refused = SHAPES[shape]
    window = Window(kind, limit, count_refused=count_refused)
    chance = random.Random(seed)
    bursts = []
    for began in (100.0 + phase, 102.5 + phase):
        arrivals = sorted(
            began + number / (2 * limit) + chance.uniform(0, jitter) for number in range(int(2.8 * limit))
        )
        bursts.append([Sent(at + chance.uniform(-jitter, jitter), window.admit(at)) for at in arrivals])
    assert explain(bursts, limit) == shape


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), part=st.floats(0.2, 0.8))
def test_random_refusals_show_no_kind_of_window(seed: int, part: float) -> None:
    """As when other clients use the quota, too."""
    chance = random.Random(seed)
    calls = [Sent(began + number / 80, chance.random() < part) for began in (0.0, 2.5) for number in range(112)]
    assert explain([calls[:112], calls[112:]], 17) == ""


@pytest.mark.processes  # the calls come from this process, which is too slow in debug mode
async def test_the_probe_finds_the_same_a_higher_or_a_lower_rate() -> None:
    """Only reading endpoints are called, and each case is one finding.  All run at once, since each takes seconds."""
    expected: dict[str, dict[str, Any]] = {
        "probe": {"limit": 40, "window": "bucket"},
        "probe.above": {"limit": None},
        "probe.below": {"limit": 10},
    }

    async def one(name: str, options: dict[str, Any]) -> None:
        async with Emulator(**options) as service, TIMClient(**service.client_options(), rates={GET: 40}) as tim:
            found = await examine(tim, probe=6)
            assert found[-1].name == name
            assert problems(found) == {name} - {"probe"}
            if name == "probe":
                assert found[-1].found.endswith(("in a bucket", "does not show"))
            assert service.report().endpoints[GET].calls > 200
            assert len(service.report().endpoints) == 5

    await asyncio.gather(*(one(*each) for each in expected.items()))


FAULTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"status": 502}, "HTTP 502 with"),
    ({"code": 10002}, "error 10002"),
    ({"code": 4711}, "error 4711"),
    ({"drop": "before"}, "the connection was lost"),
    ({"delay": 60.0}, "no answer in time"),
)


@pytest.mark.processes  # the calls come from this process, which is too slow in debug mode
async def test_failing_calls_are_probe_failed() -> None:
    """Failed calls show nothing about the rate; the probe ends even if each call times out."""

    async def one(fault: dict[str, Any], text: str) -> None:
        async with Emulator(limit=40) as service:

            def break_it(attempt: Attempt) -> None:
                if attempt.endpoint == "get_group_info":  # the last that is called before the probe
                    service.fault(**fault)

            async with TIMClient(**service.client_options(), rates={GET: 40}, on_attempt=break_it) as tim:
                found = await examine(tim, probe=6, timeout=1.0)
        assert problems(found) == {"probe.failed"}
        assert found[-1].level == "failure"
        assert text in found[-1].found

    await asyncio.gather(*(one(*each) for each in FAULTS))


async def test_an_error_code_of_single_calls_does_not_fail_the_probe() -> None:
    """As for an admin that was never imported: each call has this code, and counts."""
    async with Emulator(limit=40) as service:
        service.fault(code=70107, endpoint=GET)
        async with TIMClient(**service.client_options(), rates={GET: 40}) as tim:
            found = await examine(tim, probe=6)
    assert problems(found) == set()


async def test_a_probe_that_is_too_short_is_a_value_error() -> None:
    async with TIMClient(sdk_app_id=APP, secret_key=KEY, base_url="http://127.0.0.1:1") as tim:
        with pytest.raises(ValueError, match=r"^probe must be at least 6 s, not 1$"):
            await doctor(tim, probe=1)


async def test_the_probe_is_skipped_if_calls_fail() -> None:
    async with Emulator() as service, TIMClient(**{**service.client_options(), "identifier": "nobody"}) as tim:
        found = await examine(tim, probe=6)
        assert (found[-1].name, found[-1].level) == ("probe", "skipped")
        assert service.report().total.calls == 1
