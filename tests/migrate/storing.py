"""Journals as the tests make them, and processes that work on them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.programs import PIPE, ForkedProgram
from tim_async.migrate import JournalError, Rejected, Row, read_status
from tim_async.migrate.journal import Changes, Journal
from tim_async.migrate.locking import is_held
from tim_async.migrate.schema import About, State
from tim_async.migrate.status import reading

ROOT = Path(__file__).resolve().parents[2]
ABOUT = About(
    kind="unread",
    source="/data/export.csv",
    fingerprint="a1" * 32,
    arguments={"format": None, "columns": {"GroupId": "room"}, "id_formats": {}},
    sdk_app_id=1400000000,
    base_url="http://127.0.0.1:8099",
)
LONG = "UnreadMsgNum is of no use here: " + "x" * 500
KILLED = -signal.SIGKILL
SETTLED = (State.DONE, State.FAILED)


def rows(count: int, members: int | None = None) -> Iterator[Row]:
    """Rows as a file of so many holds them, below a header; of so many members."""
    for number in range(count):
        member = number if members is None else number % members
        yield Row(number + 2, (f"group{member % 7}", f"member{member}", number))


def mixed(count: int) -> Iterator[Row | Rejected]:
    """The same with a tenth rejected, and most members twice."""
    for row in rows(count, count * 2 // 3):
        yield Rejected(row.line, "UnreadMsgNum", LONG) if row.line % 10 == 3 else row


def plan(path: Path, given: Iterable[Row | Rejected], about: About = ABOUT) -> Path:
    """Make a journal that knows these rows."""
    with Journal(path, about) as journal:
        for _ in journal.plan(iter(given)):
            pass
    return path


def states(path: Path) -> dict[int, State]:
    """What a journal says of each line."""
    with reading(path) as db:
        return {line: State(state) for line, state in db.execute("SELECT line, state FROM row")}


def beside(path: Path) -> list[str]:
    """The journal, and what is beside it by a similar name."""
    return sorted(other.name for other in path.parent.iterdir() if other.name.startswith(path.name))


def contents(path: Path) -> dict[str, bytes]:
    """The journal, and what is beside it, as bytes."""
    return {name: (path.parent / name).read_bytes() for name in beside(path)}


def process(name: str, *arguments: object) -> ForkedProgram:
    """Start one of the functions below in a process of its own."""
    return ForkedProgram("-m", "tests.migrate.storing", name, *map(str, arguments), cwd=ROOT, stdin=PIPE, stdout=PIPE)


def outcome(name: str, *arguments: object) -> Any:
    """What one of the functions below says at its end, as JSON."""
    with process(name, *arguments) as running:
        text, _ = running.communicate()
    assert running.returncode == 0
    return json.loads(text)


def said(running: ForkedProgram, count: int = sys.maxsize) -> Iterator[Any]:
    """What a process says next, line by line; to its end, unless only so much is asked for."""
    assert running.stdout is not None
    return map(json.loads, itertools.islice(running.stdout, count))


# In processes of their own


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hold(path: str) -> None:
    """Hold a journal until killed, or told to end."""
    with Journal(Path(path), ABOUT):
        _say("held")
        sys.stdin.read()


def look(path: str) -> None:
    """Say whether a run holds the journal."""
    _say(is_held(Path(path)))


def sqlite_locks(path: str) -> None:
    """Say whether somebody has SQLite's own lock on a database, as all have who are connected to one with a log."""
    import fcntl

    with Path(path).open("r+b") as file:
        try:
            # https://www.sqlite.org/src/file/src/os.h: SHARED_FIRST, SHARED_SIZE
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x4000_0002)
        except OSError:
            _say(True)
        else:
            _say(False)


def die_while_planning(path: str, count: str, steps: str) -> None:
    """Begin a journal and plan rows, and be killed after so many instructions of SQLite's machine."""
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
    with Journal(Path(path), ABOUT) as journal:
        for _ in journal.plan(mixed(int(count))):
            pass
    _say(left)


def die_after_saving(path: str) -> None:
    """Save once more, and be killed before anything can be tidied up."""
    journal = Journal(Path(path), ABOUT)
    lines = [row.line for row in journal.unsettled(0, 10)]
    journal.save(Changes(done=lines))
    os.kill(os.getpid(), signal.SIGKILL)


def save_on_and_on(path: str, size: str) -> None:
    """Settle so many rows in each transaction, the last of them as failed, and say each that is saved."""
    with Journal(Path(path), ABOUT) as journal:
        while unsettled := journal.unsettled(0, int(size)):
            lines = [row.line for row in unsettled]
            journal.save(Changes(sending=lines, at=1000))
            journal.save(Changes(done=lines[:-1], failed=[(lines[-1], 10007, LONG)]))
            _say(lines)


def status(path: str) -> None:
    """Say what a journal tells somebody who may write nothing."""
    if os.geteuid() == 0:  # whom no permission stops
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        found = read_status(path)
    except JournalError as error:
        _say(str(error))
    else:
        _say([found.counts.done, found.counts.pending, found.running])


def settled(path: str) -> None:
    """Say how many rows a journal has as done, and as pending."""
    counts = read_status(path).counts
    _say([counts.done, counts.pending])


def memory(path: str, count: str, members: str) -> None:
    """Plan rows, and say how much memory that took at most, in kB."""
    plan(Path(path), rows(int(count), int(members) or None))
    # Not getrusage: that also counts what the process was before it became this one.
    used = Path("/proc/self/status")
    if used.exists():
        (most,) = (line.split()[1] for line in used.read_text().splitlines() if line.startswith("VmHWM:"))
        _say(int(most))
    else:
        _say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def fill_the_disk(folder: str, count: str, *sizes: str) -> None:
    """Carry a migration out on disks of different sizes, and then go on with more room; say where each was full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _say([_fill(Path(folder) / f"{size}.journal", int(count), int(size)) for size in sizes])


def _fill(path: Path, count: int, size: int) -> dict[str, Any]:
    """One migration; no file may be longer than ``size`` at first."""
    saved: dict[int, State] = {}
    stage, error = "begin", ""
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            journal = stack.enter_context(Journal(path, ABOUT))
            stage = "read"
            taken = 0
            for taken in journal.plan(mixed(count)):
                if taken == count:
                    stage = "supersede"
            stage = "session"
            journal.begin_session(1000.0)
            stage = "save"
            _settle(journal, saved)
            stage = "done"
        except JournalError as caught:
            error = str(caught)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if stage == "save":  # the same journal goes on, and so does the next
            _check(journal, saved)
            _settle(journal, saved, most=3)
    with Journal(path, ABOUT) as journal:
        if not journal.planned:
            assert not saved
            for _ in journal.plan(mixed(count)):
                pass
        _check(journal, saved)
        _settle(journal, saved)
        _check(journal, saved)
        counts = journal.counts()
    return {"stage": stage, "error": error, "beside": beside(path), "total": counts.total, "left": counts.left}


def _settle(journal: Journal, saved: dict[int, State], most: int = sys.maxsize) -> None:
    """Settle rows, and note what was saved."""
    for _ in range(most):
        lines = [row.line for row in journal.unsettled(0, 40)]
        if not lines:
            return
        journal.save(Changes(sending=lines, at=1000))
        failed = lines[::5]
        done = [line for line in lines if line not in failed]
        journal.save(Changes(done=done, failed=[(line, 10007, LONG) for line in failed]))
        saved.update(dict.fromkeys(done, State.DONE) | dict.fromkeys(failed, State.FAILED))


def _check(journal: Journal, saved: dict[int, State]) -> None:
    """What was saved is there."""
    with reading(journal.path) as db:
        there = dict(db.execute("SELECT line, state FROM row"))
    assert {line: there[line] for line in saved} == saved


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
