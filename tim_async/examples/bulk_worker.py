"""A taskiq worker for bulk work beside a web app: it uses the part of the quota that the app's users leave.

::

    pip install 'tim-async[redis]' taskiq taskiq-redis
    taskiq worker tim_async.examples.bulk_worker:broker --workers 2

Environment variables: those of `TIMClient.from_env`, and ``TIM_QUOTA_URL``, the ``redis://…`` URL of the quota that the
worker shares with the app; the same store holds the tasks and their results.  In the app or another program::

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
    serializer=JSONSerializer(),  # the default, pickle, would let anyone who can write to the store run code here
)
broker = RedisStreamBroker(
    URL,
    queue_name="bulk",
    consumer_id="0",  # read the stream from its start, so tasks queued before the first worker are not lost
    xread_count=1,  # read one task at a time, and leave the others to other workers
    idle_timeout=600_000,  # ms after which another worker takes over a dead worker's task; longer than any task runs
    unacknowledged_lock_timeout=10.0,
    maxlen=100_000,  # the stream keeps finished tasks, too
    socket_timeout=None,  # reads block until a task comes; with a time-out, redis-py 8 on Python 3.11 may miss shutdown
).with_result_backend(results)


@dataclass
class JobResult:
    """The outcome of one task: the number of rows done, and each failed row with the class of its error."""

    done: int = 0
    failed: list[tuple[Any, str]] = field(default_factory=list)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    """Make one client for the life of the worker process."""
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
    """Mark conversations read; a row is an account, a peer and a time in unix seconds.

    Because each row has its time, a task that runs twice does not mark messages that arrived in between.
    """
    calls = [{"report_account": account, "peer_account": peer, "msg_read_time": time} for account, peer, time in rows]
    return await _map(tim, tim.admin_set_msg_read, calls)


@broker.task
async def set_unread(rows: list[tuple[str, str, int]], tim: Tim) -> JobResult:
    """Set unread counts; a row is a group, a member and a count."""
    return await _map(tim, tim.set_unread_msg_num, rows)


async def _map(tim: TIMClient, method: Callable[..., Awaitable[None]], rows: Iterable[Any]) -> JobResult:
    result = JobResult()
    async with tim.batch.map(method, rows) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Failed):
                result.failed.append((outcome.item, type(outcome.error).__name__))
            else:
                result.done += 1
    return result
