"""Loading: what is on the stream, what is refused, and what is said of a store that may lose it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import failure_of
from tests.store import Store
from tim_async.migrate import READ, UNREAD, Counts, FileSource, SourceError
from tim_async.migrate._kinds import kind_of
from tim_async.migrate.streams import Loaded, Loading, StoreError, StreamMismatch, load, write_fleet_rejects
from tim_async.migrate.streams.about import StreamAbout
from tim_async.migrate.streams.store import Store as Stream

from .fleet import key, loaded, looking, write

ROWS = [("g", "a", "1"), ("g", "b", "2"), ("g", "", "3"), ("g", "a", "4")]


async def test_what_is_on_the_stream(tmp_path: Path, store: Store) -> None:
    """The last row of each member, by its line; and the rejected ones, beside it and in a file."""
    file = write(tmp_path / "counts.csv", ROWS)
    rejected = tmp_path / "rejected.jsonl"
    found = await loaded(file, store.url, rejected=rejected)
    assert (found.complete, found.before, found.loaded) == (True, False, 2)
    assert found.counts == Counts(pending=2, rejected=1, superseded=1)
    async with looking(store.url) as redis:
        entries = await redis.xrange(key("rows"))
    assert entries == [("3-0", {"v": '["g","b",2]'}), ("5-0", {"v": '["g","a",4]'})]
    (document,) = map(json.loads, rejected.read_text().splitlines())
    assert (document["Line"], document["Reason"]) == (4, "Member_Account: is empty")
    again = tmp_path / "again.jsonl"
    assert await write_fleet_rejects(store.url, again) == 1
    assert again.read_text() == rejected.read_text()
    assert (await loaded(file, store.url)).before
    # A load that was killed before it came to writing them: the next one does, unless somebody is mending them.
    for text in ("mended", None):
        rejected.write_text("mended") if text else rejected.unlink()
        assert (await loaded(file, store.url, rejected=rejected)).before
        assert rejected.read_text() == (text or again.read_text())


async def test_two_at_once(tmp_path: Path, store: Store) -> None:
    """Two loads of one file put each row there once."""
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(6000)])
    both = await asyncio.gather(*(loaded(file, store.url) for _ in range(2)))
    assert [one.complete for one in both] == [True, True]
    async with looking(store.url) as redis:
        assert await redis.xlen(key("rows")) == 6000


async def test_a_stop(tmp_path: Path, store: Store) -> None:
    """A load that is stopped goes on where it was."""
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(6000)])
    stop = asyncio.Event()
    with FileSource(file, UNREAD) as source:
        async with contextlib.aclosing(load(source, store.url, stop=stop)) as events:
            async for event in events:
                if isinstance(event, Loading):
                    stop.set()
    assert isinstance(event, Loaded)
    assert not event.complete
    assert 0 < event.loaded < 6000
    assert (await loaded(file, store.url)).loaded == 6000


async def test_a_store_that_went_back(tmp_path: Path, store: Store) -> None:
    """A loader that believes more to be there than there is puts the rest there once more."""
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(3000)])
    with FileSource(file, UNREAD) as source:
        async with contextlib.aclosing(load(source, store.url)) as events, looking(store.url) as redis:
            back = False
            async for event in events:
                if isinstance(event, Loading) and not back and event.loaded < 2500:
                    back = True
                    # As after a restart that lost the last second: rows and position, both or neither.
                    async with redis.pipeline(transaction=True) as pipe:
                        pipe.delete(key("rows"))
                        pipe.xgroup_create(key("rows"), "workers", "0", mkstream=True)
                        pipe.hset(key("about"), mapping={"position": 1, "loaded": 0})
                        await pipe.execute()
            assert back
            assert isinstance(event, Loaded)
            assert event.complete
            lines = [int(id_.partition("-")[0]) for id_, _ in await redis.xrange(key("rows"))]
    assert lines == list(range(2, 3002))


async def test_something_else(tmp_path: Path, store: Store) -> None:
    """Another file, app or other arguments are refused, unless the stream is to be dropped or has another name."""
    file = write(tmp_path / "counts.csv", ROWS)
    other = write(tmp_path / "other.csv", ROWS[:2])
    app: dict[str, Any] = {"sdk_app_id": 1400000000, "base_url": "https://a.example"}
    await loaded(file, store.url, **app)
    for options, says in (
        ({}, "is of another file"),
        ({"file": file, **app, "sdk_app_id": 7}, "is of app 1400000000, and this is app 7"),
    ):
        raised = await failure_of(loaded(**{"file": other, "url": store.url, **options}))
        assert isinstance(raised, StreamMismatch)
        assert says in str(raised)
        assert "2 of its 2 rows have no outcome yet" in str(raised)
        assert "--name" in str(raised)
        assert "--replace" in str(raised)
    with FileSource(file, UNREAD, id_formats={"GroupId": "x{}"}) as source:
        async with contextlib.aclosing(load(source, store.url)) as events:
            raised = await failure_of(anext(events))
    assert isinstance(raised, StreamMismatch)
    assert "other arguments" in str(raised)
    assert (await loaded(other, store.url, name="other")).loaded == 2
    assert (await loaded(other, store.url, replace=True)).loaded == 2
    async with looking(store.url) as redis:
        assert [id_ for id_, _ in await redis.xrange(key("rows"))] == ["2-0", "3-0"]
        assert await redis.exists(key("rejected")) == 0
    # The same file again, with the same option: nothing is dropped.
    assert (await loaded(other, store.url, replace=True)).before


async def test_keys_of_something_else(tmp_path: Path, store: Store) -> None:
    """They are left alone, and said to be it."""
    file = write(tmp_path / "counts.csv", ROWS)
    async with looking(store.url) as redis:
        for what, says in (("about", "is of something else"), ("rows", "is damaged")):
            await redis.flushdb()
            await redis.set(key(what), "precious")
            raised = await failure_of(loaded(file, store.url))
            assert isinstance(raised, StoreError)
            assert says in str(raised)
            assert await redis.get(key(what)) == "precious"
            assert await redis.dbsize() == 1
        await redis.flushdb()
        await redis.hset(key("about"), mapping={"version": 2})
        assert "another version" in str(await failure_of(loaded(file, store.url)))


async def test_a_file_that_changes(tmp_path: Path, store: Store) -> None:
    """What was planned is what is loaded, or nothing more is."""
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(3000)])
    with FileSource(file, UNREAD) as source:
        async with contextlib.aclosing(load(source, store.url)) as events:
            async for event in events:
                if not isinstance(event, Loading):
                    write(file, [("g", f"other{number}", "1") for number in range(3000)])
                    break
            raised = await failure_of(drained(events))
    assert isinstance(raised, SourceError)


async def drained(events: Any) -> None:
    async for _ in events:
        pass


async def test_a_store_that_cannot_be_used(tmp_path: Path, store: Store) -> None:
    """Each in one line, without the password."""
    file = write(tmp_path / "counts.csv", ROWS)
    async with looking(store.url) as redis:
        await redis.config_set("requirepass", "s3cret")
        raised = [
            await failure_of(loaded(file, store.url)),
            await failure_of(loaded(file, store.url.replace("//", "//:wr0ng@"))),
        ]
        assert (await loaded(file, store.url.replace("//", "//:s3cret@"))).complete
        await redis.execute_command("AUTH", "s3cret")
        await redis.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read")
        raised.append(await failure_of(loaded(file, store.url.replace("//", "//reader:pw@"))))
    store.kill()
    raised.append(await failure_of(loaded(file, store.url.replace("//", "//:s3cret@"))))
    for one in raised:
        assert isinstance(one, StoreError)
        assert f"the store at {store.url}" in str(one)
        assert "\n" not in str(one)
        assert not any(secret in str(one) for secret in ("s3cret", "wr0ng", "pw@"))
    assert ["refuses" in str(one) for one in raised] == [True, True, True, False]
    assert "cannot reach" in str(raised[3])


async def test_whether_the_store_keeps_it(tmp_path: Path) -> None:
    """One warning when it may lose rows; none when it keeps an append-only file, which then has them."""
    file = write(tmp_path / "counts.csv", ROWS)
    with Store(tmp_path / "a") as store:
        assert "keeps no append-only file" in (await loaded(file, store.url)).warning
        async with looking(store.url) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
        warning = (await loaded(file, store.url, name="b")).warning
        assert "keeps no append-only file" in warning
        assert "allkeys-lru" in warning
    with Store(tmp_path / "b", appendonly="yes") as store:
        assert (await loaded(file, store.url)).warning == ""
        store.kill()
        store.start()
        assert (await loaded(file, store.url)).before


async def test_one_hash_tag(tmp_path: Path, store: Store) -> None:
    """All keys of a stream are in one slot of a cluster; those of another name are not theirs."""
    file = write(tmp_path / "counts.csv", ROWS)
    await loaded(file, store.url, name="one")
    await loaded(file, store.url, name="two")
    async with looking(store.url) as redis:
        keys = await redis.keys("*")
        assert {name.split("{")[1].split("}")[0] for name in keys} == {"migration:one", "migration:two"}
        for name in ("one", "two"):
            slots = {await redis.cluster("KEYSLOT", found) for found in keys if f"{{migration:{name}}}" in found}
            assert len(slots) == 1


async def test_an_answer_that_was_lost(store: Store) -> None:
    """Each step bears being carried out twice."""
    about = StreamAbout("id", "read", "-", "f" * 64, {}, rows=2)
    async with Stream(store.url, "s") as stream:
        stream.of(await stream.begin(about, replace=False))
        assert (await stream.begin(about, replace=False)).id == "id"
        for _ in range(2):
            upto, state = await stream.load(0, 3, [(2, '["a","b",null]', True), (3, '["c","d",5]', False)], [(1, "{}")])
            assert (upto, state.loaded, state.length) == (3, 2, 2)
        for _ in range(2):
            assert (await stream.complete()).complete
        rows, _ = await stream.take("x", 5, 10.0)
        assert [row[:2] for row in rows] == [("2-0", ["v", '["a","b",null]', "p", "1"]), ("3-0", ["v", '["c","d",5]'])]
        assert (await stream.take("y", 5, 10.0))[0] == []
        # Taken over, a row keeps its time.
        again, _ = await stream.take("y", 5, 0.0)
        assert again == rows
        assert rows[0].pin
        assert rows[1].pin == ""
        outcomes = [("2-0", "failed", "5", "why", "{}"), ("3-0", "done", "", "", "")]
        assert [(await stream.record(outcomes))[0] for _ in range(2)] == [2, 0]
        _, state = await stream.record([("2-0", "done", "", "", "")])
        assert (state.done, state.failed, state.length, state.sending) == (1, 1, 0, 0)
        assert state.over


async def test_a_load_is_not_complete_without_its_rows(store: Store) -> None:
    """Whether they were never put on the stream, or are there no more."""
    async with Stream(store.url, "s") as stream:
        stream.of(await stream.begin(StreamAbout("id", "read", "-", "f" * 64, {}, rows=2), replace=False))
        await stream.load(0, 2, [(2, '["a","b",1]', False)], [])
        assert "1 row of the stream s" in str(await failure_of(stream.complete()))
        await stream.load(2, 3, [(3, '["c","d",1]', False)], [])
        async with looking(store.url) as redis:
            await redis.xdel(key("rows", "s"), "2-0")
        assert isinstance(await failure_of(stream.complete()), StoreError)
        assert await stream.look() == StreamAbout("id", "read", "-", "f" * 64, {}, rows=2, position=3)


@pytest.mark.parametrize(
    ("name", "text", "options", "wanted"),
    [
        ("a.csv", "GroupId,Member_Account,UnreadMsgNum\n", {}, UNREAD),
        ("a.csv", "Peer_Account,Report_Account\na,b\n", {}, READ),
        ("a.tsv", "GroupId\tuser\tUnreadMsgNum\n", {"columns": {"Member_Account": "user"}}, UNREAD),
        ("a.jsonl", '{"Report_Account": "a", "Peer_Account": "b"}\n', {}, READ),
        ("a.jsonl", 'nonsense\n{"GroupId": "a", "Member_Account": "", "UnreadMsgNum": 1}\n', {}, UNREAD),
        ("a.csv", "a,b\n1,2\n", {}, None),
        ("a.csv", "GroupId,Member_Account,UnreadMsgNum,Peer_Account,Report_Account\n", {}, None),
        ("a.csv", "", {}, None),
    ],
)
def test_the_kind_is_told(tmp_path: Path, name: str, text: str, options: dict[str, Any], wanted: object) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert kind_of(file, **options) is wanted
