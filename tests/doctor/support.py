"""Helpers for tests of the doctor: the endpoints that it may call, names and levels of findings, a resolver."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import aiohttp

from tim_async import Finding, TIMClient, doctor

READS = {
    "get_c2c_unread_msg_num",
    "get_recent_contact_list",
    "get_group_msg_receipt",
    "get_group_msg_receipt_detail",
    "get_group_info",
}


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


class Resolver(aiohttp.abc.AbstractResolver):
    """Resolves names to ports of this machine; None for a name without an address."""

    def __init__(self, ports: dict[str, int | None]) -> None:
        self.ports = ports

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        if host not in self.ports:
            raise OSError(None, "no such name")
        given = self.ports[host]
        if given is None:
            return []
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": given,
                "family": socket.AF_INET,
                "proto": 6,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        """Nothing is open."""
