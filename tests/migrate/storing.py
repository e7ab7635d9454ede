"""Journals for the tests, and processes that use them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import resource
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.programs import PIPE, ROOT, ForkedProgram
from tests.stand_in import APP, KEY
from tim_async.migrate import (
    UNREAD,
    Event,
    Finished,
    JournalError,
    Kind,
    Notes,
    Rejected,
    Row,
    SqliteStore,
    Store,
    read_status,
)
from tim_async.migrate._journal_file import reading
from tim_async.migrate._store import About, Calls, Claim, Exchange, Outcome, RowState

E = TypeVar("E")

FINGERPRINT = "a1" * 32
ABOUT = About(
    kind="unread",
    source="/data/export.csv",
    arguments={"format": None, "columns": {"GroupId": "room"}},
    sdk_app_id=1400000000,
    base_url="http://127.0.0.1:8099",
)
KNOWN = dataclasses.replace(ABOUT, fingerprint=FINGERPRINT)
LONG = "UnreadMsgNum is of no use here: " + "x" * 500
KILLED = -signal.SIGKILL


def rows(count: int, members: int | None = None) -> Iterator[Row]:
    """Yield the rows of a file with a header; of ``members`` different members, if given."""
    for number in range(count):
        member = number if members is None else number % members
        yield Row(number + 2, (f"group{member % 7}", f"member{member}", number))


def mixed(count: int) -> Iterator[Row | Rejected]:
    """Yield the same with a tenth rejected, and most members twice."""
    for row in rows(count, count * 2 // 3):
        yield Rejected(row.line, "UnreadMsgNum", LONG) if row.line % 10 == 3 else row


def row(line: int, member: str, number: int = 0) -> Row:
    """Return a row; its count is by default its line."""
    return Row(line, ("g", member, number or line))


class Rows:
    """A source of the rows that a function yields."""

    def __init__(self, read: Callable[[], Iterator[Row | Rejected]], kind: Kind = UNREAD, name: str = "rows") -> None:
        self.read = read
        self.kind = kind
        self.name = name
        self.arguments: dict[str, Any] = {}
        self.notes = Notes()

    def fingerprint(self) -> str:
        return FINGERPRINT


async def plan(store: Store, given: Iterable[Row | Rejected], about: About = ABOUT, batch: int = 5000) -> Store:
    """Open a store, and plan these rows if no rows are planned."""
    if await store.open(about) is None:
        given = iter(given)
        while some := list(itertools.islice(given, batch)):
            await store.plan(some)
        await store.planned(FINGERPRINT)
    return store


@contextlib.asynccontextmanager
async def planned(path: Path, given: Iterable[Row | Rejected], about: About = ABOUT) -> AsyncIterator[SqliteStore]:
    """Open a journal of these rows for a run, and create it if it does not exist."""
    store = SqliteStore(path)
    try:
        await plan(store, given, about)
        yield store
    finally:
        await store.close("limit")


async def journal(path: Path, given: Iterable[Row | Rejected], about: About = ABOUT) -> Path:
    """The same, and close it again."""
    async with planned(path, given, about):
        return path


async def settle(store: Store, *, done: Iterable[int] = (), failed: Iterable[int] = (), reason: str = LONG) -> None:
    """Settle rows that were claimed."""
    outcomes = [Outcome(line, RowState.DONE) for line in done]
    outcomes += [Outcome(line, RowState.FAILED, 10007, reason) for line in failed]
    await store.exchange(outcomes, 0, Calls())


async def settle_as(store: Store, states: Mapping[int, RowState], code: int | None = 10007) -> Exchange:
    """Settle rows that were claimed, each in its own way."""
    outcomes = [
        Outcome(line, state, code, f"no {line}") if state is RowState.FAILED else Outcome(line, state)
        for line, state in states.items()
    ]
    return await store.exchange(outcomes, 0, Calls(sent=len(outcomes)))


async def claim(store: Store, room: int = 100) -> list[Claim]:
    return (await store.exchange([], room, Calls())).claims


def lines(claims: Iterable[Claim]) -> list[int]:
    return [claim.row.line for claim in claims]


def states(path: Path) -> dict[int, str]:
    """Return the state of each line by its name, and "sending" for a claimed one."""
    with reading(path) as db:
        found = db.execute("SELECT row.line, state, since IS NOT NULL FROM row LEFT JOIN claim USING (line)")
        return {line: "sending" if claimed else RowState(state).name.lower() for line, state, claimed in found}


def journal_files(path: Path) -> list[str]:
    """Return the names of the journal and of the files next to it, without the lock, which stays."""
    names = sorted(other.name for other in path.parent.iterdir() if other.name.startswith(path.name))
    return [name for name in names if not name.endswith(".lock")]


def contents(path: Path) -> dict[str, bytes]:
    """Return the same files with their contents."""
    return {name: (path.parent / name).read_bytes() for name in journal_files(path)}


async def all_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Return the events of a run that ends by itself."""
    async with contextlib.aclosing(events):
        return [event async for event in events]


def of(kind: type[E], events: Sequence[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def finished(events: Sequence[Event]) -> Finished:
    """Return the last event."""
    assert isinstance(events[-1], Finished)
    return events[-1]


def executor_threads() -> set[threading.Thread]:
    """Return the threads of all journals and sources; compare them with those before, which may be of other tests."""
    return {thread for thread in threading.enumerate() if thread.name == "tim-async-migrate"}


@contextlib.contextmanager
def ram_folder() -> Iterator[Path]:
    """Create a folder in memory, if possible, so that hypothesis does not wait for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def command(url: str, *arguments: object, **streams: Any) -> ForkedProgram:
    """Start ``tim-async migrate`` against a stand-in."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIM_")},
        "TIM_SDK_APP_ID": str(APP),
        "TIM_SECRET_KEY": KEY,
        "TIM_BASE_URL": url,
    }
    return ForkedProgram("-m", "tim_async", "migrate", *map(str, arguments), env=environment, **streams)


def process(name: str, *arguments: object) -> ForkedProgram:
    """Start one of the functions below in a subprocess."""
    return ForkedProgram("-m", "tests.migrate.storing", name, *map(str, arguments), cwd=ROOT, stdin=PIPE, stdout=PIPE)


def result_of(name: str, *arguments: object) -> Any:
    """Return the result of one of the functions below, from its JSON."""
    with process(name, *arguments) as running:
        text, _ = running.communicate()
    assert running.returncode == 0
    return json.loads(text)


def messages(running: ForkedProgram, count: int = sys.maxsize) -> Iterator[Any]:
    """Yield the next ``count`` lines of a process's output, each parsed as JSON; all of them by default."""
    assert running.stdout is not None
    return map(json.loads, itertools.islice(running.stdout, count))


# In subprocesses


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def hold(path: str) -> None:
    """Hold a journal until killed, or until the end of standard input."""
    async with planned(Path(path), rows(10)):
        _print("held")
        sys.stdin.read()


async def note(path: str) -> None:
    """Write a note, as `migrate set` does."""
    store = SqliteStore(path)
    await store.note("note", "kept")
    await store.close()


async def die_while_planning(path: str, count: str, steps: str) -> None:
    """Plan rows in a new journal, and be killed after this number of instructions of SQLite's virtual machine."""
    left = int(steps)

    def step() -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    connect = sqlite3.connect

    def connected(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **kwargs)
        db.set_progress_handler(step, 1)
        return db

    sqlite3.connect = connected  # type: ignore[assignment]
    await journal(Path(path), mixed(int(count)))
    _print(left)


async def die_after_an_exchange(path: str) -> None:
    """Settle ten rows, claim three, and be killed before any clean-up."""
    store = SqliteStore(path)
    await store.open(ABOUT)
    claims = (await store.exchange([], 10, Calls())).claims
    await store.exchange([Outcome(claim.row.line, RowState.DONE) for claim in claims], 3, Calls())
    os.kill(os.getpid(), signal.SIGKILL)


async def exchange_repeatedly(path: str, size: str) -> None:
    """Settle as many rows as are claimed, the last of them as failed, and print each claim after it is made."""
    async with planned(Path(path), ()) as store:
        outcomes: list[Outcome] = []
        while claims := (await store.exchange(outcomes, int(size), Calls())).claims:
            lines = [claim.row.line for claim in claims]
            _print(lines)
            outcomes = [Outcome(line, RowState.DONE) for line in lines[:-1]]
            outcomes.append(Outcome(lines[-1], RowState.FAILED, 10007, LONG))


async def status(path: str) -> None:
    """Print the status that a user without write permission reads."""
    if os.geteuid() == 0:  # permissions do not apply to root
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        found = read_status(path)
    except JournalError as error:
        _print(str(error))
    else:
        _print([found.counts.done, found.counts.left, found.running])


async def look(path: str) -> None:
    """Print whether a run holds the journal, and how many rows are done."""
    found = read_status(path)
    _print([found.running, found.counts.done])


async def memory(path: str, count: str, members: str) -> None:
    """Plan rows, and print the peak memory in kB."""
    await journal(Path(path), rows(int(count), int(members) or None))
    # getrusage would include the memory of the process before its exec.
    used = Path("/proc/self/status")
    if used.exists():
        (most,) = (line.split()[1] for line in used.read_text().splitlines() if line.startswith("VmHWM:"))
        _print(int(most))
    else:
        _print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


async def fill_the_disk(folder: str, count: str, *sizes: str) -> None:
    """Run a migration on disks of different sizes, finish it with more room, and print where each disk was full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _print([await _fill(Path(folder) / f"{size}.journal", int(count), int(size)) for size in sizes])


async def _fill(path: Path, count: int, size: int) -> dict[str, Any]:
    """Run one migration, at first with no file longer than ``size``."""
    settled: dict[int, str] = {}
    store = SqliteStore(path)
    stage, error = "begin", ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        await store.open(ABOUT)
        stage = "plan"
        await store.plan(list(mixed(count)))
        stage = "planned"
        await store.planned(FINGERPRINT)
        stage = "exchange"
        await _settle_all(store, settled)
        stage = "done"
    except JournalError as caught:
        error = str(caught)
    with contextlib.suppress(JournalError):
        await store.close("failed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    async with planned(path, mixed(count)) as store:
        there = states(path)
        assert {line: there[line] for line in settled} == settled
        await _settle_all(store, settled)
        there = states(path)
        assert {line: there[line] for line in settled} == settled
        counts = await store.counts()
    return {"stage": stage, "error": error, "files": journal_files(path), "total": counts.total, "left": counts.left}


async def _settle_all(store: Store, settled: dict[int, str]) -> None:
    """Settle all rows, and record the saved outcomes."""
    lines: list[int] = []
    while True:
        outcomes = [
            Outcome(line, RowState.DONE) if line % 5 else Outcome(line, RowState.FAILED, 10007, LONG) for line in lines
        ]
        claims = (await store.exchange(outcomes, 40, Calls())).claims
        settled.update((outcome.line, outcome.state.name.lower()) for outcome in outcomes)
        lines = [claim.row.line for claim in claims]
        if not lines:
            return


async def sort_without_room(path: str) -> None:
    """Print the error when there is no room for temporary files, and the counts after another attempt with room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = SqliteStore(path)
    await store.open(ABOUT)
    await store.plan(list(rows(60_000, 1)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        await store.planned(FINGERPRINT)
    except JournalError as caught:
        error = str(caught)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.planned(FINGERPRINT)
    counts = await store.counts()
    await store.close()
    _print([error, [counts.pending, counts.superseded]])


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
