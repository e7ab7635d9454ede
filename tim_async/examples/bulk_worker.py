"""Bulk work beside a web app: a taskiq worker that takes what the app's users leave of the quota.

::

    pip install 'tim-async[redis]' taskiq taskiq-redis
    taskiq worker tim_async.examples.bulk_worker:broker --workers 2

The environment: what `TIMClient.from_env` reads, and ``TIM_QUOTA_URL``, the ``redis://…`` of the quota that is shared
with the app; the tasks and their results are in the same store.  From the app, or from anywhere::

    await broker.startup()
    task = await mark_read.kiq([("alice", "bob", int(time.time())), ("alice", "carol", int(time.time()))])
    print((await task.wait_result(timeout=60)).return_value)  # JobResult(done=2, failed=[])
    await broker.shutdown()
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from tim_async import Failed, TIMClient
from tim_async.quota import RedisQuota

URL = os.environ.get("TIM_QUOTA_URL", "redis://127.0.0.1:6379/0")

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
    URL,
    result_ex_time=3600,
    serializer=JSONSerializer(),  # the default, pickle, would let every writer of the store run code here
)
broker = RedisStreamBroker(
    URL,
    queue_name="bulk",
    consumer_id="0",  # also what was queued before the first worker was there
    xread_count=1,  # a worker takes no more than it can begin, and leaves the rest to others
    idle_timeout=600_000,  # ms after which another worker does what a dead one had begun; longer than any task takes
    unacknowledged_lock_timeout=10.0,
    maxlen=100_000,  # a stream keeps what is done, too
    socket_timeout=None,  # it waits for tasks; with one, redis-py 8 on Python 3.11 may also miss the worker's end
).with_result_backend(results)


@dataclass
class JobResult:
    """What became of the rows of one task: how many are done, and each that failed, with its error's kind."""

    done: int = 0
    failed: list[tuple[Any, str]] = field(default_factory=list)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    """One client for each worker process, as long as the process lives."""
    state.tim = TIMClient.from_env(quota=RedisQuota(URL))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    """Close the client, which returns unused permits to the quota."""
    await state.tim.aclose()


def _client(context: Annotated[Context, TaskiqDepends()]) -> TIMClient:
    tim: TIMClient = context.state.tim
    return tim


Tim = Annotated[TIMClient, TaskiqDepends(_client)]


@broker.task
async def mark_read(rows: list[tuple[str, str, int]], tim: Tim) -> JobResult:
    """Mark conversations read: whose messages, from whom, and up to when in unix seconds.

    With its time in the row, a task that is done twice does not mark what arrived in between.
    """
    calls = [{"report_account": who, "peer_account": peer, "msg_read_time": until} for who, peer, until in rows]
    return await _carry_out(tim, tim.admin_set_msg_read, calls)


@broker.task
async def set_unread(rows: list[tuple[str, str, int]], tim: Tim) -> JobResult:
    """Set unread counts: group, member, count."""
    return await _carry_out(tim, tim.set_unread_msg_num, rows)


async def _carry_out(tim: TIMClient, method: Callable[..., Awaitable[None]], rows: Iterable[Any]) -> JobResult:
    outcome = JobResult()
    async with tim.batch.map(method, rows) as outcomes:
        async for row in outcomes:
            if isinstance(row, Failed):
                outcome.failed.append((row.item, type(row.error).__name__))
            else:
                outcome.done += 1
    return outcome
