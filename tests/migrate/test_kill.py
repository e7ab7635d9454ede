"""SIGKILL at any moment, and the same command again: nothing is lost, and few rows are sent twice."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.programs import DEVNULL, PIPE, ForkedProgram, in_thread
from tests.stand_in import Action, Fate, Seen, StandIn, error, ok, page
from tim_async.migrate import read_status

from .storing import command, journal_files, states

pytestmark = pytest.mark.processes

ROWS = 1000
CONCURRENCY = 20

Member = tuple[str, str]


class Faulty:
    """Stores counts, fails often and in three ways, and kills its client at chosen requests."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.counts: dict[Member, int] = {}
        self.arrivals: Counter[Member] = Counter()
        self.faults = 0
        self.kill_at = 0
        self.client: ForkedProgram | None = None
        self.settled: set[Member] = set()
        self.repeated: list[Member] = []

    def answer(self, seen: Seen) -> Action:
        self.kill_at -= 1
        if self.kill_at == 0 and self.client is not None:
            self.client.kill()
        body = seen.json
        if seen.path.endswith("/get_group_info"):
            return ok(
                GroupInfo=[{"GroupId": group_id, "ErrorCode": 0, "Type": "Public"} for group_id in body["GroupIdList"]]
            )
        member = (body["GroupId"], body["Member_Account"])
        self.arrivals[member] += 1
        if member in self.settled:
            self.repeated.append(member)
        fate = self.dice.random()
        self.faults += fate < 0.10
        if fate < 0.05:
            return error(10002, "busy")
        if fate < 0.07:
            return page(502)
        self.counts[member] = body["UnreadMsgNum"]
        return Fate.DROP if fate < 0.10 else ok()


@pytest.fixture
async def faulty(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Faulty, StandIn]]:
    """The service of one run, seeded with the run's number."""
    service = Faulty(random.Random(request.getfixturevalue("number")))
    async with StandIn(answer=service.answer) as running:
        yield service, running
    # Several processes may draw the same 32-bit number.
    assert [violation for violation in running.violations if "came twice" not in violation] == []


async def migrate(service: Faulty, url: str, file: Path) -> int:
    """Run the command once."""
    options = ("--rate", 5000, "--concurrency", CONCURRENCY)
    with command(url, "unread", file, *options, stdout=DEVNULL, stderr=PIPE) as service.client:
        _, complaints = await in_thread(service.client.communicate)
        code = service.client.wait()
    assert code in (0, -signal.SIGKILL), complaints
    return code


def known(journal: Path, lines: dict[int, Member]) -> dict[Member, str]:
    """Return the state of each member in the journal of the killed process."""
    if not journal_files(journal) or not read_status(journal).planned:
        return {}
    return {lines[line]: state for line, state in states(journal).items()}


@pytest.mark.parametrize("number", range(10))
async def test_kills_lose_nothing(number: int, faulty: tuple[Faulty, StandIn], tmp_path: Path) -> None:
    """After up to five kills, each at a random request, the server's counts are those of the file."""
    service, running = faulty
    dice = random.Random(number)
    wanted = {(f"group{row % 40}", f"member{row}"): dice.randrange(100) for row in range(ROWS)}
    lines = dict(enumerate(wanted, 2))
    file = tmp_path / "counts.csv"
    text = "".join(f"{group},{member},{count}\n" for (group, member), count in wanted.items())
    file.write_text("GroupId,Member_Account,UnreadMsgNum\n" + text, encoding="utf-8")
    journal = tmp_path / "counts.csv.journal"

    kills = 0
    for _ in range(dice.randint(1, 5)):
        service.kill_at = dice.randint(1, ROWS // 3)
        kills += await migrate(service, running.url, file) != 0
        left = known(journal, lines)
        service.settled = {member for member, state in left.items() if state == "done"}
        assert {left[member] for member in service.arrivals} <= {"done", "sending"}
        assert sum(state == "sending" for state in left.values()) <= CONCURRENCY
    service.kill_at = 0
    assert await migrate(service, running.url, file) == 0

    assert service.counts == wanted
    assert service.repeated == []
    assert kills >= 1
    again = sum(service.arrivals.values()) - len(wanted)
    assert again <= CONCURRENCY * kills + service.faults
