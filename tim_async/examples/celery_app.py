"""Read state in tasks of Celery, whose worker processes share one quota.

::

    pip install 'tim-async[redis]' celery
    celery -A tim_async.examples.celery_app worker --concurrency 4

The environment: what `TIMClient.from_env` reads, and ``TIM_QUOTA_URL``, the ``redis://…`` of the quota; the tasks and
their results are in the same store.  From a web app, or from anywhere::

    mark_read.delay("alice", "bob", int(time.time()))
    print(unread.delay("alice").get(timeout=60))

The pools ``prefork``, ``threads``, ``solo`` and ``gevent`` will do; Celery limits the time of tasks in ``prefork``.
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
    task_acks_late=True,  # a task whose worker was killed is done again; each of these may be
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # a process takes no more than it can begin, and leaves the rest to others
    task_soft_time_limit=300,  # seconds; the call under way is cancelled
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)


def client() -> TIMClient:
    """Make the client of one worker process."""
    return TIMClient.from_env(quota=RedisQuota(URL))


# Each process makes its client with its first task, after it was forked, and keeps it.
portal = Portal(client)


@worker_process_shutdown.connect
@worker_shutdown.connect  # with the pools that are no processes
def close(**_: object) -> None:
    """Close the client, which returns unused permits to the quota; these processes end without `atexit`."""
    portal.close()


TRANSIENT: dict[str, Any] = {
    "bind": True,
    "throws": (TIMError, SoftTimeLimitExceeded),  # logged in one line
    "autoretry_for": (ServerBusy, TransportError),  # after the client's own retries; these tasks may be repeated
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

    With its time given, a task that is done twice does not mark what arrived in between.
    """
    try:
        portal.run(TIMClient.admin_set_msg_read, user, peer, msg_read_time=until)
    except RateLimited as error:
        raise self.retry(exc=error, countdown=retry_after(error)) from error


@app.task
def set_unread(rows: list[tuple[str, str, int]]) -> dict[str, Any]:
    """Set unread counts of any number of rows: group, member, count."""
    return portal.run(carry_out, rows)


async def carry_out(tim: TIMClient, rows: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """Send the rows at full speed, as bulk, after all interactive calls."""
    done, failed = 0, []
    async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Failed):
                failed.append((outcome.item, type(outcome.error).__name__))
            else:
                done += 1
    return {"done": done, "failed": failed}
