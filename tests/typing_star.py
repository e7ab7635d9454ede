"""A user's program that imports all public names at once.  It is only type-checked, by mypy."""

# ruff: noqa: F403, F405 - as a user would

from __future__ import annotations

from typing import assert_type

from tim_async import *
from tim_async.migrate import *
from tim_async.migrate.streams import *


async def main(tim: TIMClient, worker: Worker) -> None:
    """Use one name of each package."""
    assert_type(await tim.get_c2c_unread_msg_num("alice", ["bob"]), C2CUnread)
    assert_type(MigrateOptions().concurrency, int)
    assert_type(worker, Worker)
