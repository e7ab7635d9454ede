"""A whole shared limiter, in virtual time, against a store that a test scripts."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests import virtual_time
from tim_async import Lane, QuotaExhausted
from tim_async._limiter.local import Use
from tim_async._limiter.queue import RequestQueue
from tim_async._limiter.reply import Reply
from tim_async._limiter.request import Request, terms
from tim_async._limiter.shared import SharedLimiter
from tim_async._limiter.sharing import Shares, StoreAway

LIMIT = 50
ROUND_TRIP = 0.05


class Store:
    """Grants at once what is asked, and keeps what it is told.

    Attributes:
        requests: all of them; and the loop times at which they came, in ``times``.
        reply: the fields of its replies, but for the permits.
        due: seconds until a permit may be used; None to grant none.
        takes: seconds until it replies.
        away: it cannot be reached.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.reply: dict[str, Any] = {"rate": LIMIT, "cuts": 0}
        self.due: float | None = 0.0
        self.takes = 0.0
        self.away = False
        self._numbers = itertools.count(1)

    async def exchange(self, request: Request) -> Reply:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        if self.away:
            raise StoreAway
        count = 0 if self.due is None else request.get("wanted", 0)
        return Reply(**self.reply, permits=tuple((next(self._numbers), self.due or 0.0) for _ in range(count)))

    def told(self, field: str) -> list[Any]:
        """All that it was told in one field."""
        return [each for request in self.requests for each in request.get(field, ())]  # type: ignore[attr-defined]


class Client:
    """A queue and its limiter, which shares the quota of a store."""

    def __init__(self, *, strict: bool = False, alone: float | None = 0.5) -> None:
        self.store = Store()
        self.limiter: SharedLimiter
        self._strict, self._alone = strict, alone
        self.queue = RequestQueue(LIMIT, limiter=self._limiter)

    def _limiter(self, queue: RequestQueue) -> SharedLimiter:
        self.limiter = SharedLimiter(
            self.store.exchange, queue, LIMIT, strict=self._strict, shares=Shares(0.9, self._alone), overdue=2.5
        )
        return self.limiter

    @property
    def now(self) -> float:
        return self.queue.now()

    async def call(self, *, answered: bool = True) -> float:
        """Make a call; returns the loop time at which it was sent."""
        permit = await self.queue.enter()
        await asyncio.sleep(ROUND_TRIP)
        self.queue.leave(permit, answered=answered)
        return permit.sent

    async def close(self) -> None:
        self.queue.close()
        await self.limiter.finish()


def run(main: Callable[[Client], Any], **options: Any) -> None:
    async def client() -> None:
        client = Client(**options)
        await main(client)
        await client.close()

    virtual_time.run(client())


def test_half_of_the_credit_leads_and_the_other_half_is_in_the_report() -> None:
    """An answer's slot is free sooner by half of the credit, the caller's next call by the other half."""

    async def main(client: Client) -> None:
        store = client.store
        for _ in range(20):
            await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in store.requests[:-1]} == {0}
        assert store.told("answered")[0] == ("1", 0)
        del store.requests[:]
        sent = await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in store.requests} == {21_500}
        ((_, ago),) = store.told("answered")
        assert ago == pytest.approx(1e6 * (store.times[-1] - sent - ROUND_TRIP) + 21_500, abs=2)
        assert 0.08 <= store.times[-1] - sent <= 0.12, "it is told at the next tick"

    run(main)


def test_strict_gives_up_the_credit() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in client.store.requests} == {0}

    run(main, strict=True)


def test_a_call_without_an_answer_teaches_no_round_trip() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call(answered=False)
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in client.store.requests} == {0}
        assert len(client.store.told("answered")) == 30

    run(main)


def test_a_cut_of_the_fleets_rate_takes_credit_back() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call()
        await asyncio.sleep(0.5)
        await client.call()
        before = client.store.requests[-1]["lead"]
        client.store.reply["cuts"] = 1
        await client.call()
        await client.call()
        assert client.store.requests[-1]["lead"] == pytest.approx(0.85 * before, abs=1)

    run(main)


def test_every_request_has_the_terms_and_says_whether_there_were_calls() -> None:
    """Within two seconds."""

    async def main(client: Client) -> None:
        await client.call()
        await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)
        await client.call()
        first, *_, reported, second = client.store.requests
        fixed = terms(LIMIT, 0.9, strict=False)
        assert first == {**fixed, "lead": 0, "lane": "interactive", "wanted": 1}
        assert {**reported, "answered": ()} == {**fixed, "lead": 0, "called_lately": True, "answered": ()}
        assert second == first

    run(main)


def test_a_store_that_pauses_holds_the_queue() -> None:
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
        for takes, latency in ((0.05, 0.15), (0.5, 0.25), (0.002, 0.03)):
            client.store.takes = takes
            for _ in range(50):
                await client.call()
                await asyncio.sleep(0.5)
            assert client.limiter.latency == pytest.approx(latency, rel=0.01)

    run(main)


def test_the_rate_is_the_stores_up_to_the_limit_and_the_share_without_it() -> None:
    async def main(client: Client) -> None:
        queue, limiter = client.queue, client.limiter
        assert (queue.rate, queue.shared) == (LIMIT, True)
        for rate, known in ((30.0, 30.0), (55.0, LIMIT)):
            client.store.reply["rate"] = rate
            await client.call()
            await asyncio.sleep(2.0)
            assert (queue.rate, limiter.pace(client.now), queue.shared) == (known, known, True)
        client.store.away = True
        await client.call()
        assert (queue.rate, limiter.pace(client.now), queue.shared) == (LIMIT / 2, LIMIT / 2, False)
        limiter.slow_down(0.6, client.now)
        assert queue.rate == pytest.approx(0.97 * 0.6 * LIMIT / 2)

    run(main)


def test_what_is_made_alone_is_reported_as_such() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        for _ in range(3):
            await client.call()
        client.store.away = False
        del client.store.requests[:]
        await asyncio.sleep(0.5)
        first, *others = client.store.requests
        assert first["alone"]
        assert len(client.store.told("answered")) == 3
        assert all(int(number) < 0 for number, _ in client.store.told("answered"))
        assert not any("alone" in request for request in others)
        assert client.queue.shared

    run(main)


def test_a_refusal_is_told_at_once_and_also_slows_the_fallback_share() -> None:
    async def main(client: Client) -> None:
        now = client.now
        client.limiter.refused(now - 0.2, now)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["refusals"] == 1
        assert client.store.requests[-1]["refused_ago"] == 200_000
        assert client.queue.rate == LIMIT
        client.store.away = True
        await client.call()
        client.limiter.refused(client.now, client.now)
        assert client.queue.rate < LIMIT / 2

    run(main)


def test_a_permit_that_no_call_took_in_time_is_given_back() -> None:
    """A tenth of a second after it was due; until then the next caller takes it."""

    async def main(client: Client) -> None:
        client.store.due = 0.3
        for number, wait in (("1", 0.35), ("2", 0.6)):
            caller = asyncio.create_task(client.call())
            await asyncio.sleep(0.01)
            caller.cancel()
            await asyncio.sleep(wait - 0.01)
            if number == "1":
                begin = client.now
                assert await client.call() == begin
            assert client.store.told("unused") == ([] if number == "1" else [number])

    run(main)


def test_a_permit_in_hand_is_given_back_by_closing() -> None:
    async def main(client: Client) -> None:
        client.store.due = 0.3
        caller = asyncio.create_task(client.queue.enter())
        await asyncio.sleep(0.01)
        client.queue.close()
        await client.limiter.finish()
        assert client.store.told("unused") == ["1"]
        assert not client.queue.shared
        await asyncio.gather(caller, return_exceptions=True)

    run(main)


def test_a_deadline_that_the_store_cannot_keep_is_refused_at_once() -> None:
    """The store is told the time left; what it says instead is when there would be a permit."""

    async def main(client: Client) -> None:
        client.store.due, client.store.reply["over"] = None, 0.5
        begin = client.now
        with pytest.raises(QuotaExhausted, match=r"^no permit within max_wait; try again in 0\.5 s$") as raised:
            await client.queue.enter(max_wait=0.2)
        assert client.now == begin
        assert raised.value.retry_after == pytest.approx(0.5)
        assert client.store.requests[-1]["budget"] == 200_000

    run(main)


def test_a_slow_exchange_is_given_up_when_it_is_overdue() -> None:
    async def main(client: Client) -> None:
        client.store.takes = 1e6
        begin = client.now
        assert await client.call() == pytest.approx(begin + 2.5, abs=0.45)
        assert not client.queue.shared
        client.store.takes = 0.0
        await asyncio.sleep(3.2)
        assert client.queue.shared

    run(main)


def test_a_defect_of_the_exchange_is_logged_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
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


def test_without_a_share_of_its_own_it_waits_for_the_store() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(5.0)
        assert not caller.done()
        assert client.queue.rate == LIMIT
        client.store.away = False
        begin = client.now
        assert await caller <= begin + 0.13

    run(main, alone=None)


def test_while_the_store_settles_the_fallback_share_is_used_until_it_grants() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.reply["settling"] = None, 0.45
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(0.01)
        assert (client.queue.shared, client.queue.rate) == (True, LIMIT / 2)
        client.store.reply["settling"] = 0.0
        told = len(client.store.requests)
        await asyncio.sleep(0.13)
        assert len(client.store.requests) == told + 1, "it is asked again at the next tick"
        await caller
        assert client.queue.rate == LIMIT

    run(main)


def test_a_permit_of_the_store_is_used_while_the_fallback_share_waits() -> None:
    async def main(client: Client) -> None:
        client.store.due = 0.2
        callers = [asyncio.create_task(client.call()) for _ in range(2)]
        await asyncio.sleep(0.01)
        begin = client.now
        client.store.away = True
        client.limiter.refused(begin, begin)
        await asyncio.sleep(0.01)
        assert not client.queue.shared
        sent = sorted(await asyncio.gather(*callers))
        assert sent[0] == pytest.approx(begin + 0.19, abs=0.005)
        assert sent[1] >= begin + 0.2 + 0.3 - 0.01, "and then a silence that begins with the last permit"

    run(main)


def test_a_pause_and_an_alert_are_told_at_once() -> None:
    """A tick later another process may have sent ten calls."""

    async def main(client: Client) -> None:
        client.limiter.paused(2.0)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["pause"] == 2_000_000
        client.limiter.slow_down(0.5, client.now)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["taken"] == 0.5

    run(main)


def test_an_interactive_call_asks_although_bulk_has_a_permit_that_is_due_later() -> None:
    """And each has the next permit that is due."""

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
        assert sent[1] == pytest.approx(begin + 0.21), "it asked when the first one had its permit"
        assert sent[2] == pytest.approx(begin + 0.3)

    run(main)


def test_a_caller_is_told_of_its_deadline_only_once() -> None:
    """What the store has said about the next permit is not asked again before."""

    async def main(client: Client) -> None:
        client.store.due, client.store.reply["over"], client.store.takes = None, 0.5, 0.01
        caller = asyncio.create_task(client.queue.enter(max_wait=0.51))
        await asyncio.sleep(0.4)
        assert len(client.store.requests) == 1
        await asyncio.gather(caller, return_exceptions=True)

    run(main)


def test_a_caller_that_would_not_wait_has_nothing_that_was_not_granted() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.takes = None, 0.001
        begin = client.now
        with pytest.raises(QuotaExhausted):
            await client.queue.enter(max_wait=0)
        assert client.now == pytest.approx(begin + 0.03)
        assert client.queue.shared

    run(main)


def test_a_permit_of_the_fallback_share_that_was_not_used_is_free_at_once() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        permit = await client.queue.enter()
        client.limiter.leave(permit, client.now, Use.UNSENT)
        assert client.limiter.wait(client.now, Lane.BULK) == 0.0
        assert client.limiter.rate(client.now) == 1.0

    run(main, alone=1 / LIMIT)


def test_a_changed_limit_goes_with_the_next_request_and_changes_the_share_without_the_store() -> None:
    """And the most that is asked for at once.  The next request is at once: new slots are free a second after it."""

    async def main(client: Client) -> None:
        store, queue = client.store, client.queue
        for number in range(1000):
            client.limiter._credit.answered(0.05 + 0.05 * (number % 3 > 0), 50, saturated=True)
        queue.set_limit(20, 0.5)
        assert (queue.rate, client.limiter.pace(client.now)) == (20, 20)
        await asyncio.sleep(0.01)
        assert store.requests == [{**terms(20, 0.5, strict=False), "lead": pytest.approx((0.045 - 0.002) / 2 * 1e6)}]
        store.due = 0.3
        waiting = [asyncio.create_task(client.call()) for _ in range(200)]
        await asyncio.sleep(0.01)
        assert store.requests[-1]["wanted"] == 1
        store.due, store.reply["rate"], store.takes = 0.0, 220, 0.2
        queue.set_limit(200)
        await asyncio.gather(*waiting)
        assert terms(200, 0.5, strict=False).items() <= store.requests[-1].items()
        assert queue.rate == 200
        assert max(request.get("wanted", 0) for request in store.requests) == 20
        store.away = True
        await client.call()
        queue.set_limit(60)
        assert (queue.rate, queue.shared) == (30, False)

    run(main)


def test_what_the_store_said_of_the_old_limit_turns_nobody_away_after_a_change() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.reply["over"] = None, 5.0
        for _ in range(2):
            with pytest.raises(QuotaExhausted):
                await client.queue.enter(max_wait=1.0)
        assert len(client.store.requests) == 1
        client.queue.set_limit(200)
        client.store.due, client.store.reply["over"] = 0.0, 0.0
        client.queue.leave(await client.queue.enter(max_wait=1.0), answered=True)

    run(main)
