"""Regression tests of the script by itself, for faults that the simulation found."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tim_async.quota import KEYS

from .releases import later
from .store import Engine, Server
from .world import World


class Member:
    """A minimal process that runs the script."""

    def __init__(self, server: Server, world: World, name: str, source: str) -> None:
        self._server, self._world, self._source = server, world, source
        self._numbers = itertools.count(1)
        self._heard, self._heard_at = 0, 0.0
        self._epoch = "0"
        self.name = name

    def ask(self, *, sent: float | None = None, **fields: Any) -> dict[str, Any]:
        """Run the script now, with a request sent at ``sent``; the reply comes at once."""
        now = self._world.now
        request = {
            "id": self.name,
            "number": next(self._numbers),
            "heard": self._heard,
            "heard_ago": round(((now if sent is None else sent) - self._heard_at) * 1e6) if self._heard else 0,
            "round_trip": 1000,
            "epoch": self._epoch,
            "limit": 1,
            "binding": True,
            "strict": True,
            "bulk_share": 1.0,
            "lead": 0,
            "settle": 0,
            "horizon": 10_000,
            "out": 0,
            **fields,
        }
        reply: dict[str, Any] = json.loads(
            self._server.run(self._source, [*KEYS], json.dumps(request, separators=(",", ":")))
        )
        self._heard, self._heard_at, self._epoch = reply["number"], now, reply["epoch"]
        return reply


def test_a_delayed_request_frees_nothing_early(source: str) -> None:
    world = World(0)
    server = Server(Engine(), world, "a" * 40)
    first, second = Member(server, world, "first", source), Member(server, world, "second", source)
    for member in (first, second):
        member.ask()
    world.now = 10.0
    for member in (first, second):
        member.ask()
    # It was sent at 10.05 and arrives at 10.2, which looks to the store like a jump of its clock.
    world.now = 10.2
    first.ask(sent=10.05, freed=[[3, 1_000_500, 1]])
    # Another member's request shows that it was none.
    world.now = 10.21
    assert "permits" not in second.ask(wanted=1, lane="interactive")
    world.now = 11.19
    assert "permits" not in second.ask(wanted=1, lane="interactive")
    world.now = 11.6
    assert second.ask(wanted=1, lane="interactive")["permits"]


def test_a_member_behind_others_does_not_take_their_permits(source: str) -> None:
    world = World(0)
    server = Server(Engine(), world, "a" * 40)
    members = [Member(server, world, name, source) for name in ("busy", "first", "second")]
    busy, first, second = members
    asking: dict[str, Any] = {"limit": 20, "lane": "interactive", "wanted": 1}
    for member in members:
        member.ask(limit=20)
    world.now = 10.0
    taken = 0
    while "permits" in busy.ask(**asking, out=taken):
        taken += 1
    # There are free slots; only the pace delays.
    assert taken < 10
    waits = []
    for member in (first, second):
        world.now += 0.001
        waits.append(member.ask(**asking)["again"])
    # The second asks when a permit is due for the first, before the first asks again.
    world.now += waits[0] / 1e6
    world.now += first.ask(**asking)["again"] / 1e6 - 0.0005
    assert "permits" not in second.ask(**asking)
    world.now += 0.001
    assert "permits" in first.ask(**asking)


def test_two_releases_with_the_same_layout_share_the_quota(source: str) -> None:
    world = World(0)
    server = Server(Engine(), world, "a" * 40)
    this, next_ = Member(server, world, "this", source), Member(server, world, "next", later(source))
    asking: dict[str, Any] = {"limit": 4, "lane": "interactive", "wanted": 2}
    world.now = 10.0
    for _ in range(2):  # each reads the other's writes, and its own earlier ones
        this.ask(limit=4)
        next_.ask(limit=4, later=1)
    assert this.ask(**asking)["permits"] == [[0, 2]]
    reply = next_.ask(**asking, later=1)
    assert reply["permits"] == [[0, 2]]
    assert reply["later"] == 3
    assert "permits" not in this.ask(**asking, out=2)
    assert "permits" not in next_.ask(**asking, out=2, later=1)
    # The other release removes a silent member: first its permits, then the member.
    for member, more in ((this, {}), (next_, {"later": 1}), (this, {})):
        world.now += 70
        member.ask(limit=4, **more)
        assert member.ask(limit=4, **more)["members"] == 1
