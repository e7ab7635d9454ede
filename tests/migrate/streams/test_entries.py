"""Entries that cannot be rows, and entries that load did not put there: each is rejected once, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stand_in import Seen, StandIn, failure_of, ok
from tests.store import Store
from tim_async.migrate import KINDS, Counts, Ended, FileSource, Finished, RowFailed
from tim_async.migrate.streams import StoreError, read_fleet, write_fleet_rejects
from tim_async.migrate.streams.about import StreamAbout
from tim_async.migrate.streams.store import Store as Stream

from .fleet import key, loaded, looking, of, write
from .test_working import finished, working

GOOD: dict[str, list[Any]] = {"unread": ["g", "m", 3], "read": ["a", "b", 1700000000, None]}

BAD_IDS: list[Any] = [None, "", 1.5, True, [], {}, " a", "a\n", "x" * 1001, "caf\udce9", {"a": 1}]
BAD_NUMBERS: list[Any] = [None, -1, 10**30, 2**63, "three", "1_000", 1.5, True, [], "٣"]
BAD_TIMES: list[Any] = [-1, 10**30, "yesterday", "2025-08-31T09:00:00", 1700000000000, 1.5, True, []]


def with_one_bad(kind: str) -> st.SearchStrategy[str]:
    """A good row with one bad field."""
    numbers = BAD_NUMBERS if kind == "unread" else BAD_TIMES
    bad = st.one_of(
        st.tuples(st.sampled_from([0, 1]), st.sampled_from(BAD_IDS)),
        st.tuples(st.just(2), st.sampled_from(numbers)),
    )

    def changed(change: tuple[int, Any]) -> str:
        values = [*GOOD[kind]]
        values[change[0]] = change[1]
        return json.dumps(values, ensure_ascii=False)

    return bad.map(changed)


# Never a list of as many values as a row has.
JUNK = st.one_of(
    st.text(max_size=20).map(lambda text: "{" + text),
    st.sampled_from(["", "null", "1", "[]", "{}", '"v"', '["g","m"]', "[1,2,3,4,5]", "[" * 5000, "NaN", "[NaN,1,1]"]),
    st.integers(4301, 5000).map("9".__mul__),
    st.binary(min_size=1, max_size=20).map(lambda data: "\x00" + data.decode("utf-8", "surrogateescape")),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[str], int, list[dict[bytes, bytes]]]:
    """A kind, the bad entries of a load, how many good ones there are, and what somebody else adds."""
    kind = draw(st.sampled_from(["unread", "read"]))
    bad = draw(st.lists(st.one_of(JUNK, with_one_bad(kind)), max_size=5))
    fields = st.dictionaries(st.sampled_from([b"v", b"p", b"x", b"\xff"]), st.binary(max_size=10), min_size=1)
    valid = st.just({b"v": json.dumps(GOOD[kind]).encode()})
    return kind, bad, draw(st.integers(0, 3)), draw(st.lists(st.one_of(fields, valid), max_size=4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples."""
    with Store(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@given(drawn=streams())
@settings(max_examples=30)
def test_garbage(shared: Store, tmp_path: Path, drawn: tuple[str, list[str], int, list[dict[bytes, bytes]]]) -> None:
    """Good rows are sent, everything else is rejected with its reason, and nothing is left on the stream."""
    asyncio.run(garbage(shared.url, tmp_path / "rejected.jsonl", *drawn))


async def garbage(url: str, to: Path, kind: str, bad: list[str], good: int, foreign: list[dict[bytes, bytes]]) -> None:
    packed = [json.dumps(["g", f"m{number}", *GOOD[kind][2:]]) for number in range(good)]
    texts = [text for pair in zip(bad, packed, strict=False) for text in pair]
    texts += bad[len(packed) :] + packed[len(bad) :]
    async with looking(url) as redis, Stream(url, "migration") as stream:
        await redis.flushdb()
        about = StreamAbout("id", kind, "-", "f" * 64, {}, rows=len(texts))
        stream.of(await stream.begin(about, replace=False))
        lines = range(2, 2 + len(texts))
        await stream.load(0, 1 + len(texts), [(*row, False) for row in zip(lines, texts, strict=True)], [])
        await stream.complete()
        for fields in foreign:
            await redis.xadd(key("rows"), fields)
        async with StandIn() as service:
            events = await working(service, url, concurrency=3, max_errors=None)
        assert await redis.xlen(key("rows")) == 0
        assert (await redis.xpending(key("rows"), "workers"))["pending"] == 0
    assert service.violations == []
    rejected = len(bad) + len(foreign)
    counts = Counts(done=good, rejected=rejected)
    failures: dict[int | None, int] = {None: rejected} if rejected else {}
    ended = Ended.DONE if texts or foreign else Ended.NOTHING_TO_DO
    assert finished(events) == Finished(counts, ended, failures)
    assert len(of(RowFailed, events)) == rejected
    assert len(service.bodies) == good
    fleet = await read_fleet(url)
    assert (fleet.status.counts, fleet.missing) == (counts, 0)
    assert sum(failure.rows for failure in fleet.status.failures if failure.rejected) == rejected
    assert await write_fleet_rejects(url, to) == rejected
    documents = read(to) if rejected else []
    assert all(document["Reason"] and document["Code"] is None for document in documents)
    assert sum("no row that load put" in document["Reason"] for document in documents) == len(foreign)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_reasons(tmp_path: Path, store: Store, service: StandIn) -> None:
    """They are those of rows of a file, and name the field."""
    texts = {
        '["g","m",1]': "",
        '["","m",1]': "GroupId: is empty",
        '["g","m",1000000000000000000000000000000]': "UnreadMsgNum: is too large: no service counts that far",
        '["g","m","x"]': "UnreadMsgNum: is not a whole number: 'x'",
        '["caf\udce9","m",1]': "GroupId: is not UTF-8: 'caf\\udce9'",
        "[1,2]": "is no list of 3 values: '[1,2]'",
        "{": "is not JSON: '{'",
    }
    async with looking(store.url) as redis, Stream(store.url, "migration") as stream:
        stream.of(await stream.begin(StreamAbout("id", "unread", "-", "f" * 64, {}, rows=7), replace=False))
        await stream.load(0, 8, [(line, text, False) for line, text in enumerate(texts, 2)], [])
        await stream.complete()
        await redis.xadd(key("rows"), {"foo": "bar"}, id="9-5")
    events = await working(service, store.url)
    assert finished(events).counts == Counts(done=1, rejected=7)
    reasons = [*filter(None, texts.values()), "is no row that load put on the stream, but entry 9-5 of something else"]
    assert sorted(event.reason for event in of(RowFailed, events)) == sorted(reasons)
    to = tmp_path / "rejected.jsonl"
    await write_fleet_rejects(store.url, to)
    documents = read(to)
    assert [document["Reason"] for document in documents] == reasons
    assert [document["Line"] for document in documents] == [3, 4, 5, 6, 7, 8, 9]
    assert documents[1]["UnreadMsgNum"] == 10**30


async def test_a_row_without_its_time(store: Store, service: StandIn) -> None:
    """A time is drawn once by the store, or the row is not sent: a worker's own would differ from another's."""
    async with looking(store.url) as redis, Stream(store.url, "migration") as stream:
        stream.of(await stream.begin(StreamAbout("id", "read", "-", "f" * 64, {}, rows=3), replace=False))
        text = '["a","b",null,null]'
        await stream.load(0, 4, [(2, text, False), (3, text, True), (4, text, True)], [])
        await stream.complete()
        await redis.hset(key("pins"), "3-0", "nonsense")
    events = await working(service, store.url)
    assert finished(events).counts == Counts(done=1, rejected=2)
    assert {event.line for event in of(RowFailed, events)} == {2, 3}


async def test_too_many_of_them(store: Store, service: StandIn) -> None:
    """They count as errors."""
    async with Stream(store.url, "migration") as stream:
        stream.of(await stream.begin(StreamAbout("id", "unread", "-", "f" * 64, {}, rows=50), replace=False))
        await stream.load(0, 51, [(line, "{", False) for line in range(2, 52)], [])
        await stream.complete()
    end = finished(await working(service, store.url, concurrency=4, max_errors=5))
    assert end.ended is Ended.LIMIT
    assert 6 <= end.counts.rejected <= 10


async def test_foreign_entries_hide_no_row(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A stream is done when its last row is, however many entries of others had an outcome before."""
    rows = [("g", f"m{number}", "1") for number in range(6)]
    await loaded(write(tmp_path / "counts.csv", rows), store.url)
    async with looking(store.url) as redis:
        for _ in range(6):
            await redis.xadd(key("rows"), {"v": '["g","m0",9]'})
        await redis.xreadgroup("workers", "dead", {key("rows"): ">"}, count=6)
    seen: list[Any] = []

    def answer(request: Seen) -> Any:
        seen.append(request.json["UnreadMsgNum"])
        return ok()

    service.answer = answer
    end = finished(await working(service, store.url, lease=0.5))
    assert end == Finished(Counts(done=6, rejected=6), Ended.DONE, {None: 6})
    assert seen == [1] * 6


async def test_foreign_entries_before_the_load_is_complete(tmp_path: Path, store: Store) -> None:
    """No row can be put behind them: the load says so, and how to go on."""
    file = write(tmp_path / "counts.csv", [("g", "m", "1")])
    async with looking(store.url) as redis, Stream(store.url, "migration") as stream:
        with FileSource(file, KINDS["unread"]) as source:
            about = StreamAbout("id", "unread", str(file), source.fingerprint(), dict(source.arguments), rows=1)
        await stream.begin(about, replace=False)
        await redis.xadd(key("rows"), {"v": "x"})
    raised = await failure_of(loaded(file, store.url))
    assert isinstance(raised, StoreError)
    assert "something other than load has added entries" in str(raised)
    assert "--name" in str(raised)


def test_every_kind_is_drawn() -> None:
    assert set(GOOD) == set(KINDS)
