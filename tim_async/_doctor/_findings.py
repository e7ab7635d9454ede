"""The findings that checks return."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tim_async._secret import Secret

Level = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check of `tim_async.doctor`.

    Attributes:
        name: the check, e.g. ``"clock"``; of a problem, the check and the problem, e.g. ``"clock.wrong"``.
        level: ``"ok"``, ``"warning"``, ``"failure"``, or ``"skipped"`` for a check that was not run.
        found: the observation, or the reason why the check was not run.
        meaning: its consequence; "" where there is nothing to add.
        remedy: the remedy; "" where nothing has to be done.
        page: the vendor's page about it; "" where there is none.
    """

    name: str
    level: Level
    found: str
    meaning: str = ""
    remedy: str = ""
    page: str = ""


def ok(name: str, found: str) -> Finding:
    """Return the finding of a check that found no problem."""
    return Finding(name, "ok", found)


def warning(name: str, found: str, meaning: str, remedy: str, page: str = "") -> Finding:
    """Return the finding of a problem despite which calls can succeed."""
    return Finding(name, "warning", found, meaning, remedy, page)


def failure(name: str, found: str, meaning: str, remedy: str, page: str = "") -> Finding:
    """Return the finding of a problem that makes calls fail."""
    return Finding(name, "failure", found, meaning, remedy, page)


def skipped(name: str, reason: str, remedy: str = "") -> Finding:
    """Return the finding of a check that was not run."""
    return Finding(name, "skipped", reason, remedy=remedy)


UNRUN = "not run, because of "
"""The beginning of ``found`` where a check that this one depends on failed."""


def unrun(name: str, cause: str) -> Finding:
    """Return the finding of a check that was not run, because a finding named ``cause`` is a failure."""
    return skipped(name, f"{UNRUN}{cause}")


_SECRETS = re.compile(r"[0-9A-Fa-f]{32,}|eJ[\w*-]{40,}")
"""Matches text that may be a key or a UserSig."""


def redacted(findings: Iterable[Finding], key: object) -> list[Finding]:
    """Return findings without the key and without anything that looks like one: it may be in the wrong setting.

    Args:
        findings: the findings.
        key: the configured key, a `Secret`; anything else for none.
    """

    def clean(text: str) -> str:
        if isinstance(key, Secret) and key.reveal():
            text = text.replace(str(key.reveal()), "…")
        return _SECRETS.sub("…", text)

    return [
        replace(one, found=clean(one.found), meaning=clean(one.meaning), remedy=clean(one.remedy)) for one in findings
    ]


CALLS = "https://www.tencentcloud.com/document/product/1047/34620"
"""The vendor's page about calls, hosts and administrators."""
USERSIG = "https://www.tencentcloud.com/document/product/1047/34385"
"""The vendor's page about UserSigs."""
