"""The store of a shared quota: whether it works, its properties, and its clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.quota.support import quota_on
from tests.stand_in import StandIn, client_of
from tests.store import Store, free_port
from tim_async.quota import RedisQuota

from .support import examine, level, problems

GET = "get_c2c_unread_msg_num"
PASSWORD = "sesame-81c7"


async def examined(service: StandIn, quota: Any) -> Any:
    async with client_of(service, quota=quota) as tim:
        return await examine(tim)


async def test_a_working_store_is_described(service: StandIn, store: Store) -> None:
    """The finding has version, mode, persistence and latency; another one the number of clients."""
    quota = quota_on(store)
    found = await examined(service, quota)
    assert problems(found) == set()
    assert level(found, "quota") == level(found, "quota.members") == "ok"
    text = next(one.found for one in found if one.name == "quota")
    for part in (f"redis://127.0.0.1:{store.port}/0: valkey ", "standalone", "persistence: ", " ms per exchange"):
        assert part in text
    async with client_of(service, quota=quota) as other:
        await other.get_all_c2c_unread_msg_num("alice")
        found = await examined(service, quota)
    assert "1 clients share it" in next(one.found for one in found if one.name == "quota.members")


async def test_an_unreachable_store_is_quota_unusable(service: StandIn) -> None:
    """The service is examined without it, so that one failure does not hide others."""
    quota = RedisQuota(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    found = await examined(service, quota)
    assert problems(found) == {"quota.unusable"}
    assert level(found, "admin") == "ok"
    assert len(service.seen) == 5
    assert PASSWORD not in str(found)


async def test_a_wrong_password_is_quota_unusable(service: StandIn, store: Store) -> None:
    with store.client() as admin:
        admin.config_set("requirepass", PASSWORD)
    wrong = quota_on(store, url=store.url.replace("//", "//:wrong-pass@"))
    found = await examined(service, wrong)
    assert problems(found) == {"quota.unusable"}
    assert "password" in next(one.found for one in found if one.name == "quota.unusable")
    assert "wrong-pass" not in str(found)


async def test_a_user_without_the_right_to_info_is_quota_run_id(service: StandIn, store: Store) -> None:
    """A failover would be noticed late; the members are not examined."""
    quota = quota_on(store, url=store.url.replace("//", f"//tim:{PASSWORD}@"))
    with store.client() as admin:
        rights = ["+evalsha", "+eval", "+script|load", "+hget", "+hset", "+hmget", "+hgetall", "+del", "+zadd", "+time"]
        rights += ["+@hash", "+@sortedset", "+@read", "+@write", "+@scripting", "+@connection", "-info", "-@keyspace"]
        admin.acl_setuser("tim", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=rights)
        admin.execute_command("ACL", "SETUSER", "tim", "+del", "+pexpire", "+expire", "+exists", "+type")
    found = await examined(service, quota)
    assert problems(found) == {"quota.run_id"}
    assert level(found, "quota.members") == "skipped"
    assert PASSWORD not in str(found)


async def test_a_store_that_evicts_is_quota_eviction(service: StandIn, store: Store) -> None:
    with store.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    found = await examined(service, quota_on(store))
    assert problems(found) == {"quota.eviction"}


async def test_a_distant_store_is_quota_latency(
    service: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = RedisQuota.check

    async def slow(self: RedisQuota) -> Any:
        import dataclasses

        return dataclasses.replace(await check(self), latency=0.18)

    monkeypatch.setattr(RedisQuota, "check", slow)
    assert problems(await examined(service, quota_on(store))) == {"quota.latency"}


async def test_a_store_that_takes_too_long_is_quota_late(
    service: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding names the store, not the service; the rest is examined without it."""

    async def never(_: RedisQuota) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RedisQuota, "check", never)
    async with client_of(service, quota=quota_on(store)) as tim:
        found = await examine(tim, timeout=0.5)
    assert problems(found) == {"quota.late"}
    assert "store" in next(one.meaning for one in found if one.name == "quota.late")


async def test_different_limits_are_quota_limits_differ(service: StandIn, store: Store) -> None:
    quota = quota_on(store)
    async with (
        client_of(service, quota=quota, rates={GET: 100}) as one,
        client_of(service, quota=quota, rates={GET: 300}) as two,
    ):
        for tim in (one, two):
            await tim.get_all_c2c_unread_msg_num("alice")
        found = await examine(one)
    assert problems(found) == {"quota.limits_differ"}
    assert "all keep to 100" in next(one.found for one in found if one.name == "quota.limits_differ")


async def test_a_quota_of_another_kind_is_skipped(service: StandIn, store: Store) -> None:
    """It is used, but not examined."""
    real = quota_on(store)

    class Other:
        def share(self, sdk_app_id: int) -> Any:
            return real.share(sdk_app_id)

    found = await examined(service, Other())
    assert level(found, "quota") == "skipped"
    assert problems(found) == set()
