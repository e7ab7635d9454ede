"""SIGKILL at any moment, and the same command again: nothing is lost, and few rows are sent twice."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.programs import DEVNULL, PIPE, in_thread

from .storing import command, states
from .streams.fleet import Pair, Service, last_of, served, write

pytestmark = pytest.mark.processes

ROWS = 1000
CONCURRENCY = 20


async def migrate(service: Service, url: str, file: Path, kill_at: int | None = None) -> int:
    """Run the command once, kill it at a request if one is given, and return its exit code."""
    options = ("--rate", 5000, "--concurrency", CONCURRENCY, "--no-group-check")
    with command(url, "unread", file, *options, stdout=DEVNULL, stderr=PIPE) as program:
        if kill_at is not None:
            service.at = {service.rows + kill_at: program.kill}
        _, complaints = await in_thread(program.communicate)
        code = program.wait()
    service.at = {}
    assert code in (0, -signal.SIGKILL), complaints
    return code


@pytest.mark.parametrize("number", range(10))
async def test_kills_lose_nothing(number: int, tmp_path: Path) -> None:
    """After up to five kills, each at a random request, the server's counts are those of the file."""
    dice = random.Random(number)
    rows = [(f"group{row % 40}", f"member{row}", str(dice.randrange(100))) for row in range(ROWS)]
    wanted = last_of(rows)
    lines = dict(enumerate(wanted, 2))
    file = write(tmp_path / "counts.csv", rows)
    journal = tmp_path / "counts.csv.journal"
    service = Service(dice, faulty=0.1)
    arrivals_of_done: dict[Pair, int] = {}

    kills = 0
    async with served(service) as running:
        for _ in range(dice.randint(1, 5)):
            kills += await migrate(service, running.url, file, dice.randint(1, ROWS // 3)) != 0
            known = {lines[line]: state for line, state in states(journal).items()}
            assert {known[member] for member in service.arrivals} <= {"done", "sending"}
            assert [*known.values()].count("sending") <= CONCURRENCY
            for member in (member for member, state in known.items() if state == "done"):
                arrivals_of_done.setdefault(member, service.arrivals[member])
        assert await migrate(service, running.url, file) == 0

    assert service.state == wanted
    assert arrivals_of_done == {member: service.arrivals[member] for member in arrivals_of_done}, "sent again"
    assert kills >= 1
    again = sum(service.arrivals.values()) - len(wanted)
    assert again <= CONCURRENCY * kills + service.faults
