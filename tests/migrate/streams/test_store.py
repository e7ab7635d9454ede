"""A shared store: claims, outcomes, corrections and releases of several workers, and the stored state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.hypotheses import at_most
from tests.migrate.storing import claim, row, settle_as
from tests.migrate.test_store import CASES, OUTCOMES, STATES, of_member
from tests.stand_in import failure_of
from tests.store import Store as Valkey
from tim_async.migrate import Counts, JournalError, JournalMismatch, MemoryStore, Rejected, Row
from tim_async.migrate._recorder import Series, Slot
from tim_async.migrate._redis import DEFAULT_NAME, RedisStore
from tim_async.migrate._redis_link import RedisLink
from tim_async.migrate._redis_reader import LAYOUT
from tim_async.migrate._store import About, Calls, Exchange, Mended, Outcome, Pace, RowState
from tim_async.migrate.streams import read_fleet

from .fleet import ABOUT, expire_leases, key, lines, looking, opened, planned, rejected

KNOWN = replace(ABOUT, fingerprint="f" * 64)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One server for all examples."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


Make = Callable[..., RedisStore]


@pytest.fixture
async def make(store: Valkey) -> AsyncIterator[Make]:
    """Creates stores on this test's server, and closes them."""
    made: list[RedisStore] = []

    def make(name: str = DEFAULT_NAME) -> RedisStore:
        made.append(RedisStore(store.url, name))
        return made[-1]

    yield make
    for one in made:
        await one.close()


# Compared with the store in memory


member = st.one_of(st.none(), st.tuples(st.sampled_from("abé"), st.integers(0, 9)))
steps = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 3), st.lists(st.sampled_from([*OUTCOMES.values()]), max_size=4)),
    st.tuples(st.just("mend"), st.lists(st.tuples(st.integers(1, 12), member), max_size=4)),
    st.tuples(st.just("release"), st.integers(1, 2)),
    st.tuples(st.just("kill")),
)


def made(line: int, values: tuple[str, int] | None) -> Row | Rejected:
    return rejected(line) if values is None else Row(line, ("g", *values))


async def seen(store: RedisStore | MemoryStore) -> Any:
    """Return the whole state of the rows, except claims, which depend on the worker."""
    status = await store.status()
    counts = replace(status.counts, pending=status.counts.left, sending=0)
    by_code = {(found.code, found.rows, found.first_line) for found in status.failures if found.code}
    accepted = [row async for row in store.accepted(0, 100)]
    return counts, [problem async for problem in store.problems()], accepted, by_code


async def claim_lines(memory: MemoryStore, wanted: list[int]) -> list[bool]:
    """Claim exactly these rows, since a shared store has its own order; return whether they were all."""
    free = (await memory.exchange([], 100, Calls())).claims
    await memory.release([one.row.line for one in free if one.row.line not in wanted])
    taken = [one for one in free if one.row.line in wanted]
    assert lines(taken) == wanted
    return [len(taken) == len(free)]


async def compare(url: str, rows: list[Any], todo: list[Any]) -> None:
    memory, store = MemoryStore(), RedisStore(url)
    stores = (memory, store)
    with Redis.from_url(url) as redis:
        redis.flushdb()
    given = [made(line, values) for line, values in enumerate(rows, 2)]
    for one in stores:
        assert await one.open(ABOUT) is None
        for start in range(0, len(given), 3):
            await one.plan(given[start : start + 3])
        await one.planned("f" * 64)
    hand: list[int] = []
    for what, *arguments in todo:
        match what, arguments:
            case "send", [room, states]:
                outcomes = [
                    Outcome(line, state, line % 3 or None, "no" if state is RowState.FAILED else "")
                    for line, state in zip(hand, states, strict=False)
                ]
                await memory.exchange(outcomes, 0, Calls())
                reply = await store.exchange(outcomes, room, Calls())
                wanted = lines(reply.claims)
                assert [reply.exhausted] == await claim_lines(memory, wanted)
                assert len(wanted) == room or reply.exhausted
                hand = sorted([*hand[len(outcomes) :], *wanted])
            case "mend", [found] if not hand:
                mended = [made(*one) for one in found]
                assert await memory.mend(mended) == await store.mend(mended)
            case "release", [many]:
                for one in stores:
                    await one.release(hand[:many])
                hand = hand[many:]
            case "kill", []:
                await memory.close()
                await store.close()
                store = RedisStore(url)
                stores = (memory, store)
                assert [await one.open(KNOWN) for one in stores] == [KNOWN, KNOWN]
                hand = []
        assert await seen(memory) == await seen(store)
    await store.close()


@given(rows=st.lists(member, min_size=1, max_size=8), todo=st.lists(steps, max_size=20))
@at_most(25)
def test_any_sequence_of_calls(shared: Valkey, rows: list[Any], todo: list[Any]) -> None:
    """The state is always that of the store in memory."""
    asyncio.run(compare(shared.url, rows, todo))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [500, 1])
async def test_corrections(shared: Valkey, monkeypatch: pytest.MonkeyPatch, case: str, batch: int) -> None:
    """Of the rows of one member the last is sent, also over batches of many rows."""
    monkeypatch.setattr("tim_async.migrate._redis_reader.BATCH", batch)
    given, outcomes, mended, total, states = CASES[case]
    async with looking(shared.url) as redis:
        await redis.flushdb()
    await planned(shared.url, [of_member(line, name) for line, name in enumerate(given, 2)])
    async with opened(shared.url) as store:
        claimed = lines(await claim(store))
        await store.release([line for line in claimed if line not in outcomes])
        await settle_as(store, {line: OUTCOMES[state] for line, state in outcomes.items()})
    async with opened(shared.url) as store:
        for _ in range(2):
            found = await store.mend([of_member(line, name, 77) for line, name in mended.items()])
            assert found == total or batch == 1 or _ == 1
            assert await store.counts() == Counts(**Counter(STATES[state] for state in states))
        claims = await claim(store)
        assert lines(claims) == [line for line, state in enumerate(states, 2) if state == "p"]
        assert all(one.row.values[2] == 77 for one in claims if one.row.line in mended)
        problems = [problem.line async for problem in store.problems()]
        assert problems == [line for line, state in enumerate(states, 2) if state in "fr"]
        assert (await store.status()).missing == 0


# Several workers


async def test_claims_of_several_workers(store: Valkey) -> None:
    """A claim is exclusive until the lease ends; the next worker sees that the row may have been sent."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 8)])
    async with opened(store.url) as one, opened(store.url) as other:
        (first,) = await claim(one, 1)
        assert (first.row, first.again) == (row(2, "m2"), False)
        reply = await other.exchange([], 9, Calls())
        assert (lines(reply.claims), reply.exhausted, reply.counts.sending) == ([3, 4, 5, 6, 7], False, 6)
        assert reply.counts == Counts(sending=6)
        await other.release([3, 4])
        assert await other.counts() == Counts(sending=4, pending=2)
        # Released unsent, they can be claimed at once, as not sent before.
        taken = await claim(one)
        assert [(claim.row.line, claim.again) for claim in taken] == [(3, False), (4, False)]
        await expire_leases(store.url)
        taken = await claim(other)
        assert [(claim.row.line, claim.again) for claim in taken] == [(2, True), (3, True), (4, True)]
        assert taken[0].since == first.since
        # The first outcome counts; a later one is ignored.
        await settle_as(other, {2: RowState.DONE, 3: RowState.FAILED})
        reply = await settle_as(one, {2: RowState.FAILED, 3: RowState.DONE, 4: RowState.DONE})
        assert reply.counts == Counts(done=2, failed=1, sending=3)
        # Rows that it still holds itself are not claimed again.
        await expire_leases(store.url)
        assert await claim(other) == []
    fleet = await read_fleet(store.url)
    assert sorted(worker.rows for worker in fleet.workers) == [1, 2]
    assert fleet.counts == Counts(done=2, failed=1, pending=3)
    async with opened(store.url) as third:  # a worker that ended may have sent its rows
        assert [(claim.row.line, claim.again) for claim in await claim(third)] == [(5, True), (6, True), (7, True)]


async def test_keep_renews_leases(store: Valkey) -> None:
    """Of the rows that the worker holds, and that no other has taken over."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 5)])
    async with opened(store.url, lease=0.3) as one, opened(store.url) as other, looking(store.url) as redis:
        await claim(one, 2)
        await expire_leases(store.url)
        await claim(other, 1)
        keeping = asyncio.create_task(one.keep())

        async def idle() -> list[int]:
            found = await redis.xpending_range(key("rows"), "workers", "-", "+", 9)
            return [entry["time_since_delivered"] for entry in found]

        while max(await idle()) > 1_000_000:
            pass
        assert [lines(await claim(other, 5)) for _ in range(2)] == [[4], []]
        keeping.cancel()
        await asyncio.wait([keeping])
        await redis.delete(key("about"))
        assert isinstance(await failure_of(one.keep()), JournalError)


async def test_a_correction_waits_for_rows_that_are_being_sent(store: Valkey) -> None:
    """Another worker's older row of the same member must not be sent last."""
    await planned(store.url, [row(2, "a"), rejected(3), row(4, "b"), row(5, "c")])
    async with opened(store.url) as one, opened(store.url) as other:
        await claim(one, 1)
        mended: list[Row | Rejected] = [row(3, "a", 9), row(2, "x"), row(4, "y")]
        assert await other.mend(mended) == Mended(taken=1, busy=(2, 3))
        await expire_leases(store.url)
        assert await other.mend([row(3, "a", 9)]) == Mended(taken=1)
        # Outcomes of superseded or corrected rows are ignored.
        assert (await settle_as(one, {2: RowState.DONE})).counts == Counts(pending=3, superseded=1)
        assert [claim.row for claim in await claim(other)] == [row(5, "c"), row(4, "y"), row(3, "a", 9)]


async def test_lost_replies(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command can be repeated; rows of a lost claim are claimed again after the lease."""
    run = RedisLink.run

    async def twice(self: RedisLink, request: Any) -> Any:
        await run(self, request)
        return await run(self, request)

    monkeypatch.setattr(RedisLink, "run", twice)
    about = replace(ABOUT, sdk_app_id=0, base_url="")
    await planned(store.url, [row(2, "a"), rejected(3), row(4, "a"), row(5, "b"), row(6, "c"), row(7, "d")], about)
    async with opened(store.url) as one:
        reply = await one.exchange([], 2, Calls())
        assert (lines(reply.claims), reply.exhausted) == ([6, 7], False)
        assert reply.counts == Counts(sending=4, rejected=1, superseded=1)
        assert (await settle_as(one, {6: RowState.FAILED})).counts.failed == 1
        await one.release([7])
        assert await one.mend([row(6, "b"), row(3, "z")]) == Mended(taken=1, busy=(6,))
        assert await one.note("a", "x") == "x"
        await expire_leases(store.url)
        assert await one.mend([row(6, "b")]) == Mended(taken=1)
        reply = await one.exchange([], 0, Calls())
        assert reply.counts == Counts(pending=3, sending=1, superseded=2)
        assert lines(await claim(one)) == []  # the repeated claim finds all rows leased by the first
        await expire_leases(store.url)
        monkeypatch.undo()
        assert lines(await claim(one)) == [3, 4, 6, 7]
    fleet = await read_fleet(store.url)
    assert (fleet.workers[0].rows, fleet.sdk_app_id) == (1, ABOUT.sdk_app_id)


# Foreign and invalid entries


JUNK = ['["g","m0","x"]', '["g","m0",-1]', f'["g","m0",{10**30}]', '["g","m0"]', '["g","m0",1,2]', '["g","m0",[]]']
fields = st.dictionaries(st.sampled_from([b"v", b"l", b"x", b"\xff"]), st.binary(max_size=10), min_size=1)


@given(junk=st.lists(st.sampled_from(JUNK), max_size=4), foreign=st.lists(fields, max_size=4), good=st.integers(0, 3))
@at_most(15)
def test_invalid_entries_are_rejected(
    shared: Valkey, junk: list[str], foreign: list[dict[bytes, bytes]], good: int
) -> None:
    """Valid rows are claimed; every other entry is rejected with its reason and removed."""
    texts = [*(json.dumps(["g", f"m{number}", 1]) for number in range(1, good + 1)), *junk]

    def packed(given: Row) -> dict[str, Any]:
        return {"line": given.line, "values": texts[given.line - 2].replace("m0", f"x{given.line}")}

    async def main() -> None:
        async with looking(shared.url) as redis:
            await redis.flushdb()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tim_async.migrate._redis_replies.packed", packed)
                await planned(shared.url, [row(line, "x") for line in range(2, 2 + len(texts))])
            for found in foreign:
                await redis.xadd(key("rows"), found)
            async with opened(shared.url) as store:
                replies = [await store.exchange([], 3, Calls()) for _ in range(len(texts) + len(foreign) + 1)]
                claims = [claim for reply in replies for claim in reply.claims]
                assert lines(claims) == list(range(2, 2 + good))
                found_bad = [one for reply in replies for one in reply.rejected]
                bad = len(junk) + len(foreign)
                assert (len(found_bad), replies[-1].exhausted) == (bad, True)
                assert replies[-1].counts == Counts(sending=good, rejected=bad)
                problems = [problem async for problem in store.problems()]
                assert [problem.line for problem in problems] == sorted(one.line for one in found_bad)
                assert sum("is not a row that was loaded" in problem.reason for problem in problems) == len(foreign)
                status = await store.status()
                assert (sum(one.rows for one in status.failures if one.rejected), status.missing) == (bad, 0)
                # Invalid rows can be corrected; foreign entries cannot.
                mended = await store.mend([row(problem.line, "m") for problem in problems])
                assert (mended.taken + mended.superseded, len(mended.skipped) > 0) == (len(junk), len(foreign) > 0)
            assert await redis.xlen(key("rows")) == good + bool(junk)

    asyncio.run(main())


async def test_an_invalid_row_revives_the_one_before(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    await planned(store.url, [row(2, "a", 5), row(3, "a", 7)])
    monkeypatch.setattr("tim_async.migrate._redis_replies.shown", repr)
    async with opened(store.url) as one:
        async with looking(store.url) as redis:
            await redis.hset(key("claims"), "3", "nonsense")
        (bad,) = (await one.exchange([], 9, Calls())).rejected
        assert (bad.line, "at an invalid time: 'nonsense'" in bad.reason) == (3, True)
        assert [claim.row for claim in await claim(one)] == [row(2, "a", 5)]


async def test_trimmed_rows_are_reported(store: Valkey) -> None:
    """Otherwise the migration would seem complete."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 12)])
    async with opened(store.url) as one, looking(store.url) as redis:
        await claim(one, 1)
        await settle_as(one, {2: RowState.DONE})
        await redis.xtrim(key("rows"), maxlen=7, approximate=False)
        assert lines(await claim(one)) == list(range(5, 12))
        assert "has lost 2 rows without an outcome" in str(await failure_of(claim(one)))
        assert (await one.status()).missing == 3
        # Done rows may be trimmed; a corrected row needs an id behind all others.
        await redis.execute_command("XADD", key("rows"), f"{2**64 - 1}-0", "x", "y")
        assert "another program has added entries" in str(await failure_of(one.mend([row(5, "z")])))


DAMAGE: dict[str, tuple[Any, ...]] = {
    "not a number": ("hset", "counts", {"done": "many"}),
    "an absurd number": ("hset", "counts", {"left": "9" * 40}),
    "a negative number": ("hset", "counts", {"done": -5}),
    "an unknown kind": ("hset", "about", {"kind": '"calls"'}),
    "not JSON": ("hset", "about", {"arguments": "[" * 5000}),
    "an invalid position": ("hset", "about", {"position": "x"}),
    "not loaded": ("hset", "about", {"complete": "0"}),
    "a claim without a time": ("hset", "claims", {"4": "1e999"}),
    "a cycle of superseded rows": ("hset", "replaced", {"3": "3 x", "2": "3 x", "5": "2 x"}),
    "a worker": ("hset", "workers", {"a": "x", "b": '5 5 {"how": 1}', "c": "nan 1 []", "d": "1 1 " + "[" * 3000}),
    "a worker's calls": ("hset", "series", {"a": "x"}),
    "a problem": ("hset", "problems", {"6": "x"}),
    "a foreign problem": ("hset", "problems", {"x-y": "!\0{}"}),
    "a cause": ("sadd", "causes", "!other"),
    "a pace": ("hset", "pace", {"rate": "1 -5", "share": "x"}),
    "outcomes of the last minute": ("hset", "recent", {"x": "y"}),
    "states": ("set", "states", "x" * 20),
    "places": ("zadd", "moved", {"x": 4, "4-0": 9, "1-1": 3}),
    "about": ("set", "about", "x"),
    "rows": ("set", "rows", "x"),
    "counts": ("set", "counts", "x"),
    "claims": ("set", "claims", "x"),
    "problems": ("set", "problems", "x"),
    "moved": ("set", "moved", "x"),
    "workers": ("set", "workers", "x"),
    "no group": ("delete", "rows"),
    "no about": ("delete", "about"),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_store(store: Valkey, make: Make, what: str) -> None:
    """Each call works, or fails with one clear error."""
    await planned(store.url, [row(2, "a"), row(3, "a"), row(4, "b"), row(5, "c"), rejected(6), row(7, "d")])
    async with opened(store.url) as one:
        await claim(one, 2)
        await settle_as(one, {3: RowState.FAILED})
        verb, part, *arguments = DAMAGE[what]
        async with looking(store.url) as redis:
            if verb == "set":
                await redis.delete(key(part))
            options = {"mapping": arguments.pop()} if arguments and isinstance(arguments[0], dict) else {}
            await getattr(redis, verb)(key(part), *arguments, **options)

        async def listed(found: Any) -> None:
            [_ async for _ in found]

        todo: list[Callable[[], Any]] = [
            lambda: one.exchange([], 1, Calls()),
            one.status,
            one.counts,
            lambda: listed(one.problems()),
            lambda: listed(one.accepted(0, 10)),
            lambda: one.mend([row(3, "b"), row(6, "a"), rejected(7)]),
            lambda: one.set_pace(Pace(rate=3.0)),
            lambda: one.note("x", "y"),
            lambda: settle_as(one, {4: RowState.FAILED}),
            lambda: one.exchange([], 9, Calls()),
            lambda: one.counts() if what == "not loaded" else make().join(ABOUT.sdk_app_id, ABOUT.base_url),
        ]
        async with asyncio.timeout(30):
            for step in todo:
                with contextlib.suppress(JournalError):
                    await step()


# Planning


async def test_a_newer_load_replaces_an_unfinished_one(store: Valkey, make: Make) -> None:
    """The older load fails, and none of its rows is left."""
    first, second = make(), make()
    assert await first.open(ABOUT) is None
    await first.plan([row(2, "old"), rejected(3), row(4, "old")])
    assert await second.open(ABOUT) is None
    assert "another load replaced it" in str(await failure_of(first.plan([row(5, "old")])))
    await second.plan([row(9, "new")])
    assert "gone" in str(await failure_of(first.planned("")))
    await second.planned("f" * 64)
    await first.close()
    await second.close()
    async with opened(store.url) as one:
        assert await one.counts() == Counts(pending=1)
        assert [claim.row for claim in await claim(one)] == [row(9, "new")]


async def test_a_store_that_lost_writes_fails_the_load(store: Valkey, make: Make) -> None:
    """As after a restart without the last second of the append-only file; the error says so."""
    one = make()
    await one.open(ABOUT)
    async with looking(store.url) as redis:
        await one.plan([row(2, "a")])
        await redis.hset(key("about"), "position", 0)
        assert "went back to an earlier state" in str(await failure_of(one.plan([row(3, "b")])))
        await redis.hset(key("about"), "position", 2)
        await one.plan([row(3, "b")])
        await redis.xdel(key("rows"), "2-0")
        assert "has lost 1 rows" in str(await failure_of(one.planned("")))
        assert "went back" in str(await failure_of(claim(one)))
        await redis.xadd(key("rows"), {"x": "y"})
        assert "another program has added entries" in str(await failure_of(one.plan([row(4, "b")])))
    await one.close()


async def test_another_migration_is_refused(store: Valkey, make: Make) -> None:
    """A planned one is kept; an app is bound once."""
    unbound = replace(ABOUT, sdk_app_id=0, base_url="")
    await planned(store.url, [row(2, "a")], unbound)
    for other in (
        replace(ABOUT, kind="read"),
        replace(ABOUT, arguments={"delimiter": ","}),
        replace(ABOUT, fingerprint="e" * 64),
    ):
        assert isinstance(await failure_of(make().open(other)), JournalMismatch)
    one = make()
    assert await one.join(ABOUT.sdk_app_id, "https://example.com/") == replace(KNOWN, base_url="https://example.com/")
    wrong = await failure_of(make().join(7, ABOUT.base_url))
    assert isinstance(wrong, JournalMismatch)
    assert "app 1400000000, and this is app 7" in str(wrong)
    await one.close()
    restarted = make()
    assert await restarted.open(replace(ABOUT, kind="read"), restart=True) is None
    await restarted.close()


async def test_foreign_keys_are_kept(store: Valkey, make: Make) -> None:
    """Without --restart; keys of another release are kept even then."""
    async with looking(store.url) as redis:
        for part in ("rows", "counts", "problems"):
            await redis.flushdb()
            await redis.set(key(part), "precious")
            assert "is damaged" in str(await failure_of(make().open(ABOUT)))
            assert await redis.get(key(part)) == "precious"
            again = make()
            assert await again.open(ABOUT, restart=True) is None
            await again.close()
        await redis.flushdb()
        await redis.hset("tim_async:{migration:old}:about", "version", 1)
        # A restart does not remove data that another release may use; this release stores its layout for the others.
        await redis.set("tim_async:{migration:new}:layout", LAYOUT + 1)
        for name, says in (("old", "was loaded by an earlier release"), ("new", "was loaded by a later release")):
            for step in (make(name).open(ABOUT), make(name).open(ABOUT, restart=True), make(name).join(1, "x")):
                assert says in str(await failure_of(step))
        await planned(store.url, [row(2, "a")], name="mine")
        assert await redis.get("tim_async:{migration:mine}:layout") == str(LAYOUT)


async def test_all_keys_are_in_one_slot_and_can_be_dropped(store: Valkey, make: Make) -> None:
    """Another migration has its own."""
    for name in ("one", "two"):
        await planned(store.url, [row(2, "a"), row(3, "a"), rejected(4), row(5, "b")], name=name)
    async with looking(store.url) as redis:
        keys = await redis.keys("*")
        assert {name.split("{")[1].split("}")[0] for name in keys} == {"migration:one", "migration:two"}
        slots = {await redis.cluster("KEYSLOT", name) for name in keys if "{migration:one}" in name}
        assert len(slots) == 1
        one = make("one")
        assert "2 rows of stream one" in str(await failure_of(one.drop()))
        await one.open(ABOUT)
        await claim(one)
        await settle_as(one, {3: RowState.FAILED, 5: RowState.DONE})
        await one.mend([row(4, "c"), row(3, "d")])
        await one.drop(anyway=True)
        await one.close("done")
        assert "there is no stream one" in str(await failure_of(make("one").status()))
        assert {name.split("{")[1].split("}")[0] for name in await redis.keys("*")} == {"migration:two"}


# Listings, notes and sessions


async def test_accepted_rows_and_problems_are_read_in_pages(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of lines, although corrected rows are at the end of the stream."""
    monkeypatch.setattr("tim_async.migrate._redis_reader.BATCH", 3)
    given = [rejected(line, f"reason {line}", "") if line % 4 == 0 else row(line, f"m{line}") for line in range(2, 30)]
    await planned(store.url, given)
    async with opened(store.url) as one:
        await one.mend([row(line, f"x{line}") for line in (4, 8, 12, 16, 20, 24)])
        done = lines(await claim(one, 99))
        states = {
            line: RowState.FAILED if line % 5 == 0 else RowState.LOWERED if line == 7 else RowState.DONE
            for line in done
        }
        await settle_as(one, states, None)
        wanted = [line for line, state in states.items() if state is RowState.DONE]
        assert [row.line async for row in one.accepted(0, 99)] == wanted
        assert [row.line async for row in one.accepted(11, 4)] == [line for line in wanted if line > 11][:4]
        problems = [problem async for problem in one.problems()]
        assert [problem.line for problem in problems] == [5, 10, 15, 20, 25, 28]
        assert problems[3].fields == {"GroupId": "g", "Member_Account": "x20", "UnreadMsgNum": 20}
        assert (problems[5].fields, problems[5].reason) == ({"Text": "line 28"}, "reason 28")


async def test_many_different_reasons(store: Valkey) -> None:
    """Beyond 1,000 they are counted together."""
    await planned(store.url, [rejected(line, f"is {line}", "") for line in range(2, 1202)])
    failures = (await read_fleet(store.url)).failures
    assert len(failures) == 1001
    assert (failures[0].rows, failures[0].reason, failures[0].first_line) == (200, "is 1002", 1002)
    assert sum(failure.rows for failure in failures) == 1200


async def test_the_pace_and_notes(store: Valkey, make: Make) -> None:
    """A worker receives each pace that is set after its start, also an equal one."""
    assert "there is no stream" in str(await failure_of(make().set_pace(Pace(1.0))))
    await planned(store.url, [row(2, "a")])
    setter = make()
    await setter.set_pace(Pace(rate=5.0))
    async with opened(store.url) as one:
        heard: list[Exchange] = []
        for pace in (Pace(), Pace(share=0.5), Pace(rate=7.0, share=0.25), Pace(rate=7.0), Pace(), Pace(rate=5.0)):
            await setter.set_pace(pace)
            heard.append(await one.exchange([], 0, Calls()))
        assert [reply.pace for reply in heard] == [
            None,
            Pace(share=0.5),
            Pace(7.0, 0.25),
            Pace(rate=7.0),
            None,
            Pace(rate=5.0),
        ]
        async with looking(store.url) as redis:
            await redis.hset(key("pace"), mapping={"rate": "9 inf", "share": "9 1.5"})
        assert (await one.exchange([], 0, Calls())).pace is None
    assert await setter.note("é\udce9", "\udce9") == "\udce9"
    assert [await setter.note(name) for name in ("é\udce9", "b")] == ["\udce9", ""]
    await setter.close()


async def test_old_workers_are_removed(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their calls stay in the totals."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 9)])
    info = {"started": 1000.0, "ended": None, "how": "", "lease": 10.0, "calls": {"sent": 2, "done": 1}}
    async with looking(store.url) as redis:

        async def names() -> set[str]:
            return {found["name"] for found in await redis.xinfo_consumers(key("rows"), "workers")}

        found = {f"old{number}": f"{1000 + number} 2 {json.dumps(info)}" for number in range(1003)}
        await redis.hset(key("workers"), mapping={**found, "odd": "nonsense"})
        await redis.hset(key("series"), mapping={"old0": "x", "old1002": "y"})
        for name in ("idle", "killed"):
            await redis.xgroup_createconsumer(key("rows"), "workers", name)
        await redis.xreadgroup("workers", "killed", {key("rows"): ">"}, count=1)
        monkeypatch.setattr("tim_async.migrate._redis._FORGET_AFTER", 0)
        async with opened(store.url) as one:
            await claim(one, 1)
            assert await names() == {"idle", "killed", one._worker}
            assert await redis.hlen(key("workers")) == 1000
            assert await redis.hkeys(key("series")) == ["old1002"]
            await settle_as(one, {3: RowState.DONE})
        # Consumers without claims are removed when the next worker starts or ends.
        assert await names() == {"idle", "killed"}
        await expire_leases(store.url)
        monkeypatch.setattr("tim_async.migrate._redis.RedisStore._lease_ms", 1)
        async with opened(store.url) as one:
            taken = lines(await claim(one, 9))
            await settle_as(one, dict.fromkeys(taken, RowState.DONE))
        assert await names() == set()
    fleet = await read_fleet(store.url)
    assert (len(fleet.workers), fleet.workers[0].how) == (1000, "done")
    assert sum(session.calls.sent for session in fleet.sessions) == 2 * 1003 + 7
    assert sum(session.calls.done for session in fleet.sessions) == 1003


async def test_sessions_of_simultaneous_workers_are_merged(store: Valkey) -> None:
    """With the calls and the series of all."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 6)])
    async with opened(store.url) as one, opened(store.url) as other, opened(store.url):
        for worker, line in ((one, 2), (other, 3)):
            await claim(worker, 1)
            await settle_as(worker, {line: RowState.DONE})
            await worker.save_series(Series(1e9, 1.0, 200.0, [Slot(sent=3, done=2)], 1e9 + 1).to_json())
        running = await read_fleet(store.url)
        assert (running.running, len(running.workers), running.rate > 0) == (True, 2, True)
    fleet = await read_fleet(store.url)
    (session,) = fleet.sessions
    assert (session.how, session.calls, fleet.running) == ("done", Calls(sent=2), False)
    assert session.series is not None
    assert sum(slot.done for slot in session.series.slots) == 4
    assert fleet.seconds_left == pytest.approx(2 / fleet.rate)


async def test_a_worker_whose_clock_is_set_back(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session does not end before its start."""
    await planned(store.url, [row(2, "a")])
    async with opened(store.url) as one:
        began = time.time()
        await claim(one, 1)
        monkeypatch.setattr(time, "time", lambda: began - 3600)
        await settle_as(one, {2: RowState.DONE})
    monkeypatch.undo()
    (session,) = (await read_fleet(store.url)).sessions
    assert session.ended is not None
    assert session.ended >= session.started >= began


async def test_a_store_without_memory(store: Valkey, make: Make) -> None:
    """Rows cannot be planned, but they can be claimed and settled."""
    await planned(store.url, [row(line, f"m{line}") for line in range(2, 12)])
    async with looking(store.url) as redis, opened(store.url) as one:
        await redis.config_set("maxmemory", "1")
        claimed = lines(await claim(one, 5))
        reply = await settle_as(one, dict.fromkeys(claimed, RowState.FAILED))
        assert reply.counts == Counts(pending=5, failed=5)
        another = make("b")
        await another.open(ABOUT)
        assert "no memory left" in str(await failure_of(another.plan([row(2, "a")])))
        await redis.config_set("maxmemory", "0")


async def test_the_durability_of_the_store(tmp_path: Path) -> None:
    """It warns if rows may be lost, and not with an append-only file, which keeps them."""
    with Valkey(tmp_path / "a") as valkey, contextlib.closing(Redis.from_url(valkey.url)) as redis:
        await planned(valkey.url, [row(2, "a")])
        async with opened(valkey.url) as one:
            assert "keeps no append-only file" in await one.make_durable()
            redis.config_set("maxmemory-policy", "allkeys-lru")
            assert "allkeys-lru" in await one.make_durable()
    with Valkey(tmp_path / "b", appendonly="yes", appendfsync="always") as valkey:
        await planned(valkey.url, [row(2, "a")])
        async with opened(valkey.url) as one:
            assert await one.make_durable() == ""
            valkey.kill()
            valkey.start()
            assert lines(await claim(one)) == [2]


@pytest.mark.parametrize("name", ["", "a b", "a{b", "x" * 101, 7])
def test_invalid_names_and_leases(name: Any) -> None:
    with pytest.raises(ValueError, match="name is 1 to 100 characters"):
        RedisStore("redis://localhost", name)
    with pytest.raises(ValueError, match="lease must be above 0"):
        RedisStore("redis://localhost", lease=0)
    assert About.__slots__ == ("kind", "source", "fingerprint", "arguments", "sdk_app_id", "base_url")
