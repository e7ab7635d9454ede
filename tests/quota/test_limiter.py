"""The shared limiter in virtual time, against a scripted store."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest

from tests import virtual_time
from tim_async import Lane, QuotaExhausted
from tim_async._limiter.fallback import RETURN_SILENCE
from tim_async._limiter.local import SECOND, Use
from tim_async._limiter.reply import Reply
from tim_async._limiter.request import Request
from tim_async._limiter.shared import HEARTBEAT, REPLY_LIFETIME, REPORT, TICK
from tim_async._limiter.sharing import Shares, StoreUnavailable

from .support import NAME, limiter_of

LIMIT = 50
ROUND_TRIP = 0.05
AHEAD = 1.75e9
"""Seconds by which the fleet's clock is ahead of the loop's."""


class Store:
    """Grants at once the permits requested, and records the requests.

    Attributes:
        requests: all requests; ``times`` has the loop times at which they arrived.
        reply: the fields of its replies, without the permits.
        due: seconds until a permit may be used; None to grant none.
        pace: maximum of permits/s, none due beyond the request's horizon; None for no maximum.
        takes: the round trip in seconds; the request arrives after half of it.
        away: whether it is unreachable.
        settled: loop time until which it settles.
        later: number of a later request, which its next reply names instead.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.reply: dict[str, Any] = {"epoch": "1", "limit": LIMIT, "rate": LIMIT}
        self.due: float | None = 0.0
        self.pace: float | None = None
        self.takes = 0.0
        self.away = False
        self.settled = -math.inf
        self.later = 0
        self._next = 0.0

    async def exchange(self, request: Request) -> Reply:
        loop = asyncio.get_running_loop()
        self.requests.append(request)
        self.times.append(loop.time())
        await asyncio.sleep(self.takes / 2)
        now = loop.time()
        permits, again = self._grant(request, now)
        await asyncio.sleep(self.takes / 2)
        if self.away:
            raise StoreUnavailable
        if self.later:
            later, self.later = self.later, 0
            return Reply(later)
        settling = max(0.0, self.settled - loop.time())
        said = {"number": request["number"], "now": now + AHEAD, "again": again, "settling": settling, **self.reply}
        return Reply(**said, permits=permits)

    def _grant(self, request: Request, now: float) -> tuple[tuple[tuple[float, int], ...], float]:
        wanted = request.get("wanted", 0)
        if not wanted or self.due is None or now < self.settled:
            return (), 0.0
        if self.pace is None:
            return ((self.due, wanted),), 0.0
        permits, horizon = list[tuple[float, int]](), request["horizon"] / 1e6
        while len(permits) < wanted and max(now, self._next) <= now + horizon:
            self._next = max(now, self._next)
            permits.append((self._next - now, 1))
            self._next += 1 / self.pace
        return tuple(permits), 0.0 if permits else self._next - now - horizon / 2

    def told(self, field: str) -> list[Any]:
        """Return the entries of one field of all requests."""
        return [each for request in self.requests for each in request.get(field, ())]  # type: ignore[attr-defined]


class Client:
    """A queue and its shared limiter, on a scripted store."""

    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.queue, self.limiter = limiter_of(
            self.store.exchange, LIMIT, **{"shares": Shares(bulk=0.9, fallback=0.5), **options}
        )

    @property
    def now(self) -> float:
        return self.queue.now()

    async def call(self, *, answered: bool = True, lane: Lane = Lane.INTERACTIVE) -> float:
        """Make a call; returns the loop time at which it was sent."""
        permit = await self.queue.enter(lane)
        await asyncio.sleep(ROUND_TRIP)
        self.queue.leave(permit, answered=answered)
        return permit.sent

    async def asked(self) -> Request:
        """Let a pending request be sent, and return it."""
        await asyncio.sleep(0.001)
        return self.store.requests[-1]

    async def close(self) -> None:
        self.queue.close()
        await self.limiter.finish()


def run(main: Any, **options: Any) -> None:
    async def client() -> None:
        client = Client(**options)
        await main(client)
        await client.close()

    virtual_time.run(client())


# Reports.


def test_every_request_has_the_member_its_limit_and_its_calls_in_flight() -> None:
    async def main(client: Client) -> None:
        store = client.store
        await client.call()
        await asyncio.sleep(REPORT + 0.1)
        first, reported = store.requests
        fixed = {
            "id": "one",
            "limit": LIMIT,
            "binding": True,
            "strict": False,
            "bulk_share": 0.9,
            "lead": 0,
            "settle": 450_000,
            "horizon": 8000,
            "round_trip": 0,
        }
        assert first == {
            **fixed,
            "number": 1,
            "heard": 0,
            "heard_ago": 0,
            "epoch": "0",
            "out": 0,
            "lane": "interactive",
            "wanted": 1,
        }
        ago = store.times[1] - store.times[0]
        ((first_told, ahead, calls),) = reported.pop("freed")
        assert (first_told, calls) == (2, 1)
        assert ahead == pytest.approx(1e6 * (ROUND_TRIP + SECOND - ago), abs=2)
        assert reported.pop("heard_ago") == pytest.approx(1e6 * ago, abs=2)
        assert reported == {**fixed, "number": 2, "heard": 1, "epoch": "1", "out": 0, "called_lately": True}
        await asyncio.sleep(SECOND)
        await client.call()
        assert int(store.requests[-1]["at"]) == pytest.approx(1e6 * (store.times[-1] + AHEAD), abs=2), (
            "the fleet's clock is known by now"
        )
        assert "called_lately" not in store.requests[-1]
        assert "freed" not in store.requests[-1]

    run(main)


def test_half_of_the_credit_is_the_lead_and_half_shortens_the_reported_times() -> None:
    """By one half the answered call's slot is free sooner, by the other the process's next permit is due sooner."""

    async def main(client: Client) -> None:
        store = client.store
        for _ in range(20):
            await client.call()
        await asyncio.sleep(2.0)
        for answered, sooner in ((True, 21_500), (False, 0)):
            del store.requests[:], store.times[:]
            sent = await client.call(answered=answered)
            await asyncio.sleep(REPORT + 0.1)
            assert {request["lead"] for request in store.requests} == {21_500}
            ((_, ahead, _),) = store.told("freed")
            assert ahead == pytest.approx(1e6 * (sent + ROUND_TRIP + SECOND - store.times[-1]) - sooner, abs=2)
            await asyncio.sleep(2.0)

    run(main)


@pytest.mark.parametrize("slot_bound", [False, True])
def test_credit_grows_while_permits_wait_for_slots(slot_bound: bool) -> None:
    """Only then a call refused would show that it is too much."""

    async def main(client: Client) -> None:
        store = client.store
        store.reply["slot_bound"] = slot_bound
        for number in range(200):
            permit = await client.queue.enter()
            await asyncio.sleep(0.05 if number % 4 == 0 else 0.07)
            client.queue.leave(permit, answered=True)
        sure = 1e6 * (0.9 * 0.05 - 0.002) / 2
        lead = store.requests[-1]["lead"]
        assert lead > 1.01 * sure if slot_bound else lead == pytest.approx(sure, abs=1)

    run(main)


@pytest.mark.parametrize(("strict", "answered"), [(True, True), (False, False)])
def test_there_is_no_credit_with_strict_or_without_answers(strict: bool, answered: bool) -> None:
    async def main(client: Client) -> None:
        store = client.store
        for _ in range(30):
            await client.call(answered=answered)
        ended = client.now
        await asyncio.sleep(REPORT + 0.1)
        assert {request["lead"] for request in store.requests} == {0}
        assert sum(calls for _, _, calls in {(first, ahead, n) for first, ahead, n in store.told("freed")}) == 30
        _, ahead, _ = store.told("freed")[-1]
        assert ahead == pytest.approx(1e6 * (ended + SECOND - store.times[-1]), abs=2)
        assert ("at" in store.requests[-1]) is not strict

    run(main, strict=strict)


def test_a_cut_of_the_fleets_rate_reduces_the_credit() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call()
        before = client.store.requests[-1]["lead"]
        client.store.reply["cuts"] = 1
        await client.call()
        await client.call()
        assert client.store.requests[-1]["lead"] == pytest.approx(0.85 * before, abs=1)

    run(main)


def test_a_process_reports_often_during_a_call_and_rarely_when_idle() -> None:
    """Twice a second during a call, three times a minute when idle, never before the first call."""

    async def main(client: Client) -> None:
        store = client.store
        await asyncio.sleep(100.0)
        assert store.requests == []
        permit = await client.queue.enter()
        await asyncio.sleep(10.0)
        assert 17 <= len(store.requests) <= 23
        assert {request["out"] for request in store.requests[1:]} == {1}
        client.queue.leave(permit, answered=True)
        await asyncio.sleep(3.0)
        del store.requests[:]
        await asyncio.sleep(10 * HEARTBEAT)
        assert 8 <= len(store.requests) <= 12
        assert all(request["out"] == 0 and "wanted" not in request for request in store.requests)

    run(main)


def test_refusals_pauses_and_alerts_are_reported_at_once_until_acknowledged() -> None:
    """A tick later another process may have sent ten calls."""

    async def main(client: Client) -> None:
        limiter, store = client.limiter, client.store
        limiter.refused(client.now - 0.2, client.now)
        request = await client.asked()
        assert (request["refusals"], request["refused_ago"]) == (1, 200_000)
        client.queue.pause(2.0)
        assert (await client.asked())["pause"] == 2_000_000
        store.away = True
        limiter.slow_down(0.5, client.now)
        assert (await client.asked())["accepted"] == 0.5
        store.away = False
        await asyncio.sleep(0.2)
        assert store.requests[-1]["accepted"] == 0.5
        await client.call()
        assert "accepted" not in store.requests[-1]

    run(main)


def test_an_unused_permit_is_returned() -> None:
    """0.1 s after it was due; until then the next caller gets it."""

    async def main(client: Client) -> None:
        store = client.store
        for wait in (0.35, 1.0):
            store.due = 0.3
            caller = asyncio.create_task(client.queue.enter())
            await client.asked()
            caller.cancel()
            await asyncio.sleep(wait - 0.001)
            if wait < 0.4:
                begin = client.now
                assert await client.call() == begin
                await asyncio.sleep(2.0)
        assert (store.requests[-1]["out"], store.told("freed")[-1:]) == (0, store.told("freed")[:1])

    run(main)


@pytest.mark.parametrize("late", [False, True], ids=["cancelled", "late"])
def test_a_permit_that_its_caller_cannot_use_is_given_back(late: bool) -> None:
    """It was not sent, so nothing counts; a caller that is late asks for another one."""

    async def main(client: Client) -> None:
        store, loop = client.store, asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        caller = asyncio.create_task(client.queue.enter())
        await asyncio.sleep(0)
        client.queue.pause_until(client.now + 0.05)  # the permit is granted meanwhile
        await asyncio.sleep(0.01)
        loop.now += 0.04
        client.queue.advance()
        assert client.queue.waiting == 0
        if late:
            loop.now += 0.2
            permit = await caller
            assert permit.sent == pytest.approx(client.now)
            assert [request.get("wanted") for request in store.requests] == [1, 1]
            client.limiter.release(permit, client.now, Use.UNSENT)
        else:
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await asyncio.sleep(REPORT + 0.1)
        assert (store.requests[-1]["out"], store.told("freed")) == (0, [])

    run(main)


def test_close_returns_unused_permits_and_leaves() -> None:
    """An unused permit's slot is free half of the credit after it was due, as if it had been used."""

    async def main(client: Client) -> None:
        store = client.store
        for _ in range(20):
            await client.call()
        await asyncio.sleep(2.0)
        number = store.requests[-1]["number"]
        store.due = 0.3
        caller = asyncio.create_task(client.queue.enter())
        await client.asked()
        client.queue.close()
        await client.limiter.finish()
        assert store.requests[-1]["leaving"]
        assert store.requests[-1]["out"] == 0
        ((first_told, ahead, calls),) = store.requests[-1]["freed"]
        assert (first_told, calls) == (number + 2, 1)
        assert ahead == pytest.approx(299_000 + 21_500, abs=2)
        assert not client.queue.shared
        await asyncio.gather(caller, return_exceptions=True)

    run(main)


def test_a_late_reply_grants_nothing() -> None:
    """Its permits may have expired in the store; those not due yet keep their slots until then."""

    async def main(client: Client) -> None:
        store = client.store
        store.takes, store.due = REPLY_LIFETIME + 0.01, 1.0
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(REPLY_LIFETIME + 0.02)
        store.takes, store.due = 0.0, 0.0
        await caller
        assert store.requests[1]["out"] == 0
        assert store.told("freed")[0] == (2, pytest.approx(1e6, abs=20_000), 1)

    run(main)


def test_a_reply_to_another_request_is_ignored() -> None:
    """The next request has a higher number than that reply."""

    async def main(client: Client) -> None:
        store = client.store
        await client.call()
        client.limiter.refused(client.now, client.now)
        store.later = 17
        request = await client.asked()
        assert (request["number"], request["refusals"], request["heard"]) == (18, 1, 1)
        assert client.queue.rate == LIMIT

    run(main)


def test_a_new_epoch_gets_all_reports_again_and_frequent_ones_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(client: Client) -> None:
        store = client.store
        await client.call()
        await asyncio.sleep(REPORT + 0.1)
        assert len(store.told("freed")) == 1
        for epoch in "23456":
            store.reply["epoch"] = epoch
            await client.call()
            assert store.requests[-1]["epoch"] == str(int(epoch) - 1)
            if epoch == "2":
                permit = await client.queue.enter()
                client.queue.leave(permit, answered=True)
                told = store.requests[-1]["freed"]
                assert len(told) == 2, "including the one reported before"
            await asyncio.sleep(25.0)

    run(main)
    assert [record.message for record in caplog.records] == [
        f"the store of the shared quota has lost its data of {NAME} 3 times within a minute; if its memory is full,"
        " set maxmemory-policy to noeviction, otherwise find out what flushes or restarts it"
    ]


def test_losses_of_the_stores_data_count_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def main(client: Client) -> None:
        await client.call()
        for epoch, logged in (("2", 0), ("3", 0), ("4", 0), ("5", 0), ("6", 1)):
            await asyncio.sleep(5.0 if logged else 45.0)
            client.store.reply["epoch"] = epoch
            await client.call()
            assert len(caplog.records) == logged

    run(main)


# Requests for permits.


def test_the_next_permits_are_requested_before_the_last_ones_are_due() -> None:
    """So a distant store costs no part of the rate, and few requests."""

    async def main(client: Client) -> None:
        store = client.store
        store.takes, store.pace = 0.2, LIMIT
        sent = await asyncio.gather(*(client.call() for _ in range(6 * LIMIT)))
        assert sum(2.0 <= at - sent[0] < 5.0 for at in sent) >= 0.95 * 3 * LIMIT
        assert len(store.requests) <= 6 * 10

    run(main)


def test_an_interactive_call_requests_a_permit_although_bulk_has_a_later_one() -> None:
    """Each call gets the next permit that is due."""

    async def main(client: Client) -> None:
        queue, begin = client.queue, client.now
        client.store.due = 0.3
        bulk = asyncio.create_task(queue.enter(Lane.BULK))
        await asyncio.sleep(0.01)
        client.store.due = 0.1
        callers = [asyncio.create_task(queue.enter())]
        await asyncio.sleep(0.001)
        callers.append(asyncio.create_task(queue.enter()))
        await asyncio.sleep(0.01)
        assert [request.get("lane") for request in client.store.requests] == ["bulk", "interactive"]
        assert client.store.times == [begin, begin + 0.01]
        sent = [permit.sent for permit in await asyncio.gather(*callers, bulk)]
        assert sent[0] == pytest.approx(begin + 0.11)
        assert sent[1] == pytest.approx(begin + 0.21), "requested when the first call had its permit"
        assert sent[2] == pytest.approx(begin + 0.3)

    run(main)


def test_a_waiting_caller_asks_again_when_the_store_says() -> None:
    """Not sooner, even if another caller arrives."""

    async def main(client: Client) -> None:
        store, begin = client.store, client.now
        store.due, store.reply["again"] = None, 0.25
        callers = [asyncio.create_task(client.call()) for _ in range(3)]
        await asyncio.sleep(0.2)
        callers.append(asyncio.create_task(client.call()))
        await asyncio.sleep(0.04)
        assert store.times == [begin]
        store.due, store.reply["again"] = 0.0, 0.0
        assert min(await asyncio.gather(*callers)) == pytest.approx(begin + 0.25, abs=0.002)

    run(main)


@pytest.mark.parametrize("lane", Lane, ids=str)
@pytest.mark.parametrize("why", ["a call has ended", "a refusal", "a pause"])
def test_a_report_keeps_the_place_in_the_stores_queue(lane: Lane, why: str) -> None:
    """A request without ``wanted`` gives it up: with many processes, none would ever be first."""

    async def main(client: Client) -> None:
        store = client.store
        permit = await client.queue.enter(lane)
        store.due, store.reply["again"] = None, 2.0
        callers = [asyncio.create_task(client.call(lane=lane)) for _ in range(3)]
        await asyncio.sleep(0.01)
        before = len(store.requests)
        if why == "a refusal":
            client.limiter.refused(client.now, client.now)
        elif why == "a pause":
            client.limiter.paused(0.001)
        else:
            client.queue.leave(permit, answered=True)
        await asyncio.sleep(1.0)
        told = store.requests[before:]
        assert told
        assert all(request.get("wanted") and request["lane"] == lane.name.lower() for request in told)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        client.limiter.paused(0.001)
        assert "wanted" not in await client.asked(), "no caller waits any more"

    run(main)


@pytest.mark.parametrize("strict", [False, True])
def test_a_permits_delay_counts_from_its_grant(strict: bool) -> None:
    """With ``strict``, from the arrival of the reply."""

    async def main(client: Client) -> None:
        store = client.store
        store.takes = 0.1
        await client.call()  # it had to connect, so it tells nothing about the clocks
        store.due, begin = 0.3, client.now
        # 2 ms, by which the clocks may differ, are on the safe side.
        assert await client.call() - begin == pytest.approx(0.4 if strict else 0.352, abs=0.0005)
        await client.call()
        request = store.requests[-1]
        assert request["settle"] == pytest.approx(450_000 + 8 * 100_000)
        if not strict:
            assert int(request["at"]) == pytest.approx(1e6 * (store.times[-1] + AHEAD + 0.002), abs=2)

    run(main, strict=strict)


def test_a_deadline_that_the_store_cannot_meet_is_refused_at_once() -> None:
    """The request has the time left; only a caller with a later deadline asks the store again before its time."""

    async def main(client: Client) -> None:
        store = client.store
        store.due, store.reply["again"], store.reply["over"] = None, 0.5, True
        begin = client.now
        for _ in range(2):
            with pytest.raises(QuotaExhausted, match=r"^no permit within max_wait; try again in 0\.5 s$") as raised:
                await client.queue.enter(max_wait=0.2)
            assert client.now == begin
            assert raised.value.retry_after == pytest.approx(0.5)
        assert [request.get("budget") for request in store.requests] == [200_000]
        store.due, store.reply["again"], store.reply["over"] = 0.0, 0.0, False
        client.queue.leave(await client.queue.enter(max_wait=1.0), answered=True)
        assert client.now == begin

    run(main)


def test_max_wait_0_is_refused_when_the_store_grants_nothing() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.takes = None, 0.001
        begin = client.now
        with pytest.raises(QuotaExhausted):
            await client.queue.enter(max_wait=0)
        assert client.now == pytest.approx(begin + 0.03)
        assert client.queue.shared

    run(main)


# Replies.


def test_the_stores_pause_holds_the_queue() -> None:
    async def main(client: Client) -> None:
        await client.call()
        client.store.reply["opens"] = 3.0
        begin = client.now
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(0.01)
        assert client.queue.opens_at() == pytest.approx(begin + 3.0)
        client.store.reply["opens"] = 0.0
        assert await caller == pytest.approx(begin + 3.0, abs=0.05)

    run(main)


def test_the_latency_is_three_round_trips_within_bounds() -> None:
    async def main(client: Client) -> None:
        assert client.limiter.latency == 0.03
        for takes, latency in ((0.05, 0.15), (0.5, 1.0), (0.002, 0.03)):
            client.store.takes = takes
            for _ in range(50):
                await client.call()
                await asyncio.sleep(0.5)
            assert client.limiter.latency == pytest.approx(latency, rel=0.01)

    run(main)


def test_rate_limit_and_members_are_those_of_the_last_reply() -> None:
    async def main(client: Client) -> None:
        queue, limiter, store = client.queue, client.limiter, client.store
        assert (queue.rate, queue.limit, queue.shared, queue.processes) == (LIMIT, LIMIT, True, 1)
        store.reply |= {"rate": 30.0, "limit": 45.0, "members": 4}
        await client.call()
        await asyncio.sleep(2.0)
        assert (queue.rate, queue.limit, queue.processes) == (30.0, 45.0, 4)
        assert limiter.pace(client.now) == 30.0
        store.pace = 10.0
        await asyncio.gather(*(client.call() for _ in range(30)))
        assert queue.rate == 30.0
        assert limiter.pace(client.now) == pytest.approx(10.0, rel=0.1), "what was granted of late"
        store.pace = None
        store.away = True
        await client.call()
        assert (queue.rate, limiter.pace(client.now), queue.shared) == (22.5, 22.5, False)
        limiter.slow_down(0.6, client.now)
        assert queue.rate == pytest.approx(0.97 * 0.6 * 22.5)
        limiter.refused(client.now, client.now)
        assert queue.rate < 0.97 * 0.6 * 22.5

    run(main)


def test_differing_limits_are_logged_once_until_they_agree(caplog: pytest.LogCaptureFixture) -> None:
    """Not right after a change of this client's limit, which the store adopts soon."""

    async def main(client: Client) -> None:
        for limit in (40.0, 40.0, LIMIT, 30.0):
            client.store.reply["limit"] = limit
            await client.call()
        client.store.reply["limit"] = LIMIT
        await client.call()
        client.queue.set_limit(2 * LIMIT)
        await client.call()
        await asyncio.sleep(1.0)
        client.store.reply["limit"] = 2 * LIMIT
        await asyncio.sleep(3.0)

    run(main)
    text = (
        f"{NAME}: this client's rate is 50 calls/s, but another process has {{}}, and the smallest applies to all;"
        " give all processes the same rates"
    )
    assert [record.message for record in caplog.records] == [text.format(40), text.format(30)]


def test_a_changed_limit_is_reported_at_once_and_applies_without_the_store() -> None:
    async def main(client: Client) -> None:
        store, queue = client.store, client.queue
        for number in range(1000):
            client.limiter._credit.answered(0.05 + 0.05 * (number % 3 > 0), 50, saturated=True)
        queue.set_limit(20, 0.5)
        assert (queue.rate, client.limiter.pace(client.now)) == (20, 20)
        request = await client.asked()
        assert (request["limit"], request["bulk_share"]) == (20, 0.5)
        assert request["lead"] == pytest.approx((0.045 - 0.002) / 2 * 1e6), "credit learned with more slots is dropped"
        store.reply["limit"] = store.reply["rate"] = 200
        queue.set_limit(200)
        await client.asked()
        assert queue.rate == 200
        store.away = True
        await client.call()
        queue.set_limit(60)
        assert (queue.rate, queue.shared) == (30, False)

    run(main)


def test_a_refusal_under_the_old_limit_does_not_apply_after_a_change() -> None:
    async def main(client: Client) -> None:
        store = client.store
        store.due, store.reply["again"], store.reply["over"] = None, 5.0, True
        with pytest.raises(QuotaExhausted):
            await client.queue.enter(max_wait=1.0)
        store.due, store.reply["again"], store.reply["over"] = 0.0, 0.0, False
        client.queue.set_limit(200)
        await client.asked()
        client.queue.leave(await client.queue.enter(max_wait=1.0), answered=True)

    run(main)


def test_own_rates_bind_no_other_process() -> None:
    """The process keeps to them, whatever the store grants."""

    async def main(client: Client) -> None:
        store, queue = client.store, client.queue
        store.reply["limit"] = store.reply["rate"] = 200
        sent = await asyncio.gather(*(client.call(lane=Lane.BULK) for _ in range(4 * LIMIT)))
        assert store.requests[0]["binding"] is False
        assert (queue.limit, queue.rate, client.limiter.pace(client.now)) == (200, 200, LIMIT)
        counts = [sum(begin <= at < begin + 1.0 for at in sent) for begin in sent]
        assert 0.9 * LIMIT <= max(counts) <= LIMIT
        queue.set_limit(20)
        assert (await client.asked())["limit"] == 20
        assert (queue.limit, client.limiter.pace(client.now)) == (200, 20)

    run(main, shares=Shares(own_rates=True))


# Without the store.


@pytest.mark.parametrize(
    ("options", "limit", "least"),
    [
        ({}, LIMIT / 2, 0.98),
        ({"strict": True}, LIMIT / 2, 0.94),
        ({"shares": Shares(own_rates=True, fallback=1.0)}, LIMIT, 0.98),
    ],
    ids=["the share", "strictly", "rates of its own"],
)
def test_without_the_store_the_share_is_kept_and_used(options: dict[str, Any], limit: float, least: float) -> None:
    """But for the round trips, which only strictly cost a part of it."""

    async def main(client: Client) -> None:
        client.store.away = True
        begin = client.now
        sent = sorted(await asyncio.gather(*(client.call() for _ in range(int(12 * limit)))))
        assert max(sum(first <= at < first + 1.0 for at in sent) for first in sent) <= limit
        used = sum(begin + 4.0 <= at < begin + 10.0 for at in sent) / (6 * limit)
        assert least <= used < least + 0.04

    run(main, **options)


def test_calls_made_without_the_store_are_reported_as_such() -> None:
    async def main(client: Client) -> None:
        store = client.store
        store.away = True
        for _ in range(3):
            await client.call()
        store.away = False
        del store.requests[:]
        await asyncio.sleep(0.5)
        first, *others = store.requests
        assert (first["alone"], first["called_lately"], first["out"]) == (True, True, 0)
        assert sum(calls for _, _, calls in first["freed"]) == 3
        assert not any("alone" in request for request in others)
        assert client.queue.shared

    run(main)


def test_a_defect_in_the_exchange_is_logged_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    async def main(client: Client) -> None:
        for _ in range(2):
            client.store.reply["unknown"] = 1
            await client.call()
            await asyncio.sleep(1.0)
            del client.store.reply["unknown"]
            await asyncio.sleep(1.0)

    run(main)
    text = "a defect in the exchange with the shared quota; treated as an outage"
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [text, text]
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


def test_fail_closed_waits_for_the_store() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(5.0)
        assert not caller.done()
        assert client.queue.rate == LIMIT
        client.store.away = False
        begin = client.now
        assert await caller <= begin + 0.13

    run(main, shares=Shares(fail_closed=True))


def test_while_the_store_settles_the_fallback_share_is_used_until_it_grants() -> None:
    """The last calls made alone are reported before that, and permits are requested as soon as it grants."""

    async def main(client: Client) -> None:
        store = client.store
        await client.call()
        begin, store.due, store.reply["settling"] = client.now, None, 0.45
        caller = asyncio.create_task(client.call())
        await client.asked()
        assert (client.queue.shared, client.queue.rate) == (True, LIMIT / 2)
        del store.times[:]
        store.reply["settling"] = RETURN_SILENCE / 2
        await asyncio.sleep(0.4)
        assert store.times[0] - begin <= 0.45 - RETURN_SILENCE / 2 + 0.001
        store.due, store.reply["settling"] = 0.0, 0.0
        await asyncio.sleep(TICK + 0.03)
        await caller
        assert client.queue.rate == LIMIT

    run(main)


@pytest.mark.parametrize("members", [1, 300])
def test_all_calls_made_alone_are_reported_when_the_store_grants(members: int) -> None:
    """One of many processes reports less often, but once within the silence."""

    async def main(client: Client) -> None:
        store = client.store
        store.reply["members"] = members
        await client.call()
        begin, store.settled = client.now, client.now + 0.8
        sent = await asyncio.gather(*(client.call() for _ in range(50)))
        last = max(at for at in sent if at < store.settled)
        assert begin < last <= max(at for at in store.times if at <= store.settled)

    for _ in range(20):
        run(main)


def test_no_call_is_made_alone_around_the_time_at_which_the_store_grants() -> None:
    async def main(client: Client) -> None:
        store = client.store
        await client.call()
        begin, store.due, store.reply["settling"] = client.now, None, 1.0
        calls = [asyncio.create_task(client.call()) for _ in range(40)]
        await client.asked()
        store.takes = 2.0  # and no other reply
        sent = sorted(await asyncio.gather(*calls))
        assert [at for at in sent if at < begin + 1.0 - RETURN_SILENCE]
        assert not [at for at in sent if begin + 1.0 - RETURN_SILENCE < at < begin + 1.0 + RETURN_SILENCE]
        store.reply["settling"] = 0.0

    run(main)


def test_a_permit_of_the_store_is_used_while_the_fallback_share_waits() -> None:
    async def main(client: Client) -> None:
        client.store.due = 0.2
        callers = [asyncio.create_task(client.call()) for _ in range(2)]
        await client.asked()
        begin = client.now
        client.store.away = True
        client.limiter.refused(begin, begin)
        await client.asked()
        assert not client.queue.shared
        sent = sorted(await asyncio.gather(*callers))
        assert sent[0] == pytest.approx(begin + 0.199, abs=0.005)
        assert sent[1] >= begin + 0.2 + 0.3 - 0.01, "the silence begins with the last permit"

    run(main)


@pytest.mark.parametrize(("members", "least", "most"), [(1, 54, 67), (200, 27, 34), (500, 18, 24)])
def test_each_of_many_processes_tries_the_store_less_often(members: int, least: int, most: int) -> None:
    async def main(client: Client) -> None:
        client.store.reply["members"] = members
        await client.call()
        client.store.away = True
        await client.call()
        del client.store.requests[:]
        await asyncio.sleep(6.0)
        assert least <= len(client.store.requests) <= most

    run(main)


def test_an_unused_permit_of_the_fallback_share_is_free_at_once() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        permit = await client.queue.enter()
        client.limiter.release(permit, client.now, Use.UNSENT)
        assert client.limiter.wait(client.now, Lane.BULK) == 0.0
        await asyncio.sleep(0.2)
        assert client.store.requests[-1]["out"] == 0
        assert client.store.told("freed") == []

    run(main, shares=Shares(fallback=0.2))
