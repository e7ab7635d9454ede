"""The output of a migration, event by event, and its end by signals."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.emulator.support import Clock
from tim_async._hooks import Attempt
from tim_async._lanes import Lane
from tim_async.cli.migrate import ending, signals
from tim_async.cli.migrate.display import BAR_INTERVAL, LINE_INTERVAL, Display, bar
from tim_async.cli.migrate.signals import run_interruptibly, sigterm_as_interrupt
from tim_async.cli.migrate.tables import duration
from tim_async.cli.migrate.tally import Tally, percent
from tim_async.cli.output import console_for
from tim_async.cli.stdio import OutputLost
from tim_async.migrate import (
    Counts,
    Ended,
    Event,
    FileSource,
    Finished,
    MendedRows,
    PaceChanged,
    Progress,
    Reading,
    Recorder,
    Resumed,
    Row,
    RowFailed,
    RowLowered,
    Started,
    Waiting,
)

from .conftest import Run
from .migrating import GROUP, UNREAD, events, names, one, write
from .test_output import Terminal

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def tally_of(*happened: Event, clock: Clock | None = None) -> Tally:
    found = Tally(Recorder("set_unread_msg_num", 200.0), 200.0, 1.0, clock or Clock())
    for event in happened:
        found.add(event)
    return found


def told(tally: Tally, event: Event) -> str:
    """Add an event, and return its message."""
    tally.add(event)
    return tally.message(event)


# As text


def test_a_line_while_reading() -> None:
    assert tally_of().line() == "reading: 0 rows so far"
    seen = tally_of(Reading(120_000))
    assert seen.line() == "reading: 120,000 rows so far"
    # On a terminal there is no bar beside it, because the total is unknown.
    console_for(terminal := Terminal()).print(bar(seen))
    assert terminal.getvalue().strip() == seen.line()


def test_a_line_on_the_way() -> None:
    clock = Clock()
    seen = tally_of(Started(Counts(pending=10_000), resumed=False), clock=clock)
    assert seen.line() == "0 of 10,000 rows (0.0 %); 0.0/s of 200/s; 0 retried, 0 refused, 0 failed"
    seen.add(RowFailed(5, ("g", "m", 1), 10010, "no such group: g"))
    clock.now += 10.0
    seen.add(Progress(Counts(pending=7_900, sending=100, done=1_990, lowered=5, failed=1, rejected=3, superseded=1)))
    assert seen.line() == (
        "2,000 of 10,000 rows (20.0 %); 0.0/s of 200/s; "
        "0 retried, 0 refused, 1 failed (10010: 1), 3 rejected, 5 lowered; 0:00:40 left"
    )
    for code in (10010, None, 2, 3, 4, 5):
        seen.add(RowFailed(1, (), code, ""))
    assert "7 failed (10010: 2, no code: 1, 2: 1, 3: 1, …)" in seen.line()


def test_requests_are_counted() -> None:
    recorder = Recorder("set_unread_msg_num", 160.0)
    seen = Tally(recorder, 200.0, 0.8, Clock())
    seen.add(Started(Counts(pending=9), resumed=False))
    recorder.attempt(Attempt("set_unread_msg_num", 1, Lane.BULK, 0.0, 0.1, 60007, "RateLimited"))
    recorder.attempt(Attempt("set_unread_msg_num", 2, Lane.BULK, 0.0, 0.1, 0, None))
    recorder.attempt(Attempt("get_group_info", 1, Lane.BULK, 0.0, 0.1, 0, None))
    assert "/s of 160/s; 1 retried, 1 refused, 0 failed" in seen.line()
    name, numbers = seen.progress_event()
    assert (name, numbers["seconds_left"]) == ("progress", None)
    assert (numbers["sent"], numbers["done"], numbers["refused"], numbers["retried"]) == (2, 1, 1, 1)
    assert seen.share_of_limit == 1 / 160
    assert told(seen, PaceChanged(300.0, 0.5)) == "pace changed to 150/s (--rate 300, --share 0.5)"
    assert seen.json_event(PaceChanged(300.0, 0.5)) == (
        "pace_changed",
        {"rate": 300.0, "share": 0.5, "limit": 150.0},
    )
    assert seen.share_of_limit is None


def test_a_line_during_an_outage() -> None:
    clock = Clock()
    seen = tally_of(Started(Counts(pending=100), resumed=False), clock=clock)
    clock.now += 5.0
    seen.add(Progress(Counts(pending=50, done=50)))
    clock.now += 60.0
    seen.add(Waiting("no\x1bbody there", 30.0))
    clock.now += 50.0
    assert seen.line() == (
        "50 of 100 rows (50.0 %); waiting for 0:01:20: no\\x1bbody there; 0 retried, 0 refused, 0 failed"
    )
    seen.add(Resumed(80.0))
    assert seen.line().endswith(" 0 failed"), "the time left is unknown"


def test_the_time_left() -> None:
    """By the rows of the last two minutes, or since the last outage; it counts down between two events."""
    clock = Clock()
    seen, settled = tally_of(Started(Counts(pending=10**6), resumed=False), clock=clock), 0

    def work(seconds: int, rate: int) -> None:
        nonlocal settled
        for _ in range(seconds):
            clock.now += 1.0
            settled += rate
            seen.add(Progress(Counts(pending=10**6 - settled, done=settled)))

    def left() -> float | None:
        seconds: float | None = seen.progress_event()[1]["seconds_left"]
        return seconds

    assert left() is None
    work(1, 100)
    assert left() == 9_999.0
    clock.now += 0.5
    assert left() == 9_998.5
    work(150, 50)
    assert left() == pytest.approx((10**6 - settled) / 50, abs=0.1)
    seen.add(Waiting("nobody", 30.0))
    work(600, 0)
    assert seen.line().endswith(" 0 failed")
    seen.add(Resumed(630.0))
    work(1, 0)
    assert left() is None
    work(1, 200)
    assert left() == (10**6 - settled) / 200
    seen.add(Progress(Counts(done=10**6)))
    assert left() == 0.0


def test_100_percent_means_every_row() -> None:
    assert percent(Counts(pending=1, done=10**9)) == 99.9
    assert percent(Counts(done=3)) == 100.0
    assert percent(Counts()) == 100.0


def test_messages() -> None:
    """Starts, ends of outages and first failures have a message; recurring events have none."""
    seen = tally_of()
    assert told(seen, Reading(5)) == ""
    assert told(seen, Started(Counts(pending=5, rejected=2), resumed=False)) == (
        "started: 5 of 7 rows to send; 2 rejected"
    )
    assert told(seen, Started(Counts(pending=5, done=2, failed=1), resumed=True)) == (
        "resuming: 2 of 8 rows accepted, 5 left (1 failed)"
    )
    assert told(seen, Progress(Counts())) == ""
    assert told(seen, Waiting("refused", 0.0)).startswith("waiting: refused")
    assert told(seen, Waiting("refused", 5.0)) == ""
    assert told(seen, Resumed(65.0)) == "resumed after 0:01:05"
    assert told(seen, Waiting("refused", 0.0)) != ""
    assert told(seen, RowLowered(9, ("g", "m", 7), 5)) != ""
    assert told(seen, RowLowered(10, ("g", "m", 7), 5)) == ""
    failures = [told(seen, RowFailed(line, (), 10007, "\x1b no")) for line in range(8)]
    assert failures[0] == "line 0 failed: 10007: \\x1b no"
    assert [bool(text) for text in failures] == [True] * 5 + [False] * 3
    assert told(seen, MendedRows(1, 2, 0, (3, 4))) == (
        "mended: 1 row to send; 2 superseded by later rows; 2 skipped: already accepted or superseded, or not in"
        " this file"
    )
    assert told(seen, Finished(Counts(), Ended.DONE)) == ""


@given(st.floats(0, 10**7))
def test_durations(seconds: float) -> None:
    hours, minutes, rest = map(int, duration(seconds).split(":"))
    assert abs(hours * 3600 + minutes * 60 + rest - seconds) <= 0.5
    assert minutes < 60
    assert rest < 60


# Displays


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("out", "err"), [(False, False), (True, False), (False, True), (True, True)])
async def test_the_display_depends_on_the_streams(
    monkeypatch: pytest.MonkeyPatch, out: bool, err: bool, as_json: bool, term: str
) -> None:
    """A bar on a capable terminal; with JSON, only if that goes elsewhere, and otherwise no text."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", stdout := Terminal() if out else io.StringIO())
    monkeypatch.setattr(sys, "stderr", stderr := Terminal() if err else io.StringIO())
    seen = tally_of(Started(Counts(pending=5), resumed=False))
    display = Display(seen, as_json=as_json)

    async def course() -> None:
        display.refresh()
        display.show_event("line 3 failed", ("row_failed", {"line": 3}))
        display.say("stopping")

    await display.run(course())
    live = err and term != "dumb" and not (out and as_json)
    assert ("\x1b[?25l" in stderr.getvalue()) == live
    assert display.interval == (BAR_INTERVAL if live else LINE_INTERVAL)
    plain = ["stopping"] if as_json else [seen.line(), "line 3 failed", "stopping"]
    if not live:
        assert stderr.getvalue().splitlines() == plain
    assert [document["event"] for document in events(stdout.getvalue())] == (["row_failed"] if as_json else [])


def test_json_every_ten_seconds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the interval of refreshing; also while reading, and during an outage."""
    clock = Clock()
    monkeypatch.setattr("tim_async.cli.migrate.display.time.monotonic", clock)
    seen = tally_of(clock=clock)
    display = Display(seen, as_json=True)

    def happens(event: Event) -> None:
        seen.add(event)
        display.show_event(seen.message(event), seen.json_event(event))

    def pass_time(seconds: float) -> None:
        for _ in range(round(seconds / BAR_INTERVAL)):
            clock.now += BAR_INTERVAL
            display.refresh()

    happens(Reading(1))
    pass_time(12.0)
    happens(Started(Counts(pending=100), resumed=False))
    happens(Progress(Counts(pending=90, done=10)))
    pass_time(20.0)
    happens(Waiting("nobody", 1.0))
    happens(Waiting("nobody", 5.0))
    pass_time(10.0)
    happens(Resumed(15.0))
    happens(Finished(Counts(), Ended.DONE))
    out, err = capsys.readouterr()
    assert err == ""
    documents = events(out)
    names = "reading started progress progress waiting waiting resumed"
    assert [document["event"] for document in documents] == names.split()
    assert documents[2]["counts"]["done"] == 10
    assert documents[5]["seconds"] > 1.0


@pytest.mark.parametrize("width", [28, 40, 60, 80, 120, 200])
def test_the_bar_fits_its_terminal(width: int) -> None:
    """No line exceeds the width, and no text is cut."""
    clock = Clock()
    seen = tally_of(Started(Counts(pending=10**7), resumed=False), clock=clock)
    clock.now += 100.0
    seen.add(Progress(Counts(pending=10**7 - 1_020_000, done=1_020_000)))
    seen.add(RowFailed(1, (), 10010, ""))
    for waits in (False, True):
        file = Terminal()
        Console(file=file, width=width, force_terminal=True, color_system=None).print(bar(seen))
        drawn, *lines = file.getvalue().splitlines()
        assert all(len(line) <= width for line in [drawn, *lines])
        assert drawn.startswith("━")
        assert " ".join(line.rstrip() for line in lines) == seen.line()
        assert ("0:14:40 left" in seen.line()) != waits
        seen.add(Waiting("the service is not there, and it will not come back", 1.0))


def test_a_bar_without_utf8() -> None:
    """It is drawn with ASCII."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", errors="backslashreplace")
    console_for(stream).print(bar(tally_of(Started(Counts(pending=4, done=4), resumed=True))))
    stream.flush()
    assert "\\u" not in raw.getvalue().decode("ascii")
    assert "4 of 8 rows" in raw.getvalue().decode("ascii")


async def test_a_bar_is_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an error; messages stay, and are not markup."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    display = Display(tally_of(Started(Counts(pending=4), resumed=False)), as_json=False)

    async def run_to_a_bad_end() -> None:
        display.refresh()
        display.show_event("[red]no[/red] :smile:", None)
        raise RuntimeError("the end")

    with pytest.raises(RuntimeError, match="the end"):
        await display.run(run_to_a_bad_end())
    assert "[red]no[/red] :smile:" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


async def test_an_error_of_the_display_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example on a closed terminal: the coroutine ends with it."""

    def broken() -> Any:
        raise BrokenPipeError

    monkeypatch.setattr(Display, "interval", 0.0)
    seen = tally_of()
    monkeypatch.setattr(seen, "line", broken)
    with pytest.raises(BrokenPipeError):
        await Display(seen, as_json=False).run(asyncio.Event().wait())


async def test_lost_output_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt to write calls `on_output_lost`, and does not raise."""

    def lost(*_: Any, **__: Any) -> Any:
        raise OutputLost("standard error", "Input/output error")

    for name in ("say", "emit"):
        monkeypatch.setattr(f"tim_async.cli.migrate.display.{name}", lost)
    for as_json in (False, True):
        display = Display(tally_of(), as_json=as_json)
        with pytest.raises(OutputLost):
            display.show_event("news", ("news", {}))
        told: list[OutputLost] = []
        display.on_output_lost = told.append
        display.show_event("news", ("news", {}))
        display.say("news")
        assert len(told) == 2


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals(number: signal.Signals) -> None:
    """The first requests the stop, the second cancels; then the earlier handlers are back."""
    before = signal.getsignal(number)
    told: list[str] = []

    async def deaf(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        told.append("asked")
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    assert run_interruptibly(deaf) is None
    assert told == ["asked"]
    assert signal.getsignal(number) is before


def test_one_signal_ends_a_coroutine_that_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine that does not stop on request is cancelled some time later."""
    monkeypatch.setattr(signals, "GRACE", 0.0)

    async def deaf(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        await asyncio.Event().wait()

    assert run_interruptibly(deaf) is None


def test_a_coroutine_that_stops_in_time_has_its_result() -> None:

    async def heedful(stop: asyncio.Event) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        return "result"

    assert run_interruptibly(heedful) == "result"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_sighup_stays_ignored() -> None:
    """As under ``nohup``."""

    async def look(_: asyncio.Event) -> tuple[Any, Any]:
        return signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        found = run_interruptibly(look)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert found is not None
    assert found[0] is signal.SIG_IGN
    assert found[1] is not signal.SIG_DFL


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_outside_a_loop_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_the_middle_of_reading(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """Reading an endless file stops, and leaves no journal; one signal is enough, and a second does no harm."""
    pressed = 0

    def endless(_: FileSource) -> Iterator[Row]:
        nonlocal pressed
        for line in range(1, 100_000_000):
            if line % 10_000 == 5_000 and pressed < presses:
                pressed += 1
                os.kill(os.getpid(), signal.SIGINT)
            yield Row(line, (GROUP, f"m{line}", 1))

    monkeypatch.setattr(FileSource, "read", endless)
    file = write(tmp_path / "counts.csv", UNREAD)
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.endswith(
        "Interrupted before the first row; nothing was sent.  Run the same command to start over.\n"
    )
    pressed = 0
    result = run("migrate", "unread", file, "--json", env=reach)
    assert result.exit_code == 130
    assert one(result.stdout, "finished")["ended"] == "interrupted"
    assert names(tmp_path) == ["counts.csv"]


def test_an_interrupt_while_the_rows_are_written(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is complete, and the same command writes the rows."""

    def interrupted(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    with monkeypatch.context() as patch:
        patch.setattr(ending, "write_rejects", interrupted)
        result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 130
    assert "by the service" in result.stdout
    assert f"interrupted before {file}.rejected.jsonl was written" in result.stderr
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    assert "nowhere" in Path(f"{file}.rejected.jsonl").read_text()
