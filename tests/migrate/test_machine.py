"""Random sequences of runs, kills, edits, corrections, limits, restarts and other files, on each store.

The model has the current value of each line.  Of the lines of one member the last valid one is to be sent; a line that
the service has accepted is never sent again.  The invariants:

- the service ends with the values of the model; nothing is lost;
- no value overwrites that of a later line, or a later edit of the same line;
- a rejected file that was edited is never changed;
- another file is refused, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.hypotheses import at_most
from tests.stand_in import Action, Seen, StandIn, client_of, error, ok
from tests.store import Store as Valkey
from tim_async.migrate import (
    UNREAD,
    FileSource,
    Finished,
    JournalMismatch,
    MemoryStore,
    MendedSource,
    SqliteStore,
    Store,
    run,
)
from tim_async.migrate._rejects import write_problems

MEMBERS = ("ann", "bob", "zoe", "absent")
"""The service refuses the last."""
VERSIONS = 100

Value = tuple[str, int] | None
"""A member and the edit of its line; None for a line that is invalid."""

lines = st.lists(st.one_of(st.none(), st.sampled_from(MEMBERS)), min_size=1, max_size=8)


class Migration(RuleBasedStateMachine):
    """A journal, its file and a service."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(self.enter(tempfile.TemporaryDirectory()))
        self.file = self.folder / "counts.csv"
        self.rejected = self.folder / "rejected.jsonl"
        self.edits: dict[Path, bytes] = {}
        self.versions = itertools.count(1)
        self.killed_at = 0
        self.accepted: dict[str, int] = {}
        self.done: set[int] = set()
        self.rows: dict[int, Value] = {}
        self.settled = False
        self.service = StandIn()
        self.service.answer = self.answer
        self.runner.run(self.service.__aenter__())

    def enter(self, context: Any) -> Any:
        self.contexts = getattr(self, "contexts", contextlib.ExitStack())
        return self.contexts.enter_context(context)

    def teardown(self) -> None:
        self.runner.run(self.service.__aexit__(None, None, None))
        self.runner.close()
        self.contexts.close()

    def store(self) -> Store:
        """Open the journal's store as a new process would."""
        raise NotImplementedError

    # The service

    def answer(self, seen: Seen) -> Action:
        body = seen.json
        member, number = body["Member_Account"], body["UnreadMsgNum"]
        line = number // VERSIONS
        self.killed_at -= 1
        if member == "absent":
            return error(10019, "no such account")
        assert self.accepted.get(member, 0) <= number, "an older value overwrote a newer one"
        assert self.rows[line] == (member, number % VERSIONS), "an outdated value was sent"
        self.accepted[member] = number
        self.done.add(line)
        return ok()

    # The model

    def superseded(self, line: int) -> bool:
        row = self.rows[line]
        return row is not None and any(
            later is not None and later[0] == row[0] for other, later in self.rows.items() if other > line
        )

    def write(self, members: list[str | None]) -> None:
        """Write a file of rows for these members."""
        self.rows = {}
        text = ["GroupId,Member_Account,UnreadMsgNum"]
        for line, member in enumerate(members, 2):
            version = next(self.versions) % VERSIONS
            self.rows[line] = None if member is None else (member, version)
            text.append("g,ann,?" if member is None else f"g,{member},{line * VERSIONS + version}")
        self.file.write_text("\n".join([*text, ""]))
        self.done.clear()
        self.accepted.clear()

    # Actions of a user

    @initialize(members=lines)
    def begin(self, members: list[str | None]) -> None:
        self.write(members)

    @rule()
    def run_to_the_end(self) -> None:
        end = self.migrate()
        assert end is not None
        assert not end.counts.left
        self.settled = True

    @rule(limit=st.integers(1, 3))
    def run_a_few(self, limit: int) -> None:
        self.migrate(limit=limit)

    @rule(calls=st.integers(1, 6))
    def run_and_kill(self, calls: int) -> None:
        self.killed_at = calls
        self.migrate(killed=True)

    @rule(members=lines)
    def start_over(self, members: list[str | None]) -> None:
        self.write(members)
        self.migrate(restart=True)

    @precondition(lambda self: self.settled)
    @rule()
    def give_another_file(self) -> None:
        before = len(self.service.seen)
        other = self.folder / "other.csv"
        other.write_text("GroupId,Member_Account,UnreadMsgNum\ng,ann,7\n")
        with pytest.raises(JournalMismatch, match="--restart"):
            self.migrate(file=other)
        assert len(self.service.seen) == before

    @precondition(lambda self: self.rejected.exists())
    @rule(data=st.data())
    def edit_the_rejected_file(self, data: st.DataObject) -> None:
        """Correct some rows, make others invalid, and delete some."""
        newest = max(self.rejected_files(), key=lambda path: path.stat().st_mtime_ns)
        documents = []
        for text in filter(str.strip, newest.read_text().splitlines()):
            document = json.loads(text)
            match data.draw(st.sampled_from(["leave", "correct", "spoil", "delete"])):
                case "correct":
                    member = data.draw(st.sampled_from(MEMBERS))
                    number = document["Line"] * VERSIONS + next(self.versions) % VERSIONS
                    documents.append({**document, "GroupId": "g", "Member_Account": member, "UnreadMsgNum": number})
                case "spoil":
                    documents.append({**document, "UnreadMsgNum": "many"})
                case "leave":
                    documents.append(document)
        newest.write_text("".join(json.dumps(document) + "\n" for document in documents) + " ")
        self.edits[newest] = newest.read_bytes()

    @precondition(lambda self: self.edits)
    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        """Use any file that was ever edited; an old one does not change rows that have been sent since."""
        edited = data.draw(st.sampled_from(sorted(self.edits)))
        for text in edited.read_text().split("\n"):
            if text.strip():
                self.take(json.loads(text))
        self.migrate(mended=edited)

    def take(self, document: dict[str, Any]) -> None:
        line = document["Line"]
        if line in self.rows and line not in self.done and not self.superseded(line):
            member, number = document.get("Member_Account"), document.get("UnreadMsgNum")
            valid = isinstance(number, int) and isinstance(member, str)
            self.rows[line] = (str(member), int(number or 0) % VERSIONS) if valid else None

    # Helpers

    def migrate(
        self, *, file: Path | None = None, mended: Path | None = None, killed: bool = False, **options: Any
    ) -> Any:
        if mended is not None and not mended.read_text().strip():
            return None
        end = self.runner.run(asyncio.wait_for(self._migrate(file or self.file, mended, killed, options), 30))
        self.settled = self.settled or end is not None
        self.runner.run(self.write_rejected())
        return end

    async def _migrate(self, file: Path, mended: Path | None, killed: bool, options: dict[str, Any]) -> Finished | None:
        given = None if mended is None else MendedSource(mended, UNREAD)
        async with client_of(self.service, rates={"set_unread_msg_num": 5000}) as tim:
            events = run(
                tim, FileSource(file, UNREAD), self.store(), mended=given, group_check=False, concurrency=2, **options
            )
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Finished):
                        return event
                    if killed and self.killed_at <= 0:
                        return None
        return None

    async def write_rejected(self) -> None:
        store = self.store()
        problems = [problem async for problem in store.problems()]
        files = [self.rejected, *self.rejected_files()]
        notes = {name: await store.note(name) for name in (f"rejected:{path.resolve()}" for path in files)}
        new: dict[str, str] = {}

        def note(name: str, value: str | None) -> str:
            if value is not None:
                new[name] = value
            return notes.get(name, "")

        write_problems(problems, self.rejected, note)
        for name, value in new.items():
            await store.note(name, value)
        await store.close()

    def rejected_files(self) -> Iterator[Path]:
        return self.folder.glob("rejected*.jsonl")

    # Invariants

    @invariant()
    def no_edit_is_destroyed(self) -> None:
        for path, content in self.edits.items():
            assert path.read_bytes() == content

    @invariant()
    def the_service_has_the_last_values(self) -> None:
        if not self.settled:
            return
        self.runner.run(self.check())

    async def check(self) -> None:
        store = self.store()
        status = await store.status()
        await store.close()
        if status.counts.left:
            return
        assert status.counts.total == len(self.rows)
        assert status.counts.rejected == sum(row is None for row in self.rows.values())
        for member in MEMBERS[:-1]:
            of_member = [line for line, row in self.rows.items() if row is not None and row[0] == member]
            if of_member:
                number = self.rows[max(of_member)]
                assert number is not None
                assert self.accepted[member] == max(of_member) * VERSIONS + number[1]


class OnSqlite(Migration):
    def store(self) -> Store:
        return SqliteStore(self.folder / "journal")


class InMemory(Migration):
    def store(self) -> Store:
        if not hasattr(self, "kept"):
            self.kept = MemoryStore()
        return self.kept


SETTINGS = settings(at_most(20), stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("machine", [OnSqlite, InMemory])
def test_any_sequence_in_one_process(machine: type[Migration]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)


def test_any_sequence_on_a_shared_store(tmp_path: Path) -> None:
    from tim_async.migrate._redis import RedisStore

    with Valkey(tmp_path) as valkey:

        class Shared(Migration):
            def store(self) -> Store:
                self.name = getattr(self, "name", uuid.uuid4().hex)
                return RedisStore(valkey.url, self.name)

        run_state_machine_as_test(Shared, settings=SETTINGS)
