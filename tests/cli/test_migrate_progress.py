"""What is shown while a migration runs, event by event, and what its commands say of themselves."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tim_async._attempts import Attempt
from tim_async._lanes import Lane
from tim_async.cli.migrate import ending, signals, tally
from tim_async.cli.migrate.command import migrate
from tim_async.cli.migrate.progress import EVERY, REFRESH, Bar, JsonLines, Lines, display_for, picture, shown
from tim_async.cli.migrate.signals import (
    Stopping,
    interruptible,
    run_stoppable,
    stop_signals,
    terminated_like_interrupted,
)
from tim_async.cli.migrate.tables import duration
from tim_async.cli.migrate.tally import News, Tally
from tim_async.cli.output import console_for
from tim_async.migrate import (
    Counts,
    Ended,
    Event,
    FileSource,
    Finished,
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
from .migrating import GROUP, UNREAD, events, one, write

COMMANDS = migrate.commands


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tally_of(*happened: Event, clock: Clock | None = None) -> Tally:
    found = Tally(Recorder("set_unread_msg_num", 200.0), 200.0, clock or Clock())
    for event in happened:
        found.take(event)
    return found


# In words


def test_a_line_while_reading() -> None:
    assert tally.line(tally_of()) == "reading: 0 rows so far"
    assert tally.line(tally_of(Reading(120_000))) == "reading: 120,000 rows so far"


def test_a_line_on_the_way() -> None:
    clock = Clock()
    seen = tally_of(Started(Counts(pending=10_000), resumed=False), clock=clock)
    assert tally.line(seen) == "0 of 10,000 rows (0.0 %); 0.0/s of 200/s; 0 retried, 0 refused, 0 failed"
    seen.take(RowFailed(5, ("g", "m", 1), 10010, "no such group: g"))
    clock.now += 10.0
    seen.take(Progress(Counts(pending=7_900, sending=100, done=1_990, lowered=5, failed=1, rejected=3, superseded=1)))
    assert tally.line(seen) == (
        "2,000 of 10,000 rows (20.0 %); 0.0/s of 200/s; "
        "0 retried, 0 refused, 1 failed (10010: 1), 3 rejected, 5 lowered; 0:00:40 left"
    )


def test_a_line_counts_requests() -> None:
    recorder = Recorder("set_unread_msg_num", 160.0)
    seen = Tally(recorder, 160.0, Clock())
    seen.take(Started(Counts(pending=9), resumed=False))
    recorder.attempt(Attempt("set_unread_msg_num", 1, Lane.BULK, 0.0, 0.1, 60007, "RateLimited"))
    recorder.attempt(Attempt("set_unread_msg_num", 2, Lane.BULK, 0.0, 0.1, 0, None))
    recorder.attempt(Attempt("get_group_info", 1, Lane.BULK, 0.0, 0.1, 0, None))
    assert "/s of 160/s; 1 retried, 1 refused, 0 failed" in tally.line(seen)
    numbers = seen.as_plain()
    assert (numbers["sent"], numbers["done"], numbers["refused"], numbers["retried"]) == (2, 1, 1, 1)
    assert numbers["seconds_left"] is None


def test_a_line_during_an_outage() -> None:
    clock = Clock()
    seen = tally_of(Started(Counts(pending=100), resumed=False), clock=clock)
    clock.now += 5.0
    seen.take(Progress(Counts(pending=50, done=50)))
    clock.now += 60.0
    seen.take(Waiting("no\x1bbody there", 30.0))
    clock.now += 50.0
    assert tally.line(seen) == (
        "50 of 100 rows (50.0 %); waiting for 0:01:20: no\\x1bbody there; 0 retried, 0 refused, 0 failed"
    )
    seen.take(Resumed(80.0))
    assert tally.line(seen).endswith("; 0:00:05 left")


def test_a_hundred_percent_is_all() -> None:
    assert tally.percent(Counts(pending=1, done=10**9)) == 99.9
    assert tally.percent(Counts(done=3)) == 100.0
    assert tally.percent(Counts()) == 100.0


def test_many_codes() -> None:
    """The most frequent few, and a sign that there are others."""
    seen = tally_of(*(RowFailed(1, (), code, "") for code in (1, 1, None, 2, 3, 4, 5)))
    assert tally.codes(seen) == " (1: 2, no code: 1, 2: 1, 3: 1, …)"


def test_news() -> None:
    """Beginnings, ends of outages and first failures; not what comes every second."""
    news = News()
    assert news.of(Reading(5)) == ""
    assert news.of(Started(Counts(pending=5, rejected=2), resumed=False)) == (
        "started: 5 of 7 rows are to be sent; 2 rejected"
    )
    assert news.of(Started(Counts(pending=5, done=2, failed=1), resumed=True)) == (
        "going on: 2 of 8 rows are taken, 5 are left (1 failed)"
    )
    assert news.of(Progress(Counts())) == ""
    assert news.of(Waiting("refused", 0.0)).startswith("waiting: refused")
    assert news.of(Waiting("refused", 5.0)) == ""
    assert news.of(Resumed(65.0)) == "back after 0:01:05"
    assert news.of(Waiting("refused", 0.0)) != ""
    assert news.of(RowLowered(9, ("g", "m", 7), 5)) != ""
    assert news.of(RowLowered(10, ("g", "m", 7), 5)) == ""
    told = [news.of(RowFailed(line, (), 10007, "\x1b no")) for line in range(8)]
    assert told[0] == "line 0 failed: 10007: \\x1b no"
    assert [bool(text) for text in told] == [True] * 5 + [False] * 3
    assert news.of(Finished(Counts(), Ended.DONE)) == ""


@given(st.floats(0, 10**7))
def test_durations(seconds: float) -> None:
    hours, minutes, rest = map(int, duration(seconds).split(":"))
    assert abs(hours * 3600 + minutes * 60 + rest - seconds) <= 0.5
    assert minutes < 60
    assert rest < 60


# Displays


def test_which_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on a terminal; beside JSON only when that goes elsewhere."""
    for out, err, as_json, kind in (
        (False, False, False, Lines),
        (True, False, False, Lines),
        (False, True, False, Bar),
        (True, True, False, Bar),
        (False, False, True, JsonLines),
        (False, True, True, JsonLines),
        (True, True, True, JsonLines),
    ):
        monkeypatch.setattr(sys, "stdout", Terminal() if out else io.StringIO())
        monkeypatch.setattr(sys, "stderr", terminal := Terminal() if err else io.StringIO())
        display = display_for(tally_of(), as_json=as_json)
        display.close()
        assert type(display) is kind
        assert ("\x1b[?25l" in terminal.getvalue()) == (err and not (out and as_json))


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One every ten seconds, and one at once for news."""
    seen = tally_of(Started(Counts(pending=5), resumed=False))
    lines = Lines(seen)
    lines.take(Progress(Counts(pending=5)))
    lines.take(RowFailed(3, (), 10010, "gone"))
    lines.tick()
    lines.warn("stopping")
    lines.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["line 3 failed: 10010: gone", tally.line(seen), "stopping"]
    assert lines.every == EVERY == 10.0


def test_json_every_ten_seconds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is looked at; also while reading, and during an outage."""
    clock = Clock()
    monkeypatch.setattr("tim_async.cli.migrate.progress.time.monotonic", clock)
    seen = tally_of(clock=clock)
    display = JsonLines(seen)

    def happens(event: Event) -> None:
        seen.take(event)
        display.take(event)

    def pass_time(seconds: float) -> None:
        for _ in range(round(seconds / REFRESH)):
            clock.now += REFRESH
            display.tick()

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
    told = events(out)
    names = "reading started progress progress waiting waiting progress resumed"
    assert [document["event"] for document in told] == names.split()
    assert told[2]["counts"]["done"] == 10
    assert told[5]["seconds"] > 1.0
    assert told[6]["seconds_left"] is None


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_the_bar_fits_its_terminal(width: int) -> None:
    """Two lines, or three while it waits, none of them longer than the terminal is wide."""
    clock = Clock()
    seen = tally_of(Started(Counts(pending=10**7), resumed=False), clock=clock)
    clock.now += 100.0
    seen.take(Progress(Counts(pending=10**7 - 20_000, done=20_000)))
    for expected in (2, 3):
        file = Terminal()
        console = Console(file=file, width=width, force_terminal=True, color_system=None)
        console.print(picture(seen))
        lines = file.getvalue().splitlines()
        assert len(lines) == expected
        assert all(len(line) <= width for line in lines)
        if width >= 80 and expected == 2:
            assert "20,000/10,000,000" in lines[0]
            assert "0.2 %" in lines[0]
            assert "13:51:40 left" in lines[0]
        seen.take(Waiting("the service is not there " * 10, 1.0))


def test_a_bar_without_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn with what there is."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", errors="backslashreplace")
    seen = tally_of(Started(Counts(pending=4, done=4), resumed=True))
    console_for(stream).print(picture(seen))
    stream.flush()
    assert "\\u" not in raw.getvalue().decode("ascii")
    assert "4/8" in raw.getvalue().decode("ascii")


async def test_a_bar_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the run; news stay, and are no markup."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar(tally_of(Started(Counts(pending=4), resumed=False)))

    async def run_to_a_bad_end() -> None:
        bar.tick()
        bar.take(RowFailed(3, (), None, "[red]no[/red] :smile:"))
        raise RuntimeError("the end")

    with pytest.raises(RuntimeError, match="the end"):
        await shown(bar, run_to_a_bad_end())
    assert "[red]no[/red] :smile:" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


async def test_a_display_that_breaks_is_not_kept_secret() -> None:
    """Such as one on a terminal that is gone: what it showed is ended, not left to run unseen."""

    class Broken(Lines):
        every = 0.0

        def tick(self) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await shown(Broken(tally_of()), asyncio.Event().wait())


# Signals


async def signals_to(first: list[str], *, number: signal.Signals) -> None:
    """Two of them, one after the other."""
    told = asyncio.Event()

    def note(what: str) -> None:
        first.append(what)
        told.set()

    with stop_signals(lambda: note("first"), lambda: note("second")):
        for _ in range(2):
            os.kill(os.getpid(), number)
            await told.wait()
            told.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals(number: signal.Signals) -> None:
    """First and second are told apart; then all is as it was."""
    before = signal.getsignal(signal.SIGTERM)
    told: list[str] = []
    await signals_to(told, number=number)
    assert told == ["first", "second"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_second_signal_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end when it was asked to is cut short some time later."""
    monkeypatch.setattr(signals, "GRACE", 0.0)
    told: list[str] = []

    async def deaf(stopping: Stopping) -> None:
        stopping.begun = lambda: told.append("asked")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert run_stoppable(deaf) is None
    assert told == ["asked"]


def test_what_ends_in_time_has_its_result() -> None:
    """And what fails its error, also when it fails to say that it was asked."""

    async def heedful(stopping: Stopping) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.event.wait()
        return "result"

    async def dumb(stopping: Stopping) -> None:
        def fail() -> None:
            raise RuntimeError("no voice")

        stopping.begun = fail
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    assert run_stoppable(heedful) == "result"
    with pytest.raises(RuntimeError, match="no voice"):
        run_stoppable(dumb)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_half_made_is_not_interrupted(number: signal.Signals) -> None:
    """The signal waits for the part that may be."""
    reached: list[str] = []

    def interrupted_before() -> None:
        with interruptible() as part:
            os.kill(os.getpid(), number)
            reached.append("made")
            with part:
                reached.append("never")

    def interrupted_within() -> None:
        with interruptible() as part, part:
            os.kill(os.getpid(), number)
            reached.append("never")

    def interrupted_after() -> None:
        with interruptible() as part:
            with part:
                pass
            os.kill(os.getpid(), number)
            reached.append("put away")

    with pytest.raises(KeyboardInterrupt):
        interrupted_before()
    assert reached == ["made"]
    with pytest.raises(KeyboardInterrupt):
        interrupted_within()
    with pytest.raises(KeyboardInterrupt):
        interrupted_after()
    assert reached == ["made", "put away"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_terminated_outside_a_loop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_the_middle_of_reading(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """A file without end is read no further; once is enough, and twice does no harm."""
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
    assert result.stderr.endswith("Interrupted while reading; nothing was sent, and the same command begins anew.\n")
    pressed = 0
    result = run("migrate", "unread", file, "--json", env=reach)
    assert result.exit_code == 130
    assert one(result.stdout, "finished")["ended"] == "interrupted"


def test_an_interrupt_while_the_rows_are_written(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is there already, and the same command writes them."""

    def interrupted(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    with monkeypatch.context() as patch:
        patch.setattr(ending, "write_rejects", interrupted)
        result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 130
    assert "in all" in result.stdout
    assert f"interrupted before {file}.rejected.jsonl was written" in result.stderr
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    assert "nowhere" in Path(f"{file}.rejected.jsonl").read_text()


# What the commands say of themselves


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(run: Run, name: str) -> None:
    """It shows examples, and each of them is one that the command takes."""
    text = run("migrate", name, "--help").stdout
    examples = [line.strip() for line in text.split("Examples:\n")[1].split("\n\n")[0].splitlines()]
    assert len(examples) >= 2
    for example in examples:
        (part,) = [part for part in example.split(" | ") if part.startswith("tim-async ")]
        words = shlex.split(part)
        assert words[:3] == ["tim-async", "migrate", name]
        COMMANDS[name].make_context(name, words[3:])


@pytest.mark.parametrize("name", ["unread", "read"])
def test_the_help_tells_the_exit_codes(run: Run, name: str) -> None:
    text = run("migrate", name, "--help").stdout.split("Exit codes:\n")[1]
    assert [line.split()[0] for line in text.splitlines()[:6]] == ["0", "1", "2", "3", "4", "130"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_and_none_takes_a_secret(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help.endswith((".", "]")), parameter.name
        assert not [option for option in parameter.opts if "key" in option or "secret" in option]
