"""What the tests of streams share: a service that counts, processes that are killed, and looks into the store."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from redis.asyncio import Redis

from tests.programs import PIPE, ForkedProgram, in_thread
from tests.stand_in import APP, KEY, Action, Fate, Seen, StandIn, error, ok, page
from tim_async.migrate import READ, UNREAD, FileSource, Kind
from tim_async.migrate.streams import Loaded, load
from tim_async.migrate.streams.keys import KEYS, keys_of

ROOT = Path(__file__).resolve().parents[3]
HEADERS = {"unread": "GroupId,Member_Account,UnreadMsgNum", "read": "Report_Account,Peer_Account,MsgReadTime"}
NAME = "migration"

Pair = tuple[str, str]
E = TypeVar("E")


class Service:
    """Answers both kinds of rows, 5 % of them wrongly in three ways, and calls somebody at the requests it was told.

    Attributes:
        state: the last value of each pair that the service took.
        values: all values that were sent for a pair.
        arrivals: how many requests there were for it.
        faults: requests that were answered wrongly.
        rows: requests for rows.
    """

    def __init__(self, dice: random.Random, faulty: float = 0.05) -> None:
        self.dice = dice
        self.faulty = faulty
        self.state: dict[Pair, Any] = {}
        self.values: dict[Pair, set[Any]] = defaultdict(set)
        self.arrivals: Counter[Pair] = Counter()
        self.faults = 0
        self.rows = 0
        self.at: dict[int, Callable[[], object]] = {}

    def answer(self, seen: Seen) -> Action:
        body = seen.json
        if seen.path.endswith("/get_group_info"):
            groups = [{"GroupId": group_id, "ErrorCode": 0, "Type": "Public"} for group_id in body["GroupIdList"]]
            return ok(GroupInfo=groups)
        self.rows += 1
        if self.rows in self.at:
            self.at.pop(self.rows)()
        if "GroupId" in body:
            pair, value = (body["GroupId"], body["Member_Account"]), body["UnreadMsgNum"]
        else:
            pair, value = (body["Report_Account"], body["Peer_Account"]), body.get("MsgReadTime")
        self.arrivals[pair] += 1
        self.values[pair].add(value)
        fate = self.dice.random() / self.faulty if self.faulty else 1.0
        self.faults += fate < 1.0
        if fate < 0.5:
            return error(10002, "busy")
        if fate < 0.7:
            return page(502)
        self.state[pair] = value
        return Fate.DROP if fate < 1.0 else ok()


@contextlib.asynccontextmanager
async def served(service: Service) -> AsyncIterator[StandIn]:
    """The service on loopback; at the end every request must have been well-formed."""
    async with StandIn(answer=service.answer) as running:
        yield running
    # Of so many 32-bit numbers, drawn by several processes, two may be the same.
    assert [violation for violation in running.violations if "came twice" not in violation] == []


class Processes:
    """``tim-async migrate …`` as processes, which do not outlive the block.

    Args:
        base_url: where the service is; "" for commands that do not need one.
    """

    def __init__(self, base_url: str = "") -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TIM_")},
            **({"TIM_SDK_APP_ID": str(APP), "TIM_SECRET_KEY": KEY, "TIM_BASE_URL": base_url} if base_url else {}),
            "PYTHONPATH": str(ROOT),
        }
        self._all: list[ForkedProgram] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            process.close()

    async def start(self, *arguments: str, before: str = "") -> ForkedProgram:
        """Start a command; with ``before`` as the first lines of its program."""
        program = f"import sys\nsys.argv[0] = 'tim-async'\n{before}\nfrom tim_async.cli import main\nsys.exit(main())"
        process = ForkedProgram("-c", program, "migrate", *arguments, env=self._environment, stdout=PIPE, stderr=PIPE)
        self._all.append(process)
        return process

    async def ended(self, process: ForkedProgram) -> tuple[int, str, str]:
        """Its exit code, and what it said; it must have said it plainly."""
        out, err = await in_thread(process.communicate)
        assert process.returncode is not None
        assert "Traceback" not in err, err
        assert "Warning:" not in err.replace("Warning: the store", ""), err
        return process.returncode, out, err

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        return await self.ended(await self.start(*arguments))


class Slot:
    """One place of a fleet: a worker that is killed when told so, and then started again by the same command."""

    def __init__(self, processes: Processes, arguments: Sequence[str]) -> None:
        self._processes = processes
        self._arguments = arguments
        self.process: ForkedProgram | None = None
        self.kills = 0

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process = None
            self.kills += 1

    async def work(self) -> tuple[int, str, str]:
        """Start it again until it ends by itself; how that was."""
        while True:
            process = self.process = await self._processes.start(*self._arguments)
            ended = await self._processes.ended(process)
            if ended[0] != -signal.SIGKILL:
                return ended


def rows_of(dice: random.Random, rows: int, pairs: int, values: int = 1000) -> list[tuple[str, str, str]]:
    """Rows for so many pairs in no order, some of them many times, and each at least once."""
    found = [*range(pairs), *(dice.randrange(pairs) for _ in range(rows - pairs))]
    dice.shuffle(found)
    return [(f"g{pair % 40}", f"m{pair}", str(dice.randrange(values))) for pair in found]


def last_of(rows: Sequence[tuple[str, str, str]]) -> dict[Pair, str]:
    """What a file's end state is."""
    return {(first, second): value for first, second, value in rows}


def write(path: Path, rows: Sequence[tuple[str, ...]], kind: str = "unread") -> Path:
    path.write_text("\n".join([HEADERS[kind], *(",".join(row) for row in rows), ""]), encoding="utf-8")
    return path


async def loaded(file: Path, url: str, kind: Kind = UNREAD, **options: Any) -> Loaded:
    """Load a file, to its end."""
    with FileSource(file, kind, until_now=True) as source:
        async with contextlib.aclosing(load(source, url, **options)) as events:
            found = [event async for event in events]
    assert isinstance(found[-1], Loaded)
    return found[-1]


def kind_named(name: str) -> Kind:
    return {"unread": UNREAD, "read": READ}[name]


@contextlib.asynccontextmanager
async def looking(url: str) -> AsyncIterator[Any]:
    """A plain client of the store; whose types speak of every way to make one."""
    redis = Redis.from_url(url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


def key(what: str, name: str = NAME) -> str:
    return keys_of(name)[KEYS.index(what)]


def of(kind: type[E], events: Sequence[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]
