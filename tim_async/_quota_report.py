"""What `RedisQuota.check` finds out about a store.

It needs the rights that calls need, and no more: what INFO would say is `NOT_PERMITTED` without the right to ask.

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
from ._store_link import Link
from .quota import QuotaMisconfigured, QuotaReport

NOT_PERMITTED = "not permitted to see"
"""For what the user's rights do not let it read."""
FAR = 0.1
"""Seconds of an exchange above which the store is too far away for the whole rate."""


async def examine(link: Link, where: str, keys: list[str]) -> QuotaReport:
    """Run the script on keys that nobody else uses, and read what the store says of itself.

    Raises:
        QuotaMisconfigured: it does not work.
    """
    try:
        reply = read_reply(await link.run(script(), keys, _request(1, "0")))
        began = link.now()  # the connection is made, and the script is loaded
        read_reply(await link.run(script(), keys, _request(2, reply.epoch)))
        latency = link.now() - began
        server = await link.ask(keys[0], "HGET", keys[0], "server")
        await link.ask(keys[0], "DEL", *keys)
    except FAILURES as error:
        what = remedy(error, by_name=link.by_name) or "it is unreachable"
        raise QuotaMisconfigured(f"the shared quota at {where} cannot be used ({in_words(error)}); {what}") from None
    about: dict[str, Any] = {}
    with contextlib.suppress(*FAILURES):
        about = await link.ask(keys[0], "INFO")
    return _report(link.shown, about, latency, run_id=float(server or 0) > 0)


def _request(number: int, epoch: str) -> str:
    """What a call asks, of an endpoint that nobody else uses."""
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


def _report(store: str, about: dict[str, Any], latency: float, *, run_id: bool) -> QuotaReport:
    def told(*names: str) -> str:
        return next((str(about[name]) for name in names if name in about), NOT_PERMITTED)

    persistence = NOT_PERMITTED
    if "aof_enabled" in about:
        persistence = "append-only file" if about["aof_enabled"] else "snapshots or none"
    report = QuotaReport(
        store=store,
        server=told("server_name") if "server_name" in about or not about else "redis",
        version=told("valkey_version", "redis_version"),
        mode=told("server_mode", "redis_mode"),
        role=told("role"),
        run_id=run_id,
        latency=latency,
        persistence=persistence,
        eviction=told("maxmemory_policy"),
        risks=(),
    )
    return replace(report, risks=tuple(_risks(report, about)))


def _risks(report: QuotaReport, about: dict[str, Any]) -> Iterator[str]:
    if report.eviction not in (NOT_PERMITTED, "noeviction"):
        yield f"maxmemory-policy {report.eviction} may evict the quota's keys; noeviction keeps them"
    if not report.run_id:
        yield "the script cannot see which server it runs on, and notices a failover late; give it the right +info"
    if report.latency > FAR:
        yield f"an exchange takes {report.latency * 1000:.0f} ms; a store nearby gives more of the rate"
    if about.get("loading"):
        yield "it is loading its data"
