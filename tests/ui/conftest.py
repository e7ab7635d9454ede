"""A page about an emulator, served within the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tim_async.cli._page import history
from tim_async.cli._page.emulator import EmulatorSubject
from tim_async.cli._page.server import serve_page
from tim_async.emulator import Emulator, fill_example


@dataclass(frozen=True)
class Served:
    """An emulator, its page, and a session for requests to the page."""

    service: Emulator
    url: str
    session: aiohttp.ClientSession

    @property
    def host(self) -> str:
        return URL(self.url).authority

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    async def data(self) -> Any:
        async with self.session.get(f"{self.url}data") as answer:
            assert answer.status == 200
            return await answer.json()

    async def act(self, action: Any) -> tuple[int, str]:
        async with self.session.post(f"{self.url}act", json=action, headers={"Origin": self.origin}) as answer:
            return answer.status, await answer.text()

    async def until(self, calls: int) -> Any:
        """Poll the data until it has at least ``calls`` calls."""
        while (found := await self.data())["tables"][0]["rows"] == [] or calls_in(found) < calls:
            pass
        return found


def calls_in(data: Any) -> int:
    (calls,) = [table for table in data["tables"] if table["title"] == "Calls"]
    return sum(row[1] for row in calls["rows"])


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(history, "INTERVAL", 0.02)  # a second is long for a test
    async with Emulator(limit=40) as service, aiohttp.ClientSession() as session:
        fill_example(service.state)
        async with serve_page(EmulatorSubject(service, 40), 0) as url:
            yield Served(service, url, session)
