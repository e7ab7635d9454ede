from __future__ import annotations

import dataclasses
import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import aclosing
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypotheses import at_most
from tim_async import Attempt, Lane, TIMClient
from tim_async.emulator import Emulator
from tim_async.migrate import (
    UNREAD,
    Calls,
    Counts,
    DryRun,
    FailureCount,
    FileSource,
    Notes,
    Recorder,
    Series,
    Session,
    Slot,
    Status,
    read_status,
    render,
    run,
)
from tim_async.migrate._recorder import SLOTS
from tim_async.migrate._report import _words
from tim_async.migrate._report._charts import HEIGHT
from tim_async.migrate._report._timeline import WIDTH, cells_of, lay_out, ticks_of
from tim_async.migrate._store import Problem, Worker

START = 1_763_676_612.0  # 2025-11-20 22:10:12 UTC
VOID = {"meta", "link"}
NASTY = (
    "<script>alert('x')</script> \"q\" & &amp; ]]> --> </style> 👩‍👩‍👧‍👦 用户 \x00\x07 "
    "al\u200bice\u00ad\ufeff\u3164 \u202egnp.exe \ud800 " + "x" * 300
)


class Page(HTMLParser):
    """A parsed page; raises AssertionError if it is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.pieces: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.pieces.append((self.open[-1], data))

    def text_of(self, tag: str) -> list[str]:
        return [data for where, data in self.pieces if where == tag]

    @property
    def text(self) -> str:
        return " ".join(data for _, data in self.pieces)


def drawings(page: str) -> list[ET.Element]:
    """Parse each SVG of a page as XML."""
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def shapes(page: str, classes: str) -> list[list[tuple[float, float]]]:
    """Return the corners of each line or area with these classes."""
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in element.get("points", "").split())]
        for drawing in drawings(page)
        for element in drawing.iter()
        if element.get("class") == classes and element.get("points")
    ]


def figures(page: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd><span class=big>([^<]*)</span>", page))


def status(**changes: Any) -> Status:
    plain = Status(
        journal="/srv/exports/rooms.csv.journal",
        kind="unread",
        source="/srv/exports/rooms.csv",
        arguments={"format": None, "columns": {}, "id_formats": {}},
        sdk_app_id=1400000000,
        base_url="https://adminapisgp.im.qcloud.com",
        planned=True,
        running=False,
        counts=Counts(),
        failures=[],
        sessions=[],
    )
    return dataclasses.replace(plain, **changes)


def steady(start: float, seconds: int, rate: int = 100, limit: float = 200.0, how: str = "done") -> Session:
    """Return a session with the same number of calls in each second."""
    slots = [Slot(rate, rate, took={55: rate}) for _ in range(min(seconds, SLOTS))]
    series = Series(start, seconds / len(slots), limit, slots, start + seconds)
    calls = Calls(sent=rate * seconds, done=rate * seconds)
    return Session(start, start + seconds if how else None, how, series, calls)


def recorded(start: float, seconds: float, errors: float = 0.1) -> Session:
    """Return a session as a recorder saw it, with every kind of outcome."""
    now = start
    watching = Recorder("here", 200.0, clock=lambda: now)
    random_ = random.Random(start)
    while now < start + seconds:
        now += 0.1
        error = random_.choice(["RateLimited", "ServerBusy", "RequestTimeout"]) if random_.random() < errors else None
        code = {None: 0, "RateLimited": 60011, "ServerBusy": 10002}.get(error)
        number = random_.choice((1, 1, 1, 2))
        watching.attempt(Attempt("here", number, Lane.BULK, 0.0, random_.lognormvariate(-3, 0.5), code, error))
    calls = Calls(watching.sent, watching.done, watching.refused, watching.faults, watching.retried, again=3)
    return Session(start, now, "done", watching.series, calls)


def full_status() -> Status:
    """Return a status with every kind of content."""
    return status(
        counts=Counts(
            pending=11, sending=2, done=10_000_000, lowered=3_456, failed=7_890, rejected=65, superseded=4_321
        ),
        failures=[
            FailureCount(10010, "error 10010: no such group", 7_890, 1_234, False),
            FailureCount(None, "GroupId: is empty", 65, 98_765, True),
        ],
        sessions=[recorded(START, 60), dataclasses.replace(recorded(START + 20_000, 90), how="interrupted")],
        arguments={"format": "csv", "columns": {"GroupId": "room.id"}, "id_formats": {"GroupId": "@TGS#{}"}},
    )


@pytest.mark.parametrize(
    ("changes", "title", "message"),
    [
        ({"counts": Counts(done=5)}, "Every row arrived", "accepted 5 of 5 rows"),
        ({"counts": Counts(done=4, lowered=1, superseded=2)}, "Every row arrived", "2 were superseded by later ones"),
        ({"counts": Counts(done=5, failed=1)}, "1 row did not arrive", "1 failed"),
        ({"counts": Counts(done=5, failed=1_000, rejected=1)}, "1,001 rows did not arrive", "1 was invalid"),
        ({"counts": Counts()}, "There were no rows", "holds none"),
        ({"counts": Counts(pending=7)}, "Not started, 7 rows left", "same command"),
        ({"counts": Counts(pending=7, done=1), "running": True}, "Still running, 7 rows left", "As of 2025-11-20"),
        ({"counts": Counts(pending=9), "running": True, "planned": False}, "Still reading the file", "9 rows so far"),
        ({"planned": False}, "Nothing was sent", "Run it again"),
        ({"counts": Counts(pending=7, done=1), "missing": 7}, "7 rows lost by the store", "accepted 1 of 8 rows"),
        ({"counts": Counts(pending=600, done=1), "running": True, "rate": 20.0}, "Still running", "About 30 s left"),
    ],
)
def test_the_headline(changes: dict[str, Any], title: str, message: str) -> None:
    sessions = [steady(START, 3, how="")] if changes.get("running") and changes.get("planned", True) else []
    page = Page(render(status(**changes, sessions=sessions)))
    assert page.text_of("h1")[0].startswith(title)
    assert title in page.text_of("title")[0]
    assert message in page.text


@pytest.mark.parametrize(
    ("how", "title"),
    [
        ("interrupted", "Interrupted, 3 rows left"),
        ("limit", "Stopped at a limit, 3 rows left"),
        ("row_limit", "Stopped after --limit rows, 3 rows left"),
        ("failed", "Stopped by an error, 3 rows left"),
        ("", "Killed, 3 rows left"),
        ("something new", "Not finished, 3 rows left"),
    ],
)
def test_the_headline_of_a_run_that_ended_early(how: str, title: str) -> None:
    """It is that of the last session."""
    sessions = [steady(START, 3, how="failed"), steady(START + 100, 3, how=how)]
    page = Page(render(status(counts=Counts(sending=1, pending=2, done=600), sessions=sessions)))
    assert page.text_of("h1") == [title]
    assert "1 was under way when the run ended" in page.text


def test_the_figures_are_those_of_the_status() -> None:
    found = full_status()
    text = render(found)
    page = Page(text)
    texts = [text for _, text in page.pieces]
    for count in (found.counts.total, found.counts.taken, 3_456, 7_890, 65, 4_321, 13, 1_234, 98_765):
        assert f"{count:,}" in texts
    calls = [session.calls for session in found.sessions]
    shown = figures(text)
    assert shown["Duration"] == "2 min 30 s"
    for name, figure in (("sent", "Requests"), ("refused", "Refused"), ("faults", "Faults"), ("retried", "Retried")):
        assert shown[figure] == f"{sum(getattr(one, name) for one in calls):,}"
    assert shown["Sent again"] == "6"
    for message in (
        "2025-11-20 22:10:12",
        "csv, GroupId from room.id, GroupId as @TGS#{}",
        "error 10010: no such group",
    ):
        assert message in page.text
    assert page.text.count(f"10010: {found.failures[0].meaning} {found.failures[0].remedy}") == 1


def test_requests_are_counted_without_a_complete_series() -> None:
    """Such as the series of a killed session, which is older than its calls."""
    killed = dataclasses.replace(steady(START, 10, how=""), calls=Calls(1300, 1200, 50, 50, 100))
    unwatched = Session(START + 60, START + 61, "done", None, Calls(7, 7, again=5))
    shown = figures(render(status(sessions=[killed, unwatched])))
    assert (shown["Requests"], shown["Refused"], shown["Faults"], shown["Retried"]) == ("1,307", "50", "50", "100")
    assert shown["Sent again"] == "5"


def test_rate_and_share_of_the_limit() -> None:
    """The mean is over all sessions without the pauses, and each share is of the session's own limit."""
    sessions = [steady(START, 100, rate=100), steady(START + 86_400, 300, rate=200, limit=400.0)]
    text = render(status(sessions=sessions))
    assert figures(text)["Mean rate"] == "175.0/s"
    assert "50.0% of the limit" in text
    assert figures(text)["Duration"] == "6 min 40 s"


@given(st.floats(0.1, 1000), st.integers(1, 10_000), st.floats(1, 1000))
def test_the_share_of_the_limit_is_at_most_100_percent(seconds: float, calls: int, limit: float) -> None:
    """A short run can exceed its seconds times the limit, because its first and last second are not whole."""
    series = Series(START, max(1.0, seconds), limit, [Slot(calls, calls)], START + seconds)
    text = render(status(sessions=[Session(START, START + seconds, "done", series, Calls(calls, calls))]))
    (share,) = re.findall(r"<small>([<>0-9.]+)% of the limit", text)
    assert float(share.strip("<>")) <= 100
    assert float(figures(text)["Mean rate"].removesuffix("/s").replace(",", "")) <= limit * 1.01


def test_each_session_has_a_row() -> None:
    sessions = [steady(START, 100, how=""), steady(START + 3600, 50, rate=20)]
    page = Page(render(status(counts=Counts(done=11_000), sessions=sessions)))
    for text in ("1. 2025-11-20 22:10:12", "after 2025-11-20 22:11:52", "killed", "1 min 40 s", "10,000", "100.0"):
        assert text in page.text_of("td")
    for text in ("2. 2025-11-20 23:10:12", "2025-11-20 23:11:02", "finished", "50 s", "20.0"):
        assert text in page.text_of("td")
    assert "58 min 20 s of pause between them left out" in page.text


def test_a_running_session_has_no_end() -> None:
    page = Page(render(status(counts=Counts(pending=1), running=True, sessions=[steady(START, 100, how="")])))
    assert "running" in page.text_of("td")
    assert "killed" not in page.text_of("td")


def test_the_workers_of_a_shared_migration() -> None:
    workers = [
        Worker("host-1", 3_300, 0.4, START, "", working=True),
        Worker("<b>host-2</b>", 6_700, 812.0, START, "nothing_to_do", working=False),
        Worker("host-3", 12, 90.0, START, "", working=False),
    ]
    page = Page(render(status(journal="redis://store:6379/0", name="rooms", workers=workers)))
    cells = [*page.text_of("td"), *page.text_of("span")]
    for text in (
        "host-1",
        "at work",
        "3,300",
        "0.4 s ago",
        "<b>host-2</b>",
        "nothing to do",
        "13 min 32 s ago",
        "silent",
    ):
        assert text in cells
    assert "redis://store:6379/0 rooms" in page.text_of("dd")


def test_a_dry_run() -> None:
    """The rows that would be sent and rejected, without the sections about a run."""
    rejected = [
        Problem(
            line, None, "UnreadMsgNum: is not a whole number: '1,204'", {"GroupId": "g", "Member_Account": "b\u200bob"}
        )
        for line in range(2, 1205)
    ]
    found = status(
        counts=Counts(pending=12_000, rejected=1203, superseded=5),
        failures=[FailureCount(None, rejected[0].reason, 1203, 2, rejected=True)],
    )
    first = [{"GroupId": "@TGS#public", "Member_Account": "<i>alice</i>", "UnreadMsgNum": 5}]
    notes = Notes(without_time=1234)
    notes.add_suspicion(7, "Member_Account", "NULL", "stands for nothing")
    text = render(found, notes, dry_run=DryRun(200.0, first, iter(rejected)))
    page = Page(text)
    assert page.text_of("h1") == ["1,203 rows would be rejected"]
    assert "12,000 rows of 13,208 would be sent in about 1 min 00 s at 200.0/s. Nothing was sent." in page.text
    assert page.text_of("li") == [f"{sentence}." for sentence in notes.sentences()]
    assert text.count(r"b\u200bob") == 1000
    assert "And 203 more: the rejected file has all of them." in page.text
    assert "<i>alice</i>" in page.text
    assert not {"The run", "Over time", "Sessions"} & set(page.text_of("h2"))
    assert "Taken" not in page.text
    good = Page(render(status(counts=Counts(pending=1)), dry_run=DryRun(200.0)))
    assert good.text_of("h1") == ["Every row can be sent"]
    assert Page(render(status(), dry_run=DryRun(1.0))).text_of("h1") == ["There is nothing to send"]


def test_lowered_and_superseded_are_explained() -> None:
    page = Page(render(status()))
    assert "the service lowers it to that" in page.text
    assert "A later row is for the same member" in page.text
    page = Page(render(status(kind="read")))
    assert "lower" not in page.text
    assert "A later row is for the same conversation" in page.text


@pytest.mark.parametrize(
    "found",
    [
        status(),
        status(kind="read", source="-"),
        status(planned=False),
        status(counts=Counts(rejected=3), failures=[FailureCount(None, "GroupId: is empty", 3, 2, True)]),
        status(sessions=[Session(START, START + 3, "done", None)]),
        status(sessions=[Session(START, None, "", Series())]),
        status(sessions=[Session(START, START, "done", Series(START, 1.0, 0.0, [Slot(1, 1)], START))]),
        status(sessions=[Session(START, None, "", Series(START, 1.0, 200.0, [Slot(1, 0, 0, 1)], START + 10))]),
        status(sessions=[Session(START, None, "", Series(START, 4.0, 200.0, [Slot()] * 9))]),
        status(sessions=[steady(START + n, 1) for n in range(100)]),
        status(sessions=[Session(-5e9, 5e10, "done", Series(-5e9, 2.0**28, 200.0, [Slot(1, 1)] * 200, 5e10))]),
        full_status(),
    ],
    ids=str,
)
def test_any_status_is_a_complete_page(found: Status) -> None:
    """It is well-formed, each drawing has a label, and all coordinates are plain numbers."""
    text = render(found)
    assert render(found) == text
    page = Page(text)
    assert page.tags["h1"] == page.tags["title"] == page.tags["main"] == 1
    for drawing in drawings(text):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing.get("aria-label"))
        for element in drawing.iter("path"):
            assert re.fullmatch(r"M0 5H16|M0 [0-9.]+H1000", element.get("d", "")), element.get("d")
    for x, y in (
        corner
        for name in ("line done", "area done", "line median", "line limit")
        for line in shapes(text, name)
        for corner in line
    ):
        assert (0 <= x <= WIDTH + 0.1, 0 <= y <= HEIGHT) == (True, True)
    for word in ("nan", "inf", "None", "object at"):
        assert word not in page.text.replace("None at any time", "")
    text.encode()


numbers = st.integers(0, 2**53 - 1)
moments = st.floats(-1e11, 1e11, exclude_min=True, exclude_max=True)
some_series = st.builds(
    Series,
    moments,
    st.floats(1, 1e11, exclude_max=True),
    st.just(0.0) | st.floats(1e-3, 1e11, exclude_max=True),
    st.lists(st.builds(Slot, *[numbers] * 5, st.dictionaries(st.integers(0, 127), numbers, max_size=3)), max_size=4),
    moments,
)


some_sessions = st.builds(Session, moments, st.none() | moments, st.text("<&é", max_size=3), st.none() | some_series)


@given(st.lists(some_sessions, max_size=3))
@at_most(25)
def test_any_series_and_times_of_a_store(sessions: list[Session]) -> None:
    """Clocks that were far off and invented counts make a page without NaN or infinity."""
    calls = Calls(sent=2**53, done=2**53 - 1)
    text = render(status(sessions=[dataclasses.replace(session, calls=calls) for session in sessions]))
    assert not re.search(r"[> -](nan|inf)\b", text.partition("</style>")[2])
    for session in sessions:
        assert session.series is None or Series.from_json(session.series.to_json()) == session.series


def test_the_page_loads_nothing() -> None:
    """No script, image, font or favicon."""
    text = render(full_status())
    page = Page(text)
    assert not page.tags.keys() & {"script", "img", "iframe", "object", "embed", "image", "use", "base", "form", "a"}
    loaded = [(tag, value) for tag, name, value in page.attributes if name.split(":")[-1] in ("src", "href", "srcset")]
    assert loaded == [("link", "data:,")]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert ("meta", "content") in [(tag, name) for tag, name, value in page.attributes if "default-src 'none'" in value]


def test_the_page_prints_in_light_colours() -> None:
    """The dark variant is for screens only, and charts are not split between pages."""
    style = re.search(r"<style>(.*?)</style>", render(status()), re.DOTALL)
    assert style is not None
    assert re.findall(r"@media[^{]*prefers-color-scheme[^{]*", style[1]) == [
        "@media screen and (prefers-color-scheme: dark) "
    ]
    assert re.search(r"@media print \{.*\.chart[^}]*\{ break-inside: avoid; \}", style[1], re.DOTALL)


def test_foreign_text_is_escaped() -> None:
    """In any place; it has no hidden characters, no changes of direction and no surrogates."""
    found = status(
        kind=NASTY,
        source=NASTY,
        base_url=NASTY,
        arguments={"format": NASTY, "columns": {NASTY: NASTY}, "id_formats": {NASTY: NASTY}},
        counts=Counts(failed=1),
        failures=[FailureCount(None, NASTY, 1, 1, False)],
        sessions=[dataclasses.replace(steady(START, 3), how=NASTY)],
    )
    text = render(found)
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags == Page(render(dataclasses.replace(found, kind="unread", base_url="plain"))).tags
    shown = NASTY
    for hidden in "\x00\x07\u200b\u202e\u00ad\ufeff\u3164\ud800":
        shown = shown.replace(hidden, hidden.encode("unicode_escape").decode())
    assert shown in page.text_of("td")
    assert text.encode().decode() == text


@given(st.text(st.characters()))
def test_any_foreign_text_is_one_cell(other: str) -> None:
    text = render(status(failures=[FailureCount(1, other, 1, 1, False)], source=other))
    page = Page(text)
    text.encode()
    assert page.tags["td"] == Page(render(status(failures=[FailureCount(1, "", 1, 1, False)]))).tags["td"]


def test_forty_kinds_of_failure() -> None:
    failures = [FailureCount(10_000 + n, f"error {n}", 10_000_000 // n, n, n % 2 == 0) for n in range(1, 41)]
    page = Page(render(status(counts=Counts(failed=1), failures=failures)))
    cells = page.text_of("td")
    for failure in failures:
        assert failure.reason in cells
        assert f"{failure.rows:,}" in cells
    assert "failed, 10001" in cells
    assert cells.count("rejected") == 20


def test_five_long_sessions_make_a_small_page() -> None:
    """600 different slots each; drawn no finer than a screen can show."""
    sessions = []
    for number in range(5):
        random_ = random.Random(number)
        slots = [
            Slot(
                13_000,
                random_.randrange(12_000),
                random_.randrange(900),
                random_.randrange(99),
                random_.randrange(999),
                {bin_: random_.randrange(1, 999) for bin_ in range(40, 90)},
            )
            for _ in range(SLOTS)
        ]
        start = START + number * 90_000
        sessions.append(Session(start, start + 38_400, "done", Series(start, 64.0, 200.0, slots, start + 38_400)))
    text = render(status(sessions=sessions, failures=[FailureCount(1, "x" * 300, 1, 1, False)] * 40))
    assert len(text.encode()) < 150_000
    Page(text)


def test_the_rate_is_drawn_to_scale() -> None:
    """Half the limit has half the height; both are level over the whole width."""
    text = render(status(sessions=[steady(START, 60, rate=100, limit=200.0)]))
    (done,) = shapes(text, "area done")
    (limit,) = shapes(text, "line limit")
    assert done == [(0, done[0][1]), (WIDTH, done[0][1]), (WIDTH, HEIGHT), (0, HEIGHT)]
    assert limit == [(0, limit[0][1]), (WIDTH, limit[0][1])]
    assert HEIGHT - done[0][1] == pytest.approx((HEIGHT - limit[0][1]) / 2, abs=0.2)
    assert "the limit, 200/s" in Page(text).text_of("span")


def test_an_outage_is_visible() -> None:
    """As a gap in the latencies and in the rate, with the faults that caused it."""
    session = steady(START, 300)
    assert session.series is not None
    for at in range(100, 150):
        session.series.slots[at] = Slot(1, 0, 0, 1)
    text = render(status(sessions=[session]))
    assert len(shapes(text, "line median")) == len(shapes(text, "line p95")) == 2
    (rate,) = shapes(text, "area done")
    assert [x for x, y in rate if y == HEIGHT][:2] == pytest.approx([WIDTH / 3, WIDTH / 2], abs=5)
    assert shapes(text, "area fault")
    assert "None at any time" in Page(render(status(sessions=[steady(START, 300)]))).text


def test_a_pause_of_days_takes_no_room() -> None:
    """Sessions share the width by their durations; each has a minimal width."""
    sessions = [steady(START, 500), steady(START + 10**7, 500), steady(START + 2 * 10**7, 2)]
    panels = lay_out(sessions)
    widths = [panel.right - panel.left for panel in panels]
    assert panels[0].left == 0
    assert panels[-1].right == pytest.approx(WIDTH)
    assert widths[0] == pytest.approx(widths[1])
    assert widths[0] > 400
    assert widths[2] > 30
    for before, after in pairwise(panels):
        assert 5 < after.left - before.right < 20
    assert [panel.number for panel in panels] == [1, 2, 3]


def test_sessions_without_attempts_are_not_drawn() -> None:
    sessions = [Session(START, START + 1, "done", None), Session(START, None, "", Series()), steady(START, 20)]
    assert [panel.number for panel in lay_out(sessions)] == [3]


@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.integers(0, 10**6)), min_size=1, max_size=12),
)
@at_most(25)
def test_any_timeline(lengths: list[tuple[int, int]]) -> None:
    """Each attempt is in a cell, cells are in order and wide enough for a phone, and labels do not overlap."""
    start, sessions = START, []
    for seconds, pause in lengths:
        sessions.append(steady(start, seconds))
        start += seconds + pause
    panels = lay_out(sessions)
    ticks = ticks_of(panels)
    cells = [cell for panel in panels for cell in panel.cells]
    done = sum(slot.done for session in sessions if session.series for slot in session.series.slots)
    assert sum(cell.slot.done for cell in cells) == done
    assert len(cells) <= 240 + len(sessions)
    for panel in panels:
        assert 0 <= panel.left < panel.right <= WIDTH + 1e-6
        for before, after in pairwise(panel.cells):
            assert after.start == pytest.approx(before.start + before.seconds)
    assert ticks
    for before_tick, after_tick in pairwise(ticks):
        assert after_tick.x - before_tick.x > 80
    for before_tick, after_tick in pairwise([tick for tick in ticks if tick.always]):
        assert after_tick.x - before_tick.x > 130


def test_labels_are_round_times_in_utc() -> None:
    texts = [tick.text for tick in ticks_of(lay_out([steady(START, 3600)]))]
    assert texts[:3] == ["22:15", "22:20", "22:25"] or texts[:3] == ["22:20", "22:30", "22:40"]
    texts = [tick.text for tick in ticks_of(lay_out([steady(START, 12)]))]
    assert "22:10:14" in texts
    texts = [tick.text for tick in ticks_of(lay_out([steady(START, 10 * 86_400)]))]
    assert "11-22" in texts


def test_the_last_slot_ends_with_the_last_attempt() -> None:
    """Otherwise a run that ends within a slot would seem to slow down."""
    series = Series(START, 10.0, 200.0, [Slot(2000, 2000), Slot(2000, 2000), Slot(1200, 1200)], START + 26)
    assert [cell.per_second(cell.slot.done) for cell in cells_of(series, 100)] == pytest.approx([200, 200, 200])
    # A slot that had just begun has no meaningful rate; it is merged with the one before.
    series = Series(START, 10.0, 200.0, [Slot(2000, 2000), Slot(2000, 2000), Slot(1, 1)], START + 20.001)
    assert [cell.per_second(cell.slot.done) for cell in cells_of(series, 100)] == pytest.approx([200, 200], rel=0.001)
    series = Series(START, 1.0, 200.0, [Slot(10, 10)], START + 0.05)
    assert [cell.per_second(cell.slot.done) for cell in cells_of(series, 100)] == pytest.approx([200])


def test_the_format_of_numbers() -> None:
    """One missing row of ten million is not rounded to 100 %."""
    seconds = {0: "0 s", 0.41: "0.41 s", 9.99: "10 s", 59.6: "1 min 00 s", 3599: "59 min 59 s", 90_000: "1 d 1 h"}
    assert {value: _words.duration(value) for value in seconds} == seconds
    shares = {(0, 5): "0%", (5, 5): "100%", (1, 10**7): "<0.1%", (10**7 - 1, 10**7): ">99.9%", (0, 0): "—"}
    assert {pair: _words.share(*pair) for pair in shares} == shares
    times = {None: "—", 0.00035: "0.35 ms", 0.0042: "4.2 ms", 0.0336: "34 ms", 0.9999: "1 s", 2.34: "2.34 s"}
    assert {value: _words.latency(value) for value in times} == times


async def test_the_report_of_a_real_migration(tmp_path: Path) -> None:
    file = tmp_path / "rooms <1>.csv"
    file.write_text("GroupId,Member_Account,UnreadMsgNum\nroom,alice,1\nroom,bob,x\nnowhere,alice,2\nroom,alice,3\n")
    journal = tmp_path / "journal"
    async with Emulator() as service:
        service.state.add_group("room", "Public", members=["alice", "bob"], messages=5)
        watching = Recorder("set_unread_msg_num", 200.0)
        async with TIMClient(**service.client_options(), on_attempt=watching.attempt) as tim:
            with FileSource(file, UNREAD) as source:
                async with aclosing(run(tim, source, journal, recorder=watching)) as events:
                    async for _ in events:
                        pass
    page = Page(render(read_status(journal)))
    assert page.text_of("h1") == ["2 rows did not arrive"]
    assert "Migration of unread counts · rooms <1>.csv" in page.text_of("p")
    assert "The service accepted 1 of 4 rows." in page.text
    assert "1 was superseded by a later one" in page.text
    assert "rejected" in page.text_of("td")
    assert "finished" in page.text_of("td")
    assert "UnreadMsgNum: is not a whole number: 'x'" in page.text_of("td")
