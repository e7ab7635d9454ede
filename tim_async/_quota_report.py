"""The check of a store by `RedisQuota.check`.

It needs the rights that calls need, and no more: without the right to INFO, its fields are `NOT_PERMITTED`.

Importing this imports redis-py.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ._limiter.reply import read_reply
from ._limiter.request import SETTLE, Request, micro
from ._redis_sharing import script
from ._store_faults import FAILURES, in_words, remedy
from ._store_link import StoreLink
from .quota import QuotaMisconfigured, QuotaReport

NOT_PERMITTED = "not permitted to see"
"""The value of a field that the user has no right to read."""
FAR = 0.1
"""Seconds of an exchange above which the latency of the store costs a part of the rate."""


async def examine(link: StoreLink, where: str, keys: list[str]) -> QuotaReport:
    """Run the script on unused keys, and read the store's INFO.

    Raises:
        QuotaMisconfigured: the script fails, or the store is unreachable.
    """
    try:
        reply = read_reply(await link.run(script(), keys, _request(1, "0")))
        began = link.now()  # now the connection is open, and the script is loaded
        read_reply(await link.run(script(), keys, _request(2, reply.epoch)))
        latency = link.now() - began
        server = await link.ask(keys[0], "HGET", keys[0], "server")
        await link.ask(keys[0], "DEL", *keys)
    except FAILURES as error:
        advice = remedy(error, by_name=link.by_name) or "it is unreachable"
        raise QuotaMisconfigured(f"the shared quota at {where} cannot be used ({in_words(error)}); {advice}") from None
    info: dict[str, Any] = {}
    with contextlib.suppress(*FAILURES):
        info = await link.ask(keys[0], "INFO")
    return _report(link.shown, info, latency, run_id=float(server or 0) > 0)


def _request(number: int, epoch: str) -> str:
    """Return a request for one permit, like that of a call."""
    request: Request = {
        "id": "check",
        "number": number,
        "heard": number - 1,
        "heard_ago": 0,
        "round_trip": 0,
        "epoch": epoch,
        "limit": 10,
        "binding": True,
        "strict": False,
        "bulk_share": 1.0,
        "lead": 0,
        "settle": micro(SETTLE),
        "horizon": 0,
        "lane": "interactive",
        "wanted": 1,
        "budget": 0,
        "out": 0,
    }
    return json.dumps(request)


def _report(store: str, info: dict[str, Any], latency: float, *, run_id: bool) -> QuotaReport:
    def first(*names: str) -> str:
        return next((str(info[name]) for name in names if name in info), NOT_PERMITTED)

    persistence = NOT_PERMITTED
    if "aof_enabled" in info:
        persistence = "append-only file" if info["aof_enabled"] else "snapshots or none"
    report = QuotaReport(
        store=store,
        server=first("server_name") if "server_name" in info or not info else "redis",
        version=first("valkey_version", "redis_version"),
        mode=first("server_mode", "redis_mode"),
        role=first("role"),
        run_id=run_id,
        latency=latency,
        persistence=persistence,
        eviction=first("maxmemory_policy"),
        risks=(),
    )
    return replace(report, risks=tuple(_risks(report, info)))


def _risks(report: QuotaReport, info: dict[str, Any]) -> Iterator[str]:
    if report.eviction not in (NOT_PERMITTED, "noeviction"):
        yield f"maxmemory-policy {report.eviction} may evict the quota's keys; noeviction keeps them"
    if not report.run_id:
        yield "the script cannot see which server it runs on, and notices a failover late; give it the right +info"
    if report.latency > FAR:
        yield f"an exchange takes {report.latency * 1000:.0f} ms; a store nearby gives more of the rate"
    if info.get("loading"):
        yield "it is loading its data"
