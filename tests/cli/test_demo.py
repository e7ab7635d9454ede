from __future__ import annotations

import asyncio
import copy
import io
import json
import sys

import pytest

from tim_async._attempts import Attempt
from tim_async._lanes import Lane
from tim_async.cli.demo import command, report
from tim_async.cli.demo.compare import compare
from tim_async.cli.demo.naive import run_naively
from tim_async.cli.demo.process import Final, ServiceProcess
from tim_async.cli.demo.progress import Progress, line, live_table, shown
from tim_async.cli.demo.results import COUNT, ENDPOINTS, MARK, RECEIPTS, SET, Results
from tim_async.cli.demo.run import run as run_job
from tim_async.cli.demo.sample import read_shipped
from tim_async.cli.demo.service import fill, final_state
from tim_async.cli.demo.world import World, build
from tim_async.cli.failures import Failure
from tim_async.cli.output import console_for
from tim_async.emulator import Emulator

from .conftest import Run

QUICK = ("--rows", "40", "--limit", "5000")
SAMPLE = read_shipped(40)


@pytest.fixture(scope="module")
def world() -> World:
    return build(SAMPLE)


def progress() -> Progress:
    return Progress(dict.fromkeys(ENDPOINTS, 10))


def final(service: Emulator, world: World) -> Final:
    state = final_state(service.state, world.as_plain())
    conversations = {(member, peer): (unread, until) for member, peer, unread, until in state["conversations"]}
    return Final(service.report().as_dict(), state["groups"], conversations)


def test_the_demo(run: Run) -> None:
    """Nothing lost, nothing wrong; what it says is what the emulator counted, and nothing on stdout is progress."""
    result = run("demo", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "0 lost, 0 wrong"
    for endpoint in ENDPOINTS:
        assert f"\n{endpoint} " in result.stdout
    assert "failed attempts" in result.stderr
    assert "failed attempts" not in result.stdout
    for invalid in SAMPLE.invalid:
        assert f"  line {invalid.line}: {invalid.reason}" in result.stdout


def test_the_demo_as_json(run: Run) -> None:
    """One document, whose numbers agree with each other."""
    result = run("demo", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["lost"], document["wrong"], document["differences"]) == (0, 0, [])
    assert document["rows"]["valid"] == document["comparison"][SET]["checked"] == 40
    seen = document["emulator"]["endpoints"]
    assert seen[SET]["succeeded"] >= 40
    assert sum(seen[name]["calls"] for name in ENDPOINTS) == document["emulator"]["total"]["calls"]


def test_the_naive_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without retries, what meets a fault is lost, the report says so, and so does the exit code."""
    monkeypatch.setattr(command, "FAULTS", [{"code": 10002, "endpoint": SET, "times": 2, "probability": 1.0}])
    result = run("demo", "--naive", *QUICK, "--json")
    assert result.exit_code == 3, result.stderr
    document = json.loads(result.stdout)
    assert document["naive"] is True
    assert (document["lost"], document["wrong"]) == (2, 0)
    assert document["comparison"][SET]["reported_failed"] == 2
    assert [difference["reported"] for difference in document["differences"]] == ["error 10002 (ServerBusy)"] * 2
    table = run("demo", "--naive", *QUICK)
    assert table.exit_code == 3
    assert table.stdout.splitlines()[-1] == "2 lost, 0 wrong"
    assert "error 10002 (ServerBusy): 2" in table.stdout


def test_the_demo_survives_its_faults(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more than it has by default."""
    monkeypatch.setattr(command, "FAULTS", [{**fault, "probability": 0.05} for fault in command.FAULTS])
    assert run("demo", *QUICK).exit_code == 0


def test_the_faults_are_two_in_a_hundred() -> None:
    assert sum(fault["probability"] for fault in command.FAULTS) == pytest.approx(0.02)


def test_an_emulator_that_ends(world: World) -> None:
    """An error of the service's process is a failure of the command, not a wait for ever."""
    with pytest.raises(Failure, match="ended by itself"), ServiceProcess(world, 0, [{"no": "fault"}]):
        raise AssertionError("it started")


async def test_both_ways_do_the_job(world: World) -> None:
    """Left alone, either does everything and is judged to have."""
    for do in (run_job, run_naively):
        async with Emulator(limit=None) as service:
            fill(service.state, world.as_plain())
            results = await do(world, service.client_options(), 5000, progress())
            comparison = compare(world, results, final(service, world))
        assert comparison.differences == []
        assert all(comparison.checked.values())


async def test_what_was_not_done_is_lost(world: World) -> None:
    """An untouched service has lost every row and every answer."""
    async with Emulator(limit=None) as service:
        fill(service.state, world.as_plain())
        results = Results()
        for row in world.rows:
            results.fail(SET, (row.group_id, row.member_account), "not done")
        comparison = compare(world, results, final(service, world))
    assert comparison.count("lost") == sum(comparison.checked.values()) == len(comparison.differences)
    assert comparison.count("wrong") == 0
    assert comparison.done_yet_reported == 0


async def test_what_refuses_everything_is_named(world: World) -> None:
    """Failures of whole calls come back for each of their items, and each is lost."""
    for do in (run_job, run_naively):
        for code in (10004, 10007):
            async with Emulator(limit=None) as service:
                fill(service.state, world.as_plain())
                service.fault(code=code)
                results = await do(world, service.client_options(), 5000, progress())
                comparison = compare(world, results, final(service, world))
            assert comparison.count("lost") == sum(comparison.checked.values())
            assert all(difference.reported for difference in comparison.differences)


async def test_what_is_otherwise_is_wrong(world: World) -> None:
    """A state or an answer that is neither what was nor what should be is told apart from a lost one."""
    async with Emulator(limit=None) as service:
        fill(service.state, world.as_plain())
        results = await run_job(world, service.client_options(), 5000, progress())
        end = final(service, world)
    row = next(row for row in world.rows if not world.ignored(row))
    end.unread[row.group_id][row.member_account] = 10**6
    mark = world.marks[0]
    key = (mark.member_account, str(mark.peer_account))
    end.conversations[key] = (end.conversations[key][0] + 1, end.conversations[key][1])
    account, counts = next(iter(results.counts.items()))
    results.counts = copy.deepcopy(results.counts)
    results.counts[account][next(iter(counts))] += 1
    by_seq = next(iter(results.receipts.values()))
    by_seq[next(iter(by_seq))] = (10**6, 0)
    comparison = compare(world, results, end)
    assert [(difference.endpoint, difference.kind) for difference in comparison.differences] == [
        (SET, "wrong"),
        (MARK, "wrong"),
        (COUNT, "wrong"),
        (RECEIPTS, "wrong"),
    ]
    text = "\n".join(
        part
        for part in report.as_text(SAMPLE, results, end, comparison, limit=200, naive=False)
        if isinstance(part, str)
    )
    assert f"line {row.line}: " in text
    assert "not reported: 4" in text
    assert "0 lost, 4 wrong" in text


async def test_done_and_yet_reported(world: World) -> None:
    """An answer that was lost after the work was done is a failure to the naive, though nothing is lost."""
    async with Emulator(limit=None) as service:
        fill(service.state, world.as_plain())
        service.fault(drop="after", endpoint=SET, times=2)
        results = await run_naively(world, service.client_options(), 5000, progress())
        comparison = compare(world, results, final(service, world))
    assert comparison.differences == []
    assert comparison.done_yet_reported == 2


def test_progress_counts_attempts() -> None:
    seen = progress()
    seen.sample()
    seen.attempt(Attempt(SET, 1, Lane.BULK, 0.0, 0.0, 10002, "ServerBusy"))
    seen.attempt(Attempt(SET, 2, Lane.BULK, 0.0, 0.0, 0, None))
    counts = seen.counts[SET]
    assert (counts.attempts, counts.done, counts.failures, counts.retries) == (2, 1, 1, 1)
    assert f"{SET} 1/10 at 0/s" in line(seen)
    assert line(seen).endswith("; 1 failed attempts, 1 retries")


def test_progress_rates() -> None:
    """Requests over the time between the samples."""
    counts = progress().counts[SET]
    assert counts.rate() == 0.0
    counts.recent.extend([(10.0, 0), (10.5, 90), (11.0, 200)])
    assert counts.rate() == 200.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [80, 120])
def test_progress_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """One line for each endpoint, even late in a long run."""
    monkeypatch.setenv("COLUMNS", str(width))
    seen = Progress(dict.fromkeys(ENDPOINTS, 10_000))
    for counts in seen.counts.values():
        counts.done = counts.attempts = 9_999
    terminal = Terminal()
    console_for(terminal).print(live_table(seen))
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 2 + len(ENDPOINTS)
    assert all("9,999/10,000" in row for row in lines[2:])


async def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn on standard error, and the cursor is given back."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    async def one_step() -> None:
        await asyncio.sleep(0)

    await shown(progress(), one_step())
    assert SET in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
