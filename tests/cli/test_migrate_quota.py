"""``--quota``: the rate that a migration shares with all who call for the app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.store import Store
from tim_async.cli.migrate.options import pace
from tim_async.emulator import Emulator

from .conftest import Run
from .migrating import READ, UNREAD, arrived, crowd, write


def slots(store: Store) -> set[str]:
    """The endpoints whose slots are in the store."""
    with Redis.from_url(store.url, decode_responses=True) as redis:
        keys: Any = redis.keys("tim_async:*:slots")
        return {key.split("/")[-1].partition("}")[0] for key in keys}


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_file_is_carried_over_within_the_quota(
    run: Run, reach: dict[str, str], service: Emulator, store: Store, tmp_path: Path, by: str
) -> None:
    """Named by the option or by the environment; also for looking groups up."""
    file = write(tmp_path / "counts.csv", UNREAD, *crowd(service, 30))
    args = ("--quota", store.url) if by == "option" else ()
    env = reach if by == "option" else {**reach, "TIM_QUOTA_URL": store.url}
    assert run("migrate", "unread", file, *args, "--share", "0.5", env=env).exit_code == 0
    assert arrived(service, 30) == 29
    assert slots(store) == {"set_unread_msg_num", "get_group_info"}


def test_verify_keeps_to_it_too(
    run: Run, reach: dict[str, str], service: Emulator, store: Store, tmp_path: Path
) -> None:
    """It reads back from a live service."""
    file = write(tmp_path / "reads.csv", READ, "alice,bob,")
    assert run("migrate", "read", file, "--quota", store.url, env=reach).exit_code == 0
    assert run("migrate", "verify", file, "--quota", store.url, env=reach).exit_code == 0
    assert slots(store) == {"admin_set_msg_read", "get_c2c_unread_msg_num"}


def test_all_who_share_it_mean_the_same_limit() -> None:
    """``--share`` is what bulk leaves of the common rate, not another rate that the others would have to fit in."""
    shared = pace(["set_unread_msg_num"], 200.0, 0.8, "redis://store")
    assert shared["rates"] == {"set_unread_msg_num": 200.0}
    assert shared["quota"]._shares.bulk == 0.8
    alone = pace(["set_unread_msg_num"], 200.0, 0.8, None)
    assert alone == {"rates": {"set_unread_msg_num": 160.0, "get_group_info": 160.0}}


@pytest.mark.parametrize("url", ["http://store", "store:6379", "redis://store:port"])
def test_no_url_of_a_store(run: Run, reach: dict[str, str], tmp_path: Path, url: str) -> None:
    """Wrong usage, before anything is read or sent."""
    file = write(tmp_path / "counts.csv", UNREAD, "g,alice,1")
    result = run("migrate", "unread", file, "--quota", url, env=reach)
    assert result.exit_code == 2
    assert "--quota" in result.stderr
