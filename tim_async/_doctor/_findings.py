"""What a check returns: findings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tim_async._secret import Secret

Level = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `tim_async.doctor` found.

    Attributes:
        name: the check, e.g. ``"clock"``; of a problem, the check and the problem, e.g. ``"clock.wrong"``.
        level: ``"ok"``, ``"warning"``, ``"failure"``, or ``"skipped"`` for a check that was not run.
        found: what was found, or why the check was not run.
        meaning: what it means; "" where there is nothing to add.
        remedy: what to do; "" where nothing is to be done.
        page: the vendor's page about it; "" where there is none.
    """

    name: str
    level: Level
    found: str
    meaning: str = ""
    remedy: str = ""
    page: str = ""


def ok(name: str, found: str) -> Finding:
    """A check that found no problem."""
    return Finding(name, "ok", found)


def warning(name: str, found: str, meaning: str, remedy: str, page: str = "") -> Finding:
    """A problem with which calls can succeed."""
    return Finding(name, "warning", found, meaning, remedy, page)


def failure(name: str, found: str, meaning: str, remedy: str, page: str = "") -> Finding:
    """A problem with which calls fail."""
    return Finding(name, "failure", found, meaning, remedy, page)


def skipped(name: str, why: str, remedy: str = "") -> Finding:
    """A check that was not run."""
    return Finding(name, "skipped", why, remedy=remedy)


UNRUN = "not run, because of "
"""How a check says that one which it needs has failed."""


def unrun(name: str, cause: str) -> Finding:
    """A check that was not run, since another one failed."""
    return skipped(name, f"{UNRUN}{cause}")


_SECRETS = re.compile(r"[0-9A-Fa-f]{32,}|eJ[\w*-]{40,}")
"""What looks like a key or a UserSig."""


def shown(findings: Iterable[Finding], key: object) -> list[Finding]:
    """Return the findings without the key, or anything like one: it may stand in another setting by mistake.

    Args:
        findings: those of a configuration, or of a visit.
        key: the configured key, a `Secret`; anything else for none.
    """

    def clean(text: str) -> str:
        if isinstance(key, Secret) and key.reveal():
            text = text.replace(str(key.reveal()), "…")
        return _SECRETS.sub("…", text)

    return [
        replace(one, found=clean(one.found), meaning=clean(one.meaning), remedy=clean(one.remedy)) for one in findings
    ]


CODES = "https://www.tencentcloud.com/document/product/1047/34348"
"""The vendor's page of error codes."""
CALLS = "https://www.tencentcloud.com/document/product/1047/34620"
"""The vendor's page about calls, hosts and administrators."""
USERSIG = "https://www.tencentcloud.com/document/product/1047/34385"
"""The vendor's page about UserSigs."""
