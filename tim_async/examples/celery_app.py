"""Read state in Celery tasks; all worker processes share one quota.

::

    pip install 'tim-async[redis]' celery
    celery -A tim_async.examples.celery_app worker --concurrency 4

Environment variables: those of `TIMClient.from_env`, and ``TIM_QUOTA_URL``, the ``redis://…`` URL of the quota; the
same store holds the tasks and their results.  In a web app or another program::

    mark_read.delay("alice", "bob", int(time.time()))
    print(unread.delay("alice").get(timeout=60))

The pools ``prefork``, ``threads``, ``solo`` and ``gevent`` work; Celery limits the time of tasks only in ``prefork``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_shutdown, worker_shutdown

from tim_async import Failed, RateLimited, ServerBusy, TIMClient, TIMError, TransportError, retry_after
from tim_async.blocking import Portal
from tim_async.quota import RedisQuota

URL = os.environ.get("TIM_QUOTA_URL", "redis://127.0.0.1:6379/0")

app = Celery("tim", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,  # a task whose worker was killed runs again; all tasks here are repeatable
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # a process takes one task at a time, and leaves the others to other processes
    task_soft_time_limit=300,  # seconds, after which the call in flight is cancelled
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)


def client() -> TIMClient:
    """Make the client of one worker process."""
    return TIMClient.from_env(quota=RedisQuota(URL))


# Each process makes its client with its first task, after the fork, and keeps it.
portal = Portal(client)


@worker_process_shutdown.connect
@worker_shutdown.connect  # for pools without processes
def close(**_: object) -> None:
    """Close the client, which returns unused permits to the quota; Celery's processes end without `atexit`."""
    portal.close()


TRANSIENT: dict[str, Any] = {
    "bind": True,
    "throws": (TIMError, SoftTimeLimitExceeded),  # logged in one line
    "autoretry_for": (ServerBusy, TransportError),  # after the client's own retries; these tasks are repeatable
    "retry_backoff": True,
    "max_retries": 8,
}


@app.task(**TRANSIENT)
def unread(self: Task, user: str) -> int:
    """Count the unread messages of a user."""
    try:
        return portal.run(TIMClient.get_all_c2c_unread_msg_num, user)
    except RateLimited as error:
        raise self.retry(exc=error, countdown=retry_after(error)) from error


@app.task(**TRANSIENT)
def mark_read(self: Task, user: str, peer: str, until: int) -> None:
    """Mark a conversation read, up to a time in unix seconds.

    Because the time is given, a task that runs twice does not mark messages that arrived in between.
    """
    try:
        portal.run(TIMClient.admin_set_msg_read, user, peer, msg_read_time=until)
    except RateLimited as error:
        raise self.retry(exc=error, countdown=retry_after(error)) from error


@app.task
def set_unread(rows: list[tuple[str, str, int]]) -> dict[str, Any]:
    """Set unread counts of any number of rows; a row is a group, a member and a count."""
    return portal.run(set_all_unread, rows)


async def set_all_unread(tim: TIMClient, rows: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """Send the rows at full speed, in the bulk lane, which yields to interactive calls."""
    done, failed = 0, []
    async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Failed):
                failed.append((outcome.item, type(outcome.error).__name__))
            else:
                done += 1
    return {"done": done, "failed": failed}
