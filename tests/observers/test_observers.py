"""Real observers of a program see neither the key nor a UserSig in any ending of a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vcr  # type: ignore[import-untyped]  # it brings no types
from vcr.errors import CannotOverwriteExistingCassetteException  # type: ignore[import-untyped]

from tests.programs import PIPE, ForkedProgram
from tests.stand_in import StandIn, failure_of
from tim_async import TIMError

from .clients import client_of
from .endings import ENDINGS
from .watching import OBSERVERS

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
THOROUGH = ("printing", "sentry with everything")
# The thorough observers run over TLS, too, and one on both loops.
RUNS = [
    ("printing", "plain", "uvloop"),
    *((observer, "tls" if observer in THOROUGH else "plain", "asyncio") for observer in OBSERVERS),
]


@pytest.mark.parametrize(("observer", "network", "loop"), RUNS, ids=[", ".join(run) for run in RUNS])
def test_no_ending_of_a_call_shows_an_observer_a_secret(observer: str, network: str, loop: str) -> None:
    """Each observer has a process of its own, since most change the whole process."""
    command = ("-m", "tests.observers.run", observer, network, loop)
    with ForkedProgram(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE) as run:
        output, errors = run.communicate(timeout=300)
        assert run.wait() == 0, errors[-3000:]
    reports = {report["ending"]: report for report in map(json.loads, output.splitlines())}
    assert list(reports) == [ending.name for ending in ENDINGS]
    assert {name: report["outcome"] for name, report in reports.items() if not report["expected"]} == {}
    assert reports["answered"]["proved"], "the observer did not observe"
    assert {name: report["leaks"] for name, report in reports.items() if report["leaks"]} == {}


@pytest.mark.parametrize("serializer", ["yaml", "json"])
async def test_a_cassette_is_replayed_without_the_service(tmp_path: Path, serializer: str) -> None:
    """A recording made with one UserSig answers calls with another."""
    recorder = vcr.VCR(serializer=serializer, match_on=["method", "host", "path", "body"])
    cassette = str(tmp_path / "cassette")

    async def calls(url: str) -> list[Any]:
        async with client_of(url) as tim:
            return [await tim.get_all_c2c_unread_msg_num("alice"), await tim.get_c2c_unread_msg_num("alice", ["bob"])]

    async with StandIn() as service:
        with recorder.use_cassette(cassette):
            recorded = await calls(service.url)
        assert len(service.seen) == 2
    with recorder.use_cassette(cassette, record_mode=vcr.mode.NONE):
        assert await calls(service.url) == recorded
        async with client_of(service.url) as tim:
            failure = await failure_of(tim.get_all_c2c_unread_msg_num("bob"))
    assert isinstance(failure, TIMError | CannotOverwriteExistingCassetteException), "the cassette has no such call"
