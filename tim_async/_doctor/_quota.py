"""The check of the quota's store: what `RedisQuota.check` tells, and the processes that share the quota."""

from __future__ import annotations

from collections.abc import Iterator

from tim_async._plaintext import plain
from tim_async.quota import QuotaMisconfigured, QuotaReport, RedisQuota

from ._findings import Finding, failure, ok, skipped, warning
from ._visit import Visit

FAR = 0.1
"""Seconds of an exchange above which the store is too far away for the whole rate."""
_ALONE = "this client takes the whole rate of each endpoint for itself"


async def quota(visit: Visit) -> list[Finding]:
    """Do in the store what calls do there, and see who else does."""
    given = visit.caller.settings.quota
    if given is None:
        return [skipped("quota", f"none is configured: {_ALONE}")]
    if not isinstance(given, RedisQuota):
        return [skipped("quota", f"a {type(given).__name__} cannot be examined")]
    problem = ""
    try:
        report = await given.check()
    except QuotaMisconfigured as error:
        problem = plain(str(error))
    if problem:
        meaning = "Calls fail, or this process keeps to its share of each rate."
        return [failure("quota.unusable", problem, meaning, "Correct the store or its URL.")]
    return [_store(report), *_risks(report), *await _members(given, visit.caller.settings.sdk_app_id)]


def _store(report: QuotaReport) -> Finding:
    parts = (
        f"{report.server} {report.version}",
        report.mode,
        f"persistence: {report.persistence}",
        f"{report.latency * 1000:.1f} ms an exchange",
    )
    return ok("quota", plain(f"{report.store}: {', '.join(parts)}"))


def _risks(report: QuotaReport) -> Iterator[Finding]:
    from tim_async._quota_report import NOT_PERMITTED

    if report.eviction not in (NOT_PERMITTED, "noeviction"):
        yield warning(
            "quota.eviction",
            plain(f"the store's maxmemory-policy is {report.eviction}"),
            "It may evict the quota's keys; the fleet then sends too many calls for a second.",
            "Set maxmemory-policy noeviction.",
        )
    if not report.run_id:
        yield warning(
            "quota.run_id",
            "the script cannot see which server it runs on",
            "A failover is noticed late.",
            "Give the store's user the right +info.",
        )
    if report.latency > FAR:
        yield warning(
            "quota.latency",
            f"an exchange takes {report.latency * 1000:.0f} ms",
            "Less than the whole rate can be used.",
            "Use a store nearby.",
        )


async def _members(given: RedisQuota, app: int) -> list[Finding]:
    """The processes that share the quota."""
    from tim_async._quota_view import look
    from tim_async._store_faults import FAILURES, in_words

    connected, namespace = given._connect(), given._namespace  # noqa: SLF001 - of this package
    try:
        view = await look(connected, namespace)
    except FAILURES as error:
        return [skipped("quota.members", plain(f"the store does not let this user look: {in_words(error)}"))]
    finally:
        await connected.aclose()
    endpoints = [one for one in view.endpoints if one.sdk_app_id == str(app)]
    differing = [
        f"{one.name}: all keep to {one.limit:g}, {len(one.differing)} named another"
        for one in endpoints
        if one.differing
    ]
    if differing:
        return [
            warning(
                "quota.limits_differ",
                plain("; ".join(differing)),
                "All processes keep to the smallest limit that one of them names.",
                "Give all processes the same `rates`, or those that take less `own_rates=True`.",
            )
        ]
    processes = {member.id for one in endpoints for member in one.members}
    return [ok("quota.members", f"{len(processes)} clients share it, on {len(endpoints)} endpoints of this app")]
