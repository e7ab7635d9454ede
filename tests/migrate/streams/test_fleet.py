"""What the store tells of a stream and its workers, and what many workers' calls come to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_in import failure_of
from tests.store import Store
from tim_async.migrate import Counts, Series, Session, Slot, render
from tim_async.migrate.streams import StoreError, read_fleet, write_fleet_rejects
from tim_async.migrate.streams.merging import merged

from .fleet import key, loaded, looking, write

T0 = 1_700_000_000.0


def session(started: float, seconds: int, done: int, how: str = "done", width: float = 1.0) -> Session:
    """A worker that made so many calls in each slot."""
    slots = [Slot(sent=done, done=done) for _ in range(seconds)]
    until = started + seconds * width
    return Session(started, until if how else None, how, Series(started, width, 200.0, slots, until))


def test_workers_of_one_time_are_added_up() -> None:
    (one,) = merged([session(T0, 10, 60), session(T0 + 2.5, 10, 70), session(T0 + 1, 4, 5, "")])
    assert (one.started, one.ended, one.how) == (T0, T0 + 12.5, "done")
    assert one.series is not None
    assert [slot.done for slot in one.series.slots] == [60, 65, 65, 135, 135, 130, 130, 130, 130, 130, 70, 70, 70]
    assert (one.series.started, one.series.until, one.series.limit) == (T0, T0 + 12.5, 200.0)


def test_a_pause_makes_two_sessions() -> None:
    found = merged([session(T0 + 1000, 5, 1), session(T0, 5, 1, "interrupted"), session(T0 + 3, 5, 1, "")])
    assert [(one.started, one.how) for one in found] == [(T0, ""), (T0 + 1000, "done")]
    assert found[0].ended is None


def test_nothing_and_nobody_who_watched() -> None:
    assert merged([]) == []
    (one,) = merged([Session(T0, T0 + 1, "done", None)])
    assert one.series is None


@given(
    st.lists(
        st.tuples(st.floats(0, 5000), st.integers(1, 600), st.integers(0, 50), st.sampled_from([1.0, 2.0, 16.0])),
        min_size=1,
        max_size=8,
    )
)
def test_no_call_is_lost_in_adding_up(found: list[tuple[float, int, int, float]]) -> None:
    """Whatever the widths and the times; and the sum is a series that can be kept."""
    sessions = [session(T0 + start, slots, done, "done", width) for start, slots, done, width in found]
    total = 0
    for one in merged(sessions):
        assert one.series is not None
        assert Series.from_json(one.series.to_json()).slots == one.series.slots
        total += sum(slot.done for slot in one.series.slots)
    assert total == sum(slots * done for _, slots, done, _ in found)


async def prepared(folder: Path, url: str) -> None:
    """A stream of ten rows, two of which have failed and three are taken; with three workers."""
    rows = [("g", f"m{number}", str(number)) for number in range(10)]
    await loaded(write(folder / "counts.csv", [*rows, ("g", "", "1")]), url)
    async with looking(url) as redis:
        now, _ = await redis.time()
        await redis.xreadgroup("workers", "b", {key("rows"): ">"}, count=7)
        for id_ in ("2-0", "3-0", "4-0", "5-0", "6-0"):
            await redis.xack(key("rows"), "workers", id_)
            await redis.xdel(key("rows"), id_)
        await redis.hset(key("counts"), mapping={"done": 3, "failed": 2})
        await redis.hset(key("causes"), mapping={"10007": 1, ":no": 1})
        await redis.hset(key("firsts"), mapping={"10007": "5 it says no", ":no": "6 no"})
        documents = {line: json.dumps({"GroupId": "g", "Line": line, "Code": None, "Reason": "é"}) for line in (6, 5)}
        await redis.hset(key("failed"), mapping=documents)
        info: dict[str, Any] = {"host": "h", "pid": 1, "started": T0, "rows": 2, "lease": 10.0, "how": ""}
        workers = {
            "a": f"{now - 100} {json.dumps(info | {'how': 'interrupted'})}",
            "b": f"{now} {json.dumps(info)}",
            "c": f"{now - 50} {json.dumps(info)}",
            "d": "nonsense",
        }
        await redis.hset(key("workers"), mapping=workers)
        series = session(T0, 5, 1).series
        assert series is not None
        ran = {"started": T0, "ended": None, "how": "", "series": series.to_json()}
        await redis.hset(key("series"), mapping={"b": json.dumps(ran), "d": "{}"})
        await redis.hset(key("pace"), mapping={str(now - now % 5 - 20): 40, str(now - 300): 1000})


async def test_a_fleet(tmp_path: Path, store: Store) -> None:
    """Counts, workers, rate and what is left, of one moment."""
    await prepared(tmp_path, store.url)
    fleet = await read_fleet(store.url)
    assert fleet.status.counts == Counts(done=3, failed=2, pending=3, sending=2, rejected=1)
    assert (fleet.loaded, fleet.rows, fleet.complete, fleet.missing) == (10, 10, True, 0)
    assert [(worker.name, worker.working, worker.how) for worker in fleet.workers] == [
        ("b", True, ""),
        ("c", False, ""),
        ("a", False, "interrupted"),
    ]
    assert fleet.status.running
    assert 40 / 30 <= fleet.rate <= 40 / 20
    assert fleet.seconds_left == pytest.approx(5 / fleet.rate)
    found = [(failure.code, failure.rows, failure.first_line, failure.rejected) for failure in fleet.status.failures]
    assert found == [(10007, 1, 5, False), (None, 1, 6, False), (None, 1, 12, True)]
    page = render(fleet.status)
    assert "it says no" in page
    assert "Still running, 5 rows left" in page


async def test_rejects_of_a_fleet(tmp_path: Path, store: Store) -> None:
    """Failed and rejected rows by line; the file is replaced, and removed when there is nothing to write."""
    to = tmp_path / "r.jsonl"
    to.write_text("old")
    await loaded(write(tmp_path / "other.csv", [("g", "m", "1")]), store.url, name="other")
    assert await write_fleet_rejects(store.url, to, name="other") == 0
    assert not to.exists()
    await prepared(tmp_path, store.url)
    assert await write_fleet_rejects(store.url, to) == 3
    lines = to.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["Line"] for line in lines] == [5, 6, 12]
    assert "é" in lines[0]


async def test_no_stream(store: Store) -> None:
    raised = await failure_of(read_fleet(store.url, name="x"))
    assert isinstance(raised, StoreError)
    assert str(raised) == f"there is no stream x at {store.url}"
    began = time.monotonic()
    store.kill()
    assert isinstance(await failure_of(read_fleet(store.url)), StoreError)
    assert time.monotonic() - began < 10
