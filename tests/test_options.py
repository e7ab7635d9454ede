"""Views with other options (max_wait, timeout, retry, lane), `stats` and `on_alert`."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest

from tim_async import (
    Attempt,
    ClientClosed,
    Lane,
    QuotaExhausted,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerBusy,
    TIMClient,
)
from tim_async.endpoints import ENDPOINTS
from tim_async.webhooks import MsgReport, RequestOverLimit

from .stand_in import APP, AT_ONCE, KEY, Fate, StandIn, client_of, error, failure_of

SET = "set_unread_msg_num"
ALERT: dict[str, Any] = {"sdk_app_id": APP, "client_ip": "", "opt_platform": "RESTAPI", "event_time": None, "body": {}}


def alert(command: str, request: int, limit: int = 200, **changes: Any) -> RequestOverLimit:
    fields: dict[str, Any] = {**ALERT, **changes}
    return RequestOverLimit(service_name="internal", command=command, request=request, limit=limit, **fields)


# max_wait


async def test_a_call_refused_for_max_wait_is_not_sent(service: StandIn) -> None:
    """Two thousand bulk calls wait; the refused ones are counted and do not change the queue."""
    async with client_of(service, rates={SET: 50}) as tim:
        bulk = [
            asyncio.create_task(tim.with_options(lane=Lane.BULK).set_unread_msg_num("g", "b", 1)) for _ in range(2000)
        ]
        await service.until(5)
        before = tim.stats()[SET].queue
        impatient = tim.with_options(max_wait=0.1, lane=Lane.BULK)
        failures = await asyncio.gather(
            *(failure_of(impatient.set_unread_msg_num("g", "refused", 1)) for _ in range(20))
        )
        after = tim.stats()[SET]
        for task in bulk:
            task.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, QuotaExhausted), failure
        assert (failure.endpoint, failure.attempts) == (SET, 0)
        assert failure.retry_after > 10
        assert f"{SET}: no permit within max_wait; try again in" in str(failure)
    assert after.exhausted == 20
    assert before.bulk - 20 <= after.queue.bulk <= before.bulk
    assert "refused" not in {body["Member_Account"] for body in service.bodies}


@pytest.mark.parametrize("permits", [0, 1])
async def test_a_batch_is_refused_as_a_whole_only_when_nothing_was_sent(service: StandIn, permits: int) -> None:
    """Otherwise it returns the answers, and errors for the other peers."""
    name = "get_c2c_unread_msg_num"
    async with client_of(service, rates={name: 4}) as tim:
        for _ in range(4 - permits):
            await tim.get_all_c2c_unread_msg_num("alice")
        batch = tim.with_options(max_wait=0.0).batch
        peers = [f"peer{n}" for n in range(30)]
        if not permits:
            failure = await failure_of(batch.get_c2c_unread_msg_num("alice", peers))
            assert isinstance(failure, QuotaExhausted)
        else:
            unread = await batch.get_c2c_unread_msg_num("alice", peers)
            assert (len(unread.counts), len(unread.errors)) == (10, 20)
            assert all(error.code is None and "no permit" in error.info for error in unread.errors.values())


async def test_max_wait_counts_over_all_attempts_of_a_call(service: StandIn) -> None:
    """A retry without a permit in the remaining time raises the service's error, caused by the QuotaExhausted."""
    seen: list[Attempt] = []
    async with client_of(service, rates={SET: 4}, retry=AT_ONCE, on_attempt=seen.append) as tim:
        for _ in range(4):
            await tim.set_unread_msg_num("g", "alice", 1)
        service.script.extend([error(10002)] * 8)
        seen.clear()
        failure = await failure_of(tim.with_options(max_wait=1.5).set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, ServerBusy)
    assert isinstance(failure.__cause__, QuotaExhausted)
    assert failure.attempts == len(seen) >= 1
    assert sum(attempt.waited for attempt in seen) <= 1.5


# Views


async def test_a_view_shares_session_queue_and_stats(service: StandIn) -> None:
    async with client_of(service) as tim:
        view = tim.with_options(timeout=4)
        await tim.set_unread_msg_num("g", "alice", 1)
        await view.set_unread_msg_num("g", "alice", 2)
        await view.batch.get_c2c_unread_msg_num("alice", ["bob"])
        assert service.connections == 1
        assert view.stats() == tim.stats()
        assert tim.stats()[SET].waits.count == 2
        assert type(view) is type(tim)
        assert repr(view) == repr(tim)


async def test_closing_a_view_closes_the_client(service: StandIn) -> None:
    tim = client_of(service)
    async with tim.with_options(max_wait=1) as view:
        await view.set_unread_msg_num("g", "alice", 1)
    with pytest.raises(ClientClosed, match="closed"):
        await tim.set_unread_msg_num("g", "alice", 1)


async def test_a_view_keeps_the_options_that_it_does_not_change(service: StandIn) -> None:
    """Options of a view of a view add up, and the client itself does not change.

    Private names show all of them at once; other tests show each by its effect.
    """
    async with client_of(service, timeout=7) as tim:
        view = tim.with_options(max_wait=0.5).with_options(lane=Lane.BULK).with_options(retry=RetryPolicy(attempts=1))
        options = view._options
        assert (options.timeout, options.max_wait, options.lane, options.retry.attempts) == (7, 0.5, Lane.BULK, 1)
        assert (tim._options.max_wait, tim._options.lane, tim._options.retry.attempts) == (math.inf, None, 8)


async def test_a_view_has_its_own_timeout_and_retry_policy(service: StandIn) -> None:
    """A call without an answer ends after the view's timeout and is not retried."""
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        view = tim.with_options(timeout=1.0, retry=RetryPolicy(attempts=1))
        failure = await failure_of(view.set_unread_msg_num("g", "alice", 1))
        assert isinstance(failure, RequestTimeout)
        assert failure.attempts == 1


async def test_the_lane_of_a_view_takes_precedence_over_that_of_the_context(service: StandIn) -> None:
    """Also under batch.map, whose calls are otherwise bulk."""
    seen: list[Attempt] = []
    async with client_of(service, on_attempt=seen.append) as tim:
        await tim.with_options(lane=Lane.BULK).set_unread_msg_num("g", "alice", 1)
        urgent = tim.with_options(lane=Lane.INTERACTIVE)
        async with tim.batch.map(urgent.set_unread_msg_num, [("g", "bob", 1)]) as outcomes:
            assert [outcome async for outcome in outcomes]
        async with tim.batch.map(tim.set_unread_msg_num, [("g", "bob", 1)]) as outcomes:
            assert [outcome async for outcome in outcomes]
    assert [attempt.lane for attempt in seen] == [Lane.BULK, Lane.INTERACTIVE, Lane.BULK]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_wait": -0.1}, ValueError),
        ({"max_wait": math.nan}, ValueError),
        ({"max_wait": True}, TypeError),
        ({"max_wait": "1"}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": math.inf}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"lane": "bulk"}, TypeError),
        ({"lane": 1}, TypeError),
        ({"retry": 3}, TypeError),
    ],
)
def test_bad_options_of_a_view_are_rejected(options: dict[str, Any], kind: type[Exception]) -> None:
    tim = TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore")
    with pytest.raises(kind, match=next(iter(options))):
        tim.with_options(**options)


# stats


async def test_stats_before_the_first_call(service: StandIn) -> None:
    """All endpoints with a method, at their given rates, also on a client that was never entered."""
    tim = client_of(service, rates={SET: 300})
    stats = tim.stats()
    assert [*stats] == [endpoint.name for endpoint in ENDPOINTS]
    assert {name: entry.rate for name, entry in stats.items()} == {**dict.fromkeys(stats, 200), SET: 300}
    assert all(
        entry.waits.count == entry.refusals == entry.retries == 0 and not entry.shared for entry in stats.values()
    )
    await tim.aclose()


async def test_stats_count_attempts_retries_and_refusals(service: StandIn) -> None:
    """A refusal lowers the rate; a command without a method appears under its name, with the rate given for it."""
    service.script.extend([error(10002), error(60011), error(60011)])
    async with client_of(service, retry=AT_ONCE, rates={"v4/openim/other": 7}) as tim:
        await tim.set_unread_msg_num("g", "alice", 1)
        await tim.call("v4/openim/other", {})
        stats = tim.stats()
    entry = stats[SET]
    assert (entry.waits.count, entry.retries, entry.refusals, entry.exhausted) == (4, 3, 2, 0)
    assert entry.waits.total >= entry.waits.longest >= 0
    assert entry.rate < 200
    assert (stats["v4/openim/other"].waits.count, stats["v4/openim/other"].limit) == (1, 7)


async def test_stats_count_the_queued_calls_of_each_lane(service: StandIn) -> None:
    async with client_of(service, rates={SET: 4}) as tim:
        tasks = [
            asyncio.create_task(tim.with_options(lane=lane).set_unread_msg_num("g", "alice", 1))
            for lane in [Lane.BULK] * 10 + [Lane.INTERACTIVE] * 7
        ]
        await service.until(4)
        queue = tim.stats()[SET].queue
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (queue.interactive, queue.bulk) == (7, 6)


# Alerts


async def test_an_alert_lowers_the_rate_of_its_endpoint_only(service: StandIn) -> None:
    """By the ratio of the limit to the requests."""
    async with client_of(service) as tim:
        await tim.set_unread_msg_num("g", "alice", 1)
        await tim.get_all_c2c_unread_msg_num("alice")
        tim.on_alert(alert(SET, request=400))
        stats = tim.stats()
    assert stats[SET].rate == pytest.approx(200 * 0.97 / 2, rel=0.01)
    assert stats["get_c2c_unread_msg_num"].rate == 200


async def test_an_alert_below_the_limit_lowers_the_rate_a_little(service: StandIn) -> None:
    """The service warns from 80 % of the limit on."""
    async with client_of(service) as tim:
        await tim.set_unread_msg_num("g", "alice", 1)
        tim.on_alert(alert(SET, request=165))
        assert tim.stats()[SET].rate == pytest.approx(190, rel=0.01)


async def test_alerts_about_unused_endpoints_and_unknown_commands_have_no_effect(service: StandIn) -> None:
    async with client_of(service) as tim:
        tim.on_alert(alert(SET, request=400))
        tim.on_alert(alert("sendmsg", request=400))
        tim.on_alert(alert("", request=0))
        assert tim.stats()[SET].rate == 200


async def test_an_alert_for_another_app_or_of_another_type_is_an_error(service: StandIn) -> None:
    async with client_of(service) as tim:
        with pytest.raises(ValueError, match="42"):
            tim.on_alert(alert(SET, request=400, sdk_app_id=42))
        other: Any = MsgReport(report_account="a", peer_account="b", last_read_time=0, unread_msg_num=None, **ALERT)
        with pytest.raises(TypeError, match="RequestOverLimit"):
            tim.on_alert(other)


async def test_the_attempts_of_a_view_limit_the_retries_of_refusals_for_the_rate(service: StandIn) -> None:
    service.script.extend(itertools.repeat(error(60011), 2))
    async with client_of(service, retry=AT_ONCE) as tim:
        view = tim.with_options(max_wait=5, retry=RetryPolicy(attempts=2, wait_rate_limited=(0, 0)))
        failure = await failure_of(view.set_unread_msg_num("g", "alice", 1))
    assert isinstance(failure, RateLimited)
    assert failure.attempts == 2
