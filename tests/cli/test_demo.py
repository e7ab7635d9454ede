from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tim_async.cli.demo import command
from tim_async.cli.demo.world import World, make_world
from tim_async.emulator import Emulator

from .conftest import Run

QUICK = ("--rows", "40", "--limit", "5000")
CHECKED = 60


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(40)


def test_the_demo(run: Run, world: World) -> None:
    """It prints and runs the commands of a migration; nothing is lost, wrong or refused."""
    result = run("demo", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "0 lost, 0 wrong, 0 refused"
    assert f"{CHECKED} rows" in result.stdout
    for endpoint in ("get_group_info", "set_unread_msg_num", "admin_set_msg_read", "get_c2c_unread_msg_num"):
        assert f"\n{endpoint} " in result.stdout
    for typed in ("unread counts.csv", "read reads.csv", "verify reads.csv"):
        assert f"\n$ tim-async migrate {typed} " in result.stderr
    # The demo has rows in all final states, and each reason.
    assert {kind for kind, _ in world.groups.values()} >= {"Public", "Meeting"}
    for reason in ("no such group", "the group is of type Meeting", "Member_Account: is empty", "is negative"):
        assert reason in result.stdout


def test_the_demo_needs_no_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores the proxy and the quota of the environment, which other commands use, and changes neither."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "intranet.test")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TIM_QUOTA_URL", "redis://127.0.0.1:1")
    before = dict(os.environ)
    result = run("demo", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "0 lost, 0 wrong, 0 refused"
    assert dict(os.environ) == before


def test_the_demo_as_json(run: Run) -> None:
    """One object per line; the last one is the result of the comparison."""
    result = run("demo", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    *events, compared = map(json.loads, result.stdout.splitlines())
    assert [event["event"] for event in events if event["event"] in ("finished", "verified")] == [
        "finished",
        "finished",
        "verified",
    ]
    assert compared["event"] == "compared"
    assert (compared["checked"], compared["lost"], compared["wrong"], compared["differences"]) == (CHECKED, 0, 0, [])
    seen = compared["emulator"]["endpoints"]
    assert seen["set_unread_msg_num"]["succeeded"] >= 40
    assert sum(endpoint["calls"] for endpoint in seen.values()) == compared["emulator"]["total"]["calls"]


def test_the_naive_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without retries, rows with a fault are lost; the output and the exit code report it."""
    fault = {"code": 10002, "endpoint": "set_unread_msg_num", "times": 2, "probability": 1.0}
    monkeypatch.setattr(command, "FAULTS", [fault])
    result = run("demo", "--naive", *QUICK)
    assert result.exit_code == 3, result.stderr
    assert "2 calls failed" in result.stderr
    assert result.stdout.splitlines()[-1] == "2 lost, 0 wrong, 0 refused"
    assert result.stdout.count(": lost, ") == 2


def test_the_demo_survives_its_faults(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with ten times the default of 2 % faults."""
    assert sum(fault["probability"] for fault in command.FAULTS) == pytest.approx(0.02)
    more = [{**fault, "probability": 10 * fault["probability"]} for fault in command.FAULTS]
    monkeypatch.setattr(command, "FAULTS", more)
    assert run("demo", *QUICK).exit_code == 0


def test_keep_writes_every_file_to_an_empty_folder(run: Run, tmp_path: Path) -> None:
    """It keeps files, journals, rejected rows and reports in an empty folder, and overwrites nothing."""
    folder = tmp_path / "some" / "demo"
    assert run("demo", *QUICK, "--keep", str(folder)).exit_code == 0
    for name in ("counts.csv", "counts.csv.journal", "counts.csv.rejected.jsonl", "counts.html", "reads.html"):
        assert (folder / name).stat().st_size, name
    again = run("demo", *QUICK, "--keep", str(folder))
    assert (again.exit_code, again.stdout) == (2, "")
    assert "the folder is not empty" in again.stderr
    assert run("demo", *QUICK, "--keep", str(folder / "counts.csv" / "x")).exit_code == 2


def test_an_interrupted_command_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_run", lambda *_, **__: 130)
    result = run("demo", *QUICK)
    assert (result.exit_code, result.stdout) == (130, "")


def test_the_world_is_the_same_each_time(world: World) -> None:
    assert make_world(40) == world
    assert len(make_world(command.ROWS).counts) == 2 * len(make_world(command.ROWS).reads) == 2_000


def test_unchanged_rows_are_lost_and_other_values_are_wrong(world: World) -> None:
    """An untouched service has lost every row: each of them changes something."""
    with Emulator() as service:
        world.fill(service.state)
        differences = list(world.differences(service.state))
        assert [difference.kind for difference in differences] == ["lost"] * CHECKED
        (group, member), (account, peer) = next(iter(world.counts)), next(iter(world.reads))
        service.state.set_unread_in_group(group, member, world.groups[group][1] - 1)
        service.state.mark_read(account, peer, 1)
        differences = list(world.differences(service.state))
    assert sorted((one.file, one.line) for one in differences if one.kind == "wrong") == [
        ("counts.csv", world.counts[group, member][0]),
        ("reads.csv", world.reads[account, peer][0]),
    ]
