"""Several clients, one quota: together they keep the limit, each has its part, and all share what one learns."""

from __future__ import annotations

import asyncio
import gc
import pickle
import warnings
from collections.abc import Awaitable
from typing import Any

import aiohttp
import pytest
from redis import Redis
from redis.crc import key_slot

from tests.stand_in import APP, JSON, Fate, Reply, StandIn, error, failure_of, sensible
from tests.store import Store
from tim_async import ClientClosed, Lane, QuotaExhausted, TIMClient, TIMError
from tim_async.quota import LAYOUT, RedisQuota
from tim_async.webhooks import RequestOverLimit

from .support import NAME, PATIENT, Counting, answers, calling, client, in_use, keys_of, quota_on, until


@pytest.mark.parametrize("strict", [False, True])
async def test_clients_use_the_limit_together_and_are_not_refused(
    service: StandIn, lasting: Store, strict: bool
) -> None:
    counting = service.answer = Counting(40)
    quota = quota_on(lasting, timeout=PATIENT)
    async with (
        client(service, quota, 40, strict=strict) as one,
        client(service, quota, 40, strict=strict) as two,
        client(service, quota, 40, strict=strict) as three,
    ):
        async with calling((one, "one"), (two, "two"), (three, "three")):
            await until(lambda: answers(counting) >= 65)
        assert one.stats()[NAME].shared
    # With credit, the delays of a busy machine may cause one refusal.
    assert counting.refused <= (0 if strict else 1)
    assert 25 <= counting.max_per_second() <= (40 if strict else 41)
    assert min(counting.accepted.values()) >= 12


async def test_the_first_call_on_an_empty_store_is_sent_at_once(service: StandIn, store: Store) -> None:
    """While the store settles, each client uses its fallback share."""
    counting = service.answer = Counting(100)
    async with client(service, RedisQuota(store.url), 100) as tim:
        assert await tim.with_options(max_wait=0.3).get_all_c2c_unread_msg_num("alice") == 7
        async with calling((tim, "alice")):
            await until(lambda: answers(counting) >= 100)
    assert counting.refused == 0


async def test_a_refusal_of_one_client_slows_all(service: StandIn, lasting: Store) -> None:
    quota = quota_on(lasting, timeout=PATIENT)
    async with client(service, quota, 100) as one, client(service, quota, 100) as two:
        await two.get_all_c2c_unread_msg_num("two")
        assert two.stats()[NAME].rate == 100
        service.script.append(error(60007))
        await one.get_all_c2c_unread_msg_num("one")
        await until(lambda: one.stats()[NAME].rate < 100)
        await two.get_all_c2c_unread_msg_num("two")
        assert two.stats()[NAME].rate == pytest.approx(one.stats()[NAME].rate, abs=2)
        assert (one.stats()[NAME].refusals, two.stats()[NAME].refusals) == (1, 0)
        await one.set_unread_msg_num("g", "one", 1)
        assert one.stats()["set_unread_msg_num"].rate == 100, "another endpoint has another quota"


async def test_a_retry_after_header_holds_all_clients(service: StandIn, lasting: Store) -> None:
    counting = Counting(100)
    quota = quota_on(lasting, timeout=PATIENT)
    async with client(service, quota, 100) as one, client(service, quota, 100) as two:
        await two.get_all_c2c_unread_msg_num("two")
        service.answer = counting
        body = b'{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":60007}'
        service.script.append(Reply(body, 429, (*JSON, ("Retry-After", "1"))))
        begin = asyncio.get_running_loop().time()
        paused = asyncio.create_task(one.get_all_c2c_unread_msg_num("one"))
        await service.until(2)
        with Redis.from_url(lasting.url) as redis:
            await until(lambda: float(redis.hget(keys_of(quota)["state"], "opens") or 0) > 0)
        failure = await failure_of(two.with_options(max_wait=0.1).get_all_c2c_unread_msg_num("two"))
        assert type(failure) is QuotaExhausted
        assert failure.retry_after > 0.3
        await two.get_all_c2c_unread_msg_num("two")
        await paused
        assert asyncio.get_running_loop().time() - begin >= 0.95
        assert min(counting.arrivals) >= begin + 0.95


async def test_an_alert_to_one_client_slows_the_others(service: StandIn, lasting: Store) -> None:
    """Also if the alerted client does not call."""
    quota = quota_on(lasting, timeout=PATIENT)
    alert = RequestOverLimit(sdk_app_id=APP, service_name="openim", command=NAME, request=200, limit=100)
    async with client(service, quota, 100) as one, client(service, quota, 100) as two:
        await two.get_all_c2c_unread_msg_num("two")
        one.on_alert(alert)
        await until(lambda: one.stats()[NAME].rate < 60)
        await two.get_all_c2c_unread_msg_num("two")
        assert 40 <= two.stats()[NAME].rate < 60


async def test_interactive_calls_overtake_bulk_calls_of_another_client(service: StandIn, lasting: Store) -> None:
    counting = service.answer = Counting(50)
    quota = quota_on(lasting, timeout=PATIENT)
    async with client(service, quota, 50) as one, client(service, quota, 50) as two:
        async with calling((one.with_options(lane=Lane.BULK), "bulk"), tasks=20):
            await until(lambda: answers(counting) >= 60)
            for _ in range(5):
                await two.get_all_c2c_unread_msg_num("asked")
        waits = two.stats()[NAME].waits
        assert waits.longest < 0.4, "less than any queue of 20 would take"
    assert counting.refused == 0


async def test_endpoints_and_apps_have_quotas_of_their_own(service: StandIn, lasting: Store) -> None:
    counting = service.answer = Counting(10)
    quota = quota_on(lasting, timeout=PATIENT)
    async with client(service, quota, 10) as one, client(service, quota, 10, sdk_app_id=APP + 1) as two:
        calls: list[Awaitable[Any]] = []
        for _ in range(9):
            calls += [one.get_all_c2c_unread_msg_num("one"), two.get_all_c2c_unread_msg_num("two")]
            calls.append(one.admin_set_msg_read("one", "two", msg_read_time=1_700_000_000))
        await asyncio.gather(*calls)
    assert counting.refused == 0
    assert counting.max_per_second() > 10
    with Redis.from_url(lasting.url) as redis:
        keys = redis.keys(f"{quota._namespace}:*")
    slots = {(key.rpartition(b":")[0], key_slot(key)) for key in keys}
    assert len({key for key, _ in slots}) == len({slot for _, slot in slots}) == len(slots) == 3


async def test_releases_with_different_layouts_leave_each_other_alone(
    service: StandIn, lasting: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither reads nor changes the other's keys."""
    quota = quota_on(lasting, timeout=PATIENT)
    keys = [*keys_of(quota).values()]
    with Redis.from_url(lasting.url) as redis:
        async with client(service, quota, 50) as old:
            await old.get_all_c2c_unread_msg_num("old")
        before = [redis.dump(key) for key in keys]
        monkeypatch.setattr("tim_async.quota.LAYOUT", LAYOUT + 1)
        async with client(service, quota, 50) as new:
            await new.get_all_c2c_unread_msg_num("new")
            assert new.stats()[NAME].shared
        assert [redis.dump(key) for key in keys] == before
        assert {key.split(b":")[-2] for key in redis.keys(f"{quota._namespace}:*")} == {
            b"%d" % LAYOUT,
            b"%d" % (LAYOUT + 1),
        }


def test_one_quota_object_works_in_two_loops_one_after_the_other(lasting: Store) -> None:
    quota = quota_on(lasting, timeout=PATIENT)

    async def main() -> tuple[int, int]:
        counting = Counting(10)
        async with StandIn(answer=counting) as service, client(service, quota, 10) as tim:
            await asyncio.gather(*(tim.get_all_c2c_unread_msg_num("alice") for _ in range(5)))
            return counting.refused, answers(counting)

    assert [asyncio.run(main()) for _ in range(2)] == [(0, 5)] * 2


async def test_max_wait_with_thousands_of_calls_ahead_is_refused_at_once(service: StandIn, lasting: Store) -> None:
    """In another client within max_wait; nothing is sent, and no permit is used."""
    counting = service.answer = Counting(5)
    quota = quota_on(lasting, timeout=PATIENT)
    loop = asyncio.get_running_loop()
    async with client(service, quota, 5) as one, client(service, quota, 5) as two:
        queue = [asyncio.create_task(one.get_all_c2c_unread_msg_num("queue")) for _ in range(2000)]
        await until(lambda: answers(counting) >= 5)
        begin = loop.time()
        failure = await failure_of(one.with_options(max_wait=5.0).get_all_c2c_unread_msg_num("same"))
        assert loop.time() - begin < 1.0
        assert type(failure) is QuotaExhausted
        assert failure.retry_after > 5.0
        assert (failure.endpoint, failure.attempts) == (NAME, 0)
        failures = [
            await failure_of(two.with_options(max_wait=0.02).get_all_c2c_unread_msg_num("other")) for _ in range(5)
        ]
        assert {type(failure) for failure in failures} == {QuotaExhausted}
        assert all(0 < failure.retry_after < 10 for failure in failures if isinstance(failure, QuotaExhausted))
        assert two.stats()[NAME].exhausted == 5
        assert sum(in_use(lasting, quota)) <= 5
        assert counting.accepted.keys() == {"queue"}
        for task in queue:
            task.cancel()
        await asyncio.wait(queue)
    assert counting.refused == 0


async def test_a_session_of_few_connections_does_not_hold_up_other_clients(service: StandIn, lasting: Store) -> None:
    """Permits without a free connection are returned."""
    counting = service.answer = Counting(40)
    quota = quota_on(lasting, timeout=PATIENT)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
        client(service, quota, 40, session=session) as one,
        client(service, quota, 40) as two,
        calling((one.with_options(lane=Lane.BULK), "one"), (two.with_options(lane=Lane.BULK), "two"), tasks=30),
    ):
        await until(lambda: answers(counting) >= 60)
    assert counting.refused == 0
    assert min(counting.accepted.values()) >= 5


@pytest.mark.parametrize("answer", ["good", "failing", "held"])
async def test_cancelling_at_any_step_leaves_nothing_behind(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    """Calls are cancelled after 0, 1, 2, … steps; then no permit is out."""
    faults = {"good": sensible, "failing": lambda _: error(10002), "held": lambda _: Fate.HOLD}
    service.answer = faults[answer]
    quota = quota_on(lasting, timeout=PATIENT)
    async with client(service, quota, 500) as tim:
        for steps in range(60):
            tasks = [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        stats = tim.stats()[NAME]
        assert (stats.queue.interactive, stats.queue.bulk) == (0, 0)
        service.answer = sensible
        service.let_go.set()
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert in_use(lasting, quota)[0] == 0, "nothing is out"
    gc.collect()
    assert caplog.records == []


async def test_close_fails_waiting_calls_and_leaves_no_task(service: StandIn, lasting: Store) -> None:
    quota = quota_on(lasting, timeout=PATIENT)
    service.answer = lambda _: Fate.HOLD
    tim = client(service, quota, 2)
    waiting = [asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("a"))) for _ in range(5)]
    await service.until(2)
    async with asyncio.timeout(2):
        await tim.aclose()
        await tim.aclose()
        failures = await asyncio.gather(*waiting)
    assert all(isinstance(failure, TIMError) for failure in failures)
    assert sum(isinstance(failure, ClientClosed) for failure in failures) >= 3
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not {name for name in names if "Shared" in name}


async def test_a_client_that_never_called_closes_without_the_store(service: StandIn) -> None:
    async with client(service, RedisQuota("redis://127.0.0.1:9/0"), 2):
        pass


def test_a_client_connects_at_its_first_call() -> None:
    """It needs no loop and no store before."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quota = RedisQuota("redis://127.0.0.1:9/0")
        TIMClient(
            sdk_app_id=APP,
            secret_key="5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e",
            region="singapore",
            quota=quota,
        )
        gc.collect()


def test_a_rejected_quota_shows_no_secret() -> None:
    """Crash reporters show the variables of each frame, also of the constructor's."""
    for url, options in ((5, {}), ("http://:secret@h", {}), ("redis://:secret@h", {"timeout": 0})):
        half_made = RedisQuota.__new__(RedisQuota)
        with pytest.raises((ValueError, TypeError)):
            half_made.__init__(url, **options)  # type: ignore[misc]
        assert "secret" not in repr(half_made)


def test_a_quota_shows_no_password_and_can_be_pickled() -> None:
    for url in (
        "valkeys://user:secret@store:6380/2?ssl_cert_reqs=none",
        "redis://joe:secret@localhost:6379/3",
        "rediss://:secret@localhost",
        "unix://joe:secret@/tmp/x.sock",
    ):
        quota = RedisQuota(url, fallback_share=0.05, password="secret")
        assert "secret" not in f"{quota!r}{quota}"
        assert repr(pickle.loads(pickle.dumps(quota))) == repr(quota)
    assert repr(RedisQuota("valkeys://user:secret@store:6380/2")) == "RedisQuota('rediss://store:6380/2')"


@pytest.mark.parametrize(("before", "after"), [(40, 80), (80, 40)])
async def test_the_rate_can_be_changed_under_load(service: StandIn, lasting: Store, before: int, after: int) -> None:
    """In one client after the other; the service takes the higher rate.  None is refused, and the new rate is used."""
    counting = service.answer = Counting(max(before, after))
    quota = quota_on(lasting, timeout=PATIENT)
    async with (
        client(service, quota, before) as one,
        client(service, quota, before) as two,
        calling((one, "one"), (two, "two")),
    ):
        await until(lambda: answers(counting) >= before)
        for tim in (one, two):
            tim.set_rate(NAME, after)
            await asyncio.sleep(0.05)
        await until(lambda: one.stats()[NAME].limit == two.stats()[NAME].limit == after, 3.0)
        changed = len(counting.arrivals)
        await until(lambda: len(counting.arrivals) >= changed + 2.3 * after)
    assert counting.refused == 0
    del counting.arrivals[: changed + after]  # which the old rate permitted in part
    assert 0.6 * after <= counting.max_per_second() <= after


@pytest.mark.parametrize("other", [60, 41])
async def test_clients_with_different_limits_keep_to_the_smallest(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, other: float
) -> None:
    """One with a higher limit logs it once; one with own rates uses less, and binds no other."""
    counting = service.answer = Counting(40)
    quota = quota_on(lasting, timeout=PATIENT)
    modest = RedisQuota(lasting.url, namespace=quota._namespace, timeout=PATIENT, own_rates=True)
    async with (
        client(service, quota, 40) as one,
        client(service, quota, other) as two,
        client(service, modest, 5) as three,
    ):
        async with calling((one, "one"), (two, "two"), (three, "three")):
            await until(lambda: answers(counting) >= 100)
        assert [tim.stats()[NAME].limit for tim in (one, two, three)] == [40] * 3
        assert [tim.stats()[NAME].processes for tim in (one, two, three)] == [3] * 3
    assert counting.refused == 0
    assert 25 <= counting.max_per_second() <= 40
    assert counting.accepted["three"] <= 5 * 4, "about 2.5 s, and a burst"
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"rate is {other} calls/s, but another process has 40" in line


async def test_the_bulk_share_can_be_changed_with_the_rate(service: StandIn, lasting: Store) -> None:
    quota = quota_on(lasting, timeout=PATIENT)
    counting = service.answer = Counting(40)
    async with client(service, quota, 40) as tim:
        tim.set_rate(NAME, 40, bulk_share=0.25)
        async with calling((tim.with_options(lane=Lane.BULK), "bulk")):
            await until(lambda: answers(counting) >= 25)
        assert counting.max_per_second() == 10
