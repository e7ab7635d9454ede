"""The command ``doctor``, which checks the configuration, the connection and the permissions."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import credentials
from .failures import FAILED
from .output import examples, json_option, plain, say, show, show_json
from .ranges import FiniteRange, NonEmptyPath

if TYPE_CHECKING:
    from tim_async._doctor import Finding

_DETAILS = (("meaning", "means"), ("remedy", "do"), ("page", "see"))


@click.command(
    short_help="Check the configuration, the connection, permissions and the quota.",
    epilog=examples(
        "tim-async doctor",
        "tim-async doctor --group @TGS#public --quota redis://store:6379/0",
        "tim-async doctor --try-regions",
        "tim-async doctor --probe 10",
        "tim-async doctor --json | jq '.findings[] | select(.level == \"failure\")'",
    ),
)
@click.option(
    "--group", metavar="GROUP", help="Group of the app, to check whether the app's plan includes read receipts."
)
@click.option(
    "--quota",
    "quota_url",
    type=NonEmptyPath(readable=False),
    metavar="URL",
    envvar="TIM_QUOTA_URL",
    help="Store of a shared quota; pass a URL with a password in TIM_QUOTA_URL.  [env: TIM_QUOTA_URL]",
)
@click.option(
    "--try-regions",
    is_flag=True,
    help="If the region is wrong, find the right one: send the same signature to the hosts of all other regions.",
)
@click.option(
    "--probe",
    metavar="SECONDS",
    type=FiniteRange(min=6),
    help="Also measure, for SECONDS, whether get_c2c_unread_msg_num accepts its full rate.  Uses up the quota: calls of"
    " other clients are refused meanwhile.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=FiniteRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Timeout of one step, such as a connection or a call; all steps together take less than 30 s.",
)
@json_option
@credentials.option
@click.pass_context
def doctor(
    ctx: click.Context,
    group: str | None,
    quota_url: str | None,
    try_regions: bool,
    probe: float | None,
    timeout: float,
    as_json: bool,
    credentials_file: Path | None,
) -> None:
    """Check the configuration, the connection, the signature, permissions, endpoints, the plan and the quota.

    Makes about five read-only calls, or hundreds with --probe.  Shows no secret.  Exit code 1 if a check failed.
    """
    options = {"group": group or None, "try_regions": try_regions, "probe": probe, "timeout": timeout}
    found = asyncio.run(_examine(credentials_file, quota_url, options))
    good = all(one.level != "failure" for one in found)
    if as_json:
        show_json({"ok": good, "findings": [asdict(one) for one in found]})
    else:
        show(*_lines(found))
    counts = Counter(one.level for one in found)
    say(", ".join(f"{counts[level]} {level}" for level in ("ok", "warning", "failure", "skipped")) + ".")
    if not good:
        ctx.exit(FAILED)


async def _examine(file: Path | None, url: str | None, options: dict[str, Any]) -> list[Finding]:
    from tim_async._doctor import _checks, _configuration
    from tim_async.client import TIMClient

    found, given = _configuration.read(os.environ) if file is None else _configuration.read_file(file)
    failed = next((one.name for one in found if one.level == "failure"), "")
    if failed:
        return [*found, *_checks.unrun(failed)]
    quota, trouble = _quota(url)
    # Like other command-line tools, use the environment's proxy.
    tim = TIMClient(**given, trust_env=True, quota=quota)
    try:
        examined = await _checks.doctor(tim, **options)
    finally:
        await tim.aclose()
    found += (one for one in examined if one.name.partition(".")[0] not in _configuration.NAMES)
    return [trouble if trouble is not None and one.name == "quota" else one for one in found]


def _quota(url: str | None) -> tuple[Any, Finding | None]:
    """Return the quota at a URL, or the finding that explains why there is none."""
    from tim_async._doctor._findings import failure
    from tim_async.quota import RedisQuota

    if not url:
        return None, None
    try:
        return RedisQuota(url), None
    except ImportError as error:
        return None, failure(
            "quota.not_installed",
            str(error),
            "The quota cannot be used.",
            "Install the extra: pip install 'tim-async[redis]'.",
        )
    except ValueError as error:
        return None, failure("quota.invalid", str(error), "The quota cannot be used.", "Correct the store's URL.")


def _lines(found: Iterable[Finding]) -> list[str]:
    """Format the findings: a line each, with the remedy below it; skipped checks are grouped at the end."""
    from tim_async._doctor._findings import UNRUN

    found = list(found)
    width = max(len(one.name) for one in found)
    lines = []
    unrun: dict[str, list[str]] = {}
    for one in found:
        if one.found.startswith(UNRUN):
            unrun.setdefault(one.found, []).append(one.name)
            continue
        lines.append(f"{one.level:8} {one.name:{width}}  {plain(one.found)}")
        if one.level != "ok":
            details = ((label, getattr(one, name)) for name, label in _DETAILS)
            lines += [f"{'':9}{label + ':':7}{plain(text)}" for label, text in details if text]
    for why, names in unrun.items():
        which = names[0] if len(names) == 1 else f"{len(names)} checks, {names[0]} to {names[-1]}"
        lines.append(f"skipped  {which}: {plain(why)}")
    return lines
