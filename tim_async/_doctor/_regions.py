"""The check of the region: whether the host serves the app, and if not, which region does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tim_async._call import Caller
from tim_async._codes import WRONG_REGION, Reaction, code_of
from tim_async._hooks import Hooks
from tim_async.endpoints import GET_ALL_C2C_UNREAD_MSG_NUM
from tim_async.errors import APIError
from tim_async.regions import REGIONS, Hosts

from ._configuration import region_of
from ._findings import CALLS, Finding, failure, ok, skipped
from ._service import STAGES, refused, summary
from ._visit import Visit


async def region(visit: Visit) -> list[Finding]:
    """Check the region by the code of the first call; ask other regions only with `Visit.try_regions`."""
    error = visit.outcomes["answer"].error
    asked = region_of(visit.caller.base_url)
    if not (isinstance(error, APIError) and error.code in WRONG_REGION):
        return [ok("region", asked) if asked else skipped("region", "base_url is set instead of a region")]
    found = f"{asked or visit.caller.base_url} answers {summary(error)}"
    if not asked or not visit.try_regions:
        finding = refused("region.wrong", error, found)
        how = " --try-regions, or try_regions=True, finds it." if asked else ""
        return [replace(finding, remedy=finding.remedy + how)]
    others = [name for name in REGIONS if name != asked]
    codes = dict(zip(others, await asyncio.gather(*(_ask(visit, name) for name in others)), strict=True))
    home = [name for name, code in codes.items() if _knows(code)]
    if home:
        finding = refused("region.wrong", error, f"{found}; {' and '.join(home)} answers with code {codes[home[0]]}")
        remedy = f"Set TIM_REGION, or region=…, to {home[0]}."
        return [replace(finding, meaning=f"The app is in the region {home[0]}.", remedy=remedy)]
    silent = [name for name, code in codes.items() if code is None]
    return [
        failure(
            "region.unknown",
            f"{found}; no other region knows the app{'; not reached: ' + ', '.join(silent) if silent else ''}",
            "The app is in none of the regions that were reached.",
            "Correct TIM_SDK_APP_ID; the console shows the app's region.",
            CALLS,
        )
    ]


def _knows(code: int | None) -> bool:
    """Whether a code, be it a refusal, comes from a host that knows the app."""
    if code is None or code_of(code).reaction in (Reaction.RETRY, Reaction.SLOW_DOWN):
        return False
    return code not in WRONG_REGION and not STAGES["app"].get(code, "").startswith(("unknown", "not_sent"))


async def _ask(visit: Visit, name: str) -> int | None:
    """Call a region's host with the same signature; returns the code of its answer, None without one."""
    settings = replace(visit.caller.settings, hosts=Hosts.of(name, None), quota=None, hooks=Hooks(None))
    caller = Caller(settings)
    try:
        caller.open()
        outcome = await visit.ask(GET_ALL_C2C_UNREAD_MSG_NUM, settings.identifier, caller=caller)
    finally:
        await caller.aclose()
    return outcome.code
