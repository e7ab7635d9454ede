"""The emulator under freezegun and time-machine: unix times are the test's, durations are real."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import freezegun
import pytest
import time_machine

from tim_async import TIMClient
from tim_async.emulator import Emulator

from .support import C2C_UNREAD, MARK_READ, emulator, query, usersig

THEN = dt.datetime(2031, 5, 4, 3, 2, 1, tzinfo=dt.UTC)
AT = int(THEN.timestamp())
DAY = 86_400
ME = {"To_Account": "administrator"}

Move = Callable[[float], object]
"""A function that moves the time by seconds."""


@contextmanager
def by_freezegun() -> Iterator[Move]:
    with freezegun.freeze_time(THEN) as frozen:
        yield frozen.tick


@contextmanager
def by_time_machine(*, tick: bool) -> Iterator[Move]:
    with time_machine.travel(THEN, tick=tick) as traveller:
        yield traveller.shift


CLOCKS: dict[str, Callable[[], AbstractContextManager[Move]]] = {
    "freezegun": by_freezegun,
    "time-machine": partial(by_time_machine, tick=False),
    "time-machine, ticking": partial(by_time_machine, tick=True),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_signatures_and_read_times_follow_the_tests_clock(clock: str) -> None:
    with CLOCKS[clock]() as move, emulator(clock=None) as caller:
        service = caller.service
        assert caller.code(C2C_UNREAD, ME) == 70001  # of 2023
        params = query(usersig=usersig(issued_at=AT, expire=DAY))
        assert caller.code(C2C_UNREAD, ME, params) == 0
        service.state.add_messages("administrator", "bob", 2)
        service.state.add_messages("administrator", "bob", at=AT + DAY)
        mark = {"Report_Account": "administrator", "Peer_Account": "bob"}
        assert caller.code(MARK_READ, mark, params) == 0
        assert service.state.unread("administrator") == 1
        assert service.state.read_time("administrator", "bob") == pytest.approx(AT, abs=3600)
        (contact,) = service.state.recent_contacts("administrator")
        assert contact.msg_time == AT + DAY
        move(DAY + 1)
        assert caller.code(C2C_UNREAD, ME, params) == 70001
        params = query(usersig=usersig(issued_at=AT + DAY))
        assert caller.code(MARK_READ, mark, params) == 0
        assert service.state.unread("administrator") == 0


@pytest.mark.parametrize("clock", CLOCKS)
def test_rates_and_delays_are_real_while_time_is_frozen_or_jumps(clock: str) -> None:
    """A full bucket drains while the wall clock is frozen, and a jump of a day is not a day without calls."""
    params = query(usersig=usersig(issued_at=AT, expire=2 * DAY))
    with (
        CLOCKS[clock]() as move,
        emulator(limit=20, window="bucket", bucket_capacity=1, clock=None) as caller,
    ):
        service = caller.service
        service.fault(delay=0.01, times=1)
        codes = {caller.code(C2C_UNREAD, ME, params)}
        while codes != {0, 60007} or caller.code(C2C_UNREAD, ME, params) != 0:
            codes.add(caller.code(C2C_UNREAD, ME, params))
        move(DAY)
        caller.code(C2C_UNREAD, ME, params)
        report = service.report().total
        assert report.seconds < DAY
        service.stall(0.02)
        caller.code(C2C_UNREAD, ME, params)


def test_a_client_and_the_emulator_agree_on_the_time() -> None:
    """A day later the client signs again.  freezegun's real_asyncio leaves the client's own time-outs alone."""

    async def count(service: Emulator, move: Move) -> None:
        async with TIMClient(**service.client_options(), usersig_expire=3600) as tim:
            for _ in range(2):
                assert await tim.get_all_c2c_unread_msg_num("administrator") == 0
                move(DAY)

    with Emulator() as service:
        with freezegun.freeze_time(THEN, real_asyncio=True) as frozen:
            asyncio.run(count(service, frozen.tick))
        with time_machine.travel(THEN) as traveller:
            asyncio.run(count(service, traveller.shift))
        assert service.report().total.codes == {}

    async def in_one_loop() -> None:
        async with Emulator() as service:
            await count(service, lambda _: None)

    with freezegun.freeze_time(THEN, real_asyncio=True):
        asyncio.run(in_one_loop())


def test_the_clock_option_applies_to_everything() -> None:
    """The rates use it, too, since it is an option of the emulator."""
    now = [float(AT)]
    with emulator(limit=1, clock=lambda: now[0]) as caller:
        params = query(usersig=usersig(issued_at=AT, expire=10))
        assert [caller.code(C2C_UNREAD, ME, params) for _ in range(2)] == [0, 60007]
        now[0] += 1
        assert caller.code(C2C_UNREAD, ME, params) == 0
        now[0] += 10
        assert caller.code(C2C_UNREAD, ME, params) == 70001
        assert caller.service.report().total.seconds == 11
