"""Journals that an attacker has changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_in import StandIn, client_of, ok
from tim_async._plaintext import is_unsafe
from tim_async.migrate import (
    READ,
    JournalError,
    Row,
    SqliteStore,
    Store,
    read_status,
    render,
    run,
    verify,
    write_rejects,
)
from tim_async.migrate._recorder import Series, Slot
from tim_async.migrate._store import About, Calls, Outcome, Pace, RowState

from .storing import FINGERPRINT, Rows, ram_folder

NASTY = "<script>\x1b]0;x\x07\x9b2J\u202e\r\n"
LONG = {"a long number": "1" + "0" * 5000, "a deep list": "[" * 5000, "a long text": "x" * 100_000}
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([NASTY, json.dumps(NASTY), "[]", "{}", "[1]", '{"sent": "x"}', "true", '"x"', "NaN", *LONG]),
)
PLACES = [
    *(("problem", column) for column in ("line", "code", "field", "reason", "found")),
    *(("row", column) for column in ("line", "state", "first", "second", "third", "fourth")),
    *(("claim", column) for column in ("line", "since")),
    *(("session", column) for column in ("started", "ended", "how", "series", "calls")),
    *((f"note WHERE name = '{name}'", "value") for name in ("pace", "notes")),
    *(
        (f"about WHERE name = '{name}'", "value")
        for name in ("kind", "source", "fingerprint", "arguments", "sdk_app_id", "base_url", "planned")
    ),
]


SOURCE = "/data/reads.csv"


def read() -> Iterator[Row]:
    raise AssertionError("the rows are planned")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal with rows in each of its tables."""
    path = tmp_path_factory.mktemp("hostile") / "journal"

    async def main() -> None:
        store: Store = SqliteStore(path)
        await store.open(About("read", SOURCE, "", {}, 1400000000, "http://127.0.0.1"))
        await store.plan([Row(line, ("a", f"p{line}", 1700000000, 0)) for line in range(2, 8)])
        await store.planned(FINGERPRINT)
        await store.exchange([], 4, Calls(sent=3))
        await store.exchange(
            [
                Outcome(2, RowState.DONE),
                Outcome(3, RowState.FAILED, 10007, "no"),
                Outcome(4, RowState.FAILED, None, "no"),
            ],
            0,
            Calls(sent=3),
        )
        await store.save_series(Series(1000.0, slots=[Slot(1)]).to_json())
        await store.note("notes", "{}")
        await store.set_pace(Pace(rate=50.0))
        await store.close("limit")

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as db:
        db.execute("""INSERT INTO problem VALUES (7, NULL, 'Peer_Account', 'is empty', '{"Peer_Account": ""}')""")
        db.execute("UPDATE row SET state = 4 WHERE line = 7")
        db.commit()
    return path.read_bytes()


def tampered(path: Path, content: bytes, where: str, column: str, value: object) -> bool:
    """Write a journal with a value in one place; return False if the table refuses it."""
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as db:
        table, _, condition = where.partition(" WHERE ")
        row = condition or f"rowid = (SELECT max(rowid) FROM {table})"
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {row}", (LONG.get(str(value), value),))
            db.commit()
            return True
    return False


async def use(path: Path, service: StandIn) -> None:
    """Use the journal in every way."""
    with contextlib.suppress(JournalError):
        page = render(read_status(path))
        assert "<script>" not in page
        assert not [sign for sign in page if is_unsafe(sign) and sign != "\n"]
    to = path.with_name("rejected.jsonl")
    with contextlib.suppress(JournalError):
        write_rejects(path, to)
        for line in to.read_text(encoding="utf-8").splitlines():
            assert {"Line", "Code", "Reason"} <= json.loads(line, parse_constant=pytest.fail).keys()
    async with client_of(service) as tim:
        for events in (verify(tim, path), run(tim, Rows(read, READ, SOURCE), path, group_check=False, max_outage=1)):
            with contextlib.suppress(JournalError):
                async with contextlib.aclosing(events):
                    async for _ in events:
                        pass


@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_in_any_place(good: bytes, place: tuple[str, str], value: object) -> None:
    """It is escaped, or the journal is refused as damaged; no other exception, no markup and no control character."""

    async def main(path: Path) -> None:
        async with StandIn(answer=lambda _: ok(C2CUnreadMsgNumList=[])) as service:
            if "base_url" not in place[0]:
                with closing(sqlite3.connect(path)) as db:
                    db.execute("UPDATE about SET value = ? WHERE name = 'base_url'", (json.dumps(service.url),))
                    db.commit()
            await use(path, service)

    with ram_folder() as folder:
        path = folder / "journal"
        if tampered(path, good, *place, value):
            asyncio.run(main(path))
