"""Helpers for tests of the doctor: the endpoints that it may call, names and levels of findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tim_async import Finding, TIMClient, doctor
from tim_async.endpoints import ENDPOINTS

READS = {
    "get_c2c_unread_msg_num",
    "get_recent_contact_list",
    "get_group_msg_receipt",
    "get_group_msg_receipt_detail",
    "get_group_info",
}
WRITES = {one.name for one in ENDPOINTS} - READS


def problems(found: Iterable[Finding]) -> set[str]:
    """Return the names of the warnings and failures."""
    return {one.name for one in found if one.level in ("warning", "failure")}


def level(found: Iterable[Finding], name: str) -> str:
    """Return the level of the one finding with this name."""
    (one,) = (one for one in found if one.name == name)
    return one.level


async def examine(tim: TIMClient, **options: Any) -> tuple[Finding, ...]:
    """Examine a client; assert that each finding is complete, and that each problem has a remedy."""
    found = await doctor(tim, **options)
    names = [one.name for one in found]
    assert len(names) == len({*names})
    for one in found:
        assert one.found
        if one.level in ("warning", "failure"):
            assert one.meaning.endswith("."), one
            assert one.remedy.endswith("."), one
        assert one.page == "" or one.page.startswith("https://www.tencentcloud.com/document/product/"), one
    return found
