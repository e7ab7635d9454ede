"""The checks of the quota: its store, by `RedisQuota.check`, and the clients that share it."""

from __future__ import annotations

from collections.abc import Iterator

from tim_async._plaintext import plain
from tim_async.quota import QuotaMisconfigured, QuotaReport, RedisQuota

from ._findings import Finding, failure, ok, skipped, warning
from ._visit import Visit


async def quota(visit: Visit) -> list[Finding]:
    """Use the store as calls do, and look up the other clients of the quota."""
    given = visit.caller.settings.quota
    if given is None:
        return [skipped("quota", "none is configured: this client uses the full rate of each endpoint")]
    if not isinstance(given, RedisQuota):
        return [skipped("quota", f"a {type(given).__name__} cannot be examined")]
    try:
        report = await given.check()
    except QuotaMisconfigured as error:
        meaning = "Calls fail, or this process uses only its fallback share of each rate."
        return [failure("quota.unusable", plain(str(error)), meaning, "Correct the store or its URL.")]
    return [_store(report), *_risks(report), *await _members(given, visit.caller.settings.sdk_app_id)]


def _store(report: QuotaReport) -> Finding:
    parts = (
        f"{report.server} {report.version}",
        report.mode,
        f"persistence: {report.persistence}",
        f"{report.latency * 1000:.1f} ms per exchange",
    )
    return ok("quota", plain(f"{report.store}: {', '.join(parts)}"))


def _risks(report: QuotaReport) -> Iterator[Finding]:
    from tim_async._quota_report import FAR, NOT_PERMITTED

    if report.eviction not in (NOT_PERMITTED, "noeviction"):
        yield warning(
            "quota.eviction",
            plain(f"the store's maxmemory-policy is {report.eviction}"),
            "The store may evict the quota's keys; the fleet then exceeds the rate for a second.",
            "Set maxmemory-policy noeviction.",
        )
    if not report.run_id:
        yield warning(
            "quota.run_id",
            "the script cannot identify the server that it runs on",
            "A failover is detected late.",
            "Grant the store's user the permission +info.",
        )
    if report.latency > FAR:
        yield warning(
            "quota.latency",
            f"an exchange takes {report.latency * 1000:.0f} ms",
            "The full rate cannot be used.",
            "Use a store nearer to this process.",
        )


async def _members(given: RedisQuota, app: int) -> list[Finding]:
    """Return the findings about the clients that share the quota."""
    from tim_async._quota_view import look
    from tim_async._store_faults import FAILURES, in_words

    connected, namespace = given._connect(), given._namespace  # noqa: SLF001 - of this package
    try:
        view = await look(connected, namespace)
    except FAILURES as error:
        return [skipped("quota.members", plain(f"the store's user may not read them: {in_words(error)}"))]
    finally:
        await connected.aclose()
    endpoints = [one for one in view.endpoints if one.sdk_app_id == str(app)]
    differing = [
        f"{one.name}: all keep to {one.limit:g}, {len(one.differing)} have another limit"
        for one in endpoints
        if one.differing
    ]
    if differing:
        return [
            warning(
                "quota.limits_differ",
                plain("; ".join(differing)),
                "All processes keep to the smallest limit that one of them has.",
                "Set the same `rates` in all processes, or `own_rates=True` in those that need less.",
            )
        ]
    processes = {member.id for one in endpoints for member in one.members}
    return [ok("quota.members", f"{len(processes)} clients share it, on {len(endpoints)} endpoints of this app")]
