"""The checks of the network: connections to the first host and to its backup."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from tim_async._session import proxy_for

from ._findings import CALLS, Finding, failure, ok, skipped, warning
from ._visit import Visit
from ._way import NAMES, UNREACHABLE, Way

_BACKUP = "Calls go to the backup host, and return to the first one when the backup fails."


async def network(visit: Visit) -> list[Finding]:
    """Connect to each host of the client; a failure of the first is a warning if the backup works."""
    settings = visit.caller.settings
    first, *backups = sorted(settings.hosts, key=lambda url: url != visit.caller.base_url)
    ways = await asyncio.gather(*(_way(visit, url) for url in (first, *backups)))
    findings, *others = ways
    if not others:
        return findings
    failed, other = (next((one for one in way if one.level == "failure"), None) for way in ways)
    if failed and not other:
        findings = [replace(one, level="warning", meaning=_BACKUP) if one is failed else one for one in findings]
    host, backup = (urlsplit(url).hostname or "" for url in (first, backups[0]))
    if failed and other and failed.found.replace(host, "") == other.found.replace(backup, ""):
        # One fault, e.g. of the proxy or of the name server.
        return [*findings, skipped("backup", f"{backup} is unreachable for the same reason: {failed.name}")]
    return [*findings, _backup(backup, other, alone=failed is not None)]


def _backup(host: str, failed: Finding | None, *, alone: bool) -> Finding:
    if failed is None:
        return ok("backup", f"{host} is reachable")
    found, remedy = f"{host}: {failed.found}", failed.remedy
    if alone:
        return failure("backup.unreachable", found, UNREACHABLE, remedy, CALLS)
    meaning = "Calls will fail if the first host becomes unreachable."
    return warning("backup.unreachable", found, meaning, remedy, CALLS)


async def _way(visit: Visit, url: str) -> list[Finding]:
    """Connect to one host; returns the findings of all steps."""
    session = visit.caller.session
    connector = session.connector
    given = visit.caller.settings.session is not None
    if given and (
        type(connector) is not aiohttp.TCPConnector
        or session.trust_env
        or getattr(session, "_default_proxy", None) is not None
    ):
        why = "the given session has a connector or a proxy of its own, which is not examined"
        return [skipped(name, why) for name in NAMES]
    settings = visit.caller.settings
    proxy = None if given else proxy_for(url, settings.proxy, settings.trust_env)
    return await Way(cast(aiohttp.TCPConnector, connector), url, proxy, visit.timeout).examine()
