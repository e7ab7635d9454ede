"""Absurd answers of any size and shape: rows or the run fail with an error, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.programs import PIPE, ForkedProgram, in_thread
from tests.stand_in import Action, Reply, Seen, StandIn, ok

from .storing import command

pytestmark = pytest.mark.processes

FILES = {
    "unread": "GroupId,Member_Account,UnreadMsgNum\n" + "".join(f"g,m{number},1\n" for number in range(30)),
    "read": "Report_Account,Peer_Account,MsgReadTime\n" + "".join(f"a,p{number},1756602000\n" for number in range(30)),
}
CONTROLS = "\x1b[2J\x1b]0;title\x07\x9b31m\n\r\u202e"
ANSWERS = {
    "a code of 31 digits": b'{"ErrorCode": 1' + b"0" * 30 + b"}",
    "a code of 5,000 digits": b'{"ErrorCode": ' + b"9" * 5000 + b"}",
    "a negative code": b'{"ErrorCode": -1' + b"0" * 30 + b"}",
    "a code that is a list": b'{"ErrorCode": [1]}',
    "a code that is NaN": b'{"ErrorCode": NaN}',
    "codes within a group": b'{"ErrorCode": 0, "GroupInfo": [{"GroupId": "g", "ErrorCode": 1' + b"0" * 30 + b"}]}",
    "numbers within a group": b'{"ErrorCode": 0, "GroupInfo": [{"GroupId": "g", "Type": 7, "NextMsgSeq": 1'
    + b"0" * 30
    + b"}]}",
    "nested": b'{"ErrorCode":' + b"[" * 100_000,
    "a long text with control characters": json.dumps(
        {"ErrorCode": 10007, "ErrorInfo": CONTROLS + "x" * 2_000_000}
    ).encode(),
    "a text that is an object": b'{"ErrorCode": 10007, "ErrorInfo": {"a": [1, 2]}}',
}


def migrate(kind: str, file: Path, url: str, *options: str) -> ForkedProgram:
    return command(url, kind, file, "--concurrency", 5, *options, stdout=PIPE, stderr=PIPE)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        *(("unread", answer) for answer in ANSWERS if "within" not in answer),
        *(("read", answer) for answer in list(ANSWERS)[::8]),
        *(("get_group_info", answer) for answer in ANSWERS if "5,000" not in answer),
    ],
)
async def test_an_absurd_answer(tmp_path: Path, asked: str, answer: str) -> None:
    """One signal ends the run, and no control character is printed; with sensible answers the same command finishes."""
    kind = "read" if asked == "read" else "unread"
    file = tmp_path / "rows.csv"
    file.write_text(FILES[kind])

    def sensible(seen: Seen) -> Action:
        if seen.path.endswith("/get_group_info"):
            return ok(GroupInfo=[{"GroupId": "g", "ErrorCode": 0, "Type": "Public", "NextMsgSeq": 100}])
        return ok()

    def absurd(seen: Seen) -> Action:
        if seen.path.endswith("/get_group_info") is (asked == "get_group_info"):
            return Reply(ANSWERS[answer])
        return sensible(seen)

    async with StandIn(answer=absurd) as service:
        with migrate(kind, file, service.url) as process:
            arrived = asyncio.create_task(service.until(2))
            ended = asyncio.create_task(in_thread(process.communicate))
            await asyncio.wait([arrived, ended], return_when=asyncio.FIRST_COMPLETED)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                out, err = await ended
            arrived.cancel()
        output = out + err
        assert process.returncode in (1, 3, 130), output
        assert "Traceback" not in output
        assert not [sign for sign in ("\x1b", "\x9b", "\r", "\u202e") if sign in output]
        assert max(map(len, output.splitlines())) < 1000
        rejected = file.with_name("rows.csv.rejected.jsonl")
        assert not rejected.exists() or not {"\x1b", "\x9b", "\u202e"} & set(rejected.read_text())

        # Failed rows are final; the rest is sent.
        service.answer = sensible
        with migrate(kind, file, service.url, "--json") as process:
            out, err = await in_thread(process.communicate)
        assert process.returncode in (0, 3), err
        assert json.loads(out.splitlines()[-1])["counts"]["left"] == 0
    assert [violation for violation in service.violations if "came twice" not in violation] == []
