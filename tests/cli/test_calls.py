from __future__ import annotations

import json
import re

import pytest

from tim_async import AuthError, ConnectFailed, RequestTimeout, TIMClient, TIMError
from tim_async._hooks import Attempt
from tim_async._lanes import Lane
from tim_async.cli import calls
from tim_async.emulator import Emulator
from tim_async.errors import CODES

from .conftest import Run
from .test_output import Terminal

GROUP = "@TGS#public"
GONE = CODES[70107]


def test_unread_of_an_account(run: Run, reach: dict[str, str]) -> None:
    """Without peers, the total over all conversations."""
    table = run("unread", "alice", env=reach)
    assert (table.exit_code, table.stderr) == (0, "")
    assert table.stdout.splitlines()[-1].split() == ["alice", "5"]
    document = run("unread", "alice", "--json", env=reach)
    assert json.loads(document.stdout) == {"to_account": "alice", "all_c2c_unread_msg_num": 5}


def test_unread_from_peers(run: Run, reach: dict[str, str]) -> None:
    """With peers, one count each, in the order they were given, repeats once."""
    table = run("unread", "alice", "carol", "bob", "carol", env=reach)
    assert table.exit_code == 0
    assert [line.split() for line in table.stdout.splitlines()[2:]] == [["carol", "2"], ["bob", "3"]]
    document = run("unread", "alice", "bob", "carol", "--json", env=reach)
    assert json.loads(document.stdout) == {"to_account": "alice", "counts": {"bob": 3, "carol": 2}, "errors": {}}


def test_more_peers_than_one_call_takes(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """Any number of peers is possible, ten per call."""
    peers = [f"peer{number}" for number in range(101)]
    service.state.add_account(*peers)
    result = run("unread", "alice", *peers, "--json", env=reach)
    assert json.loads(result.stdout)["counts"] == dict.fromkeys(peers, 0)
    assert service.report().total.calls == 11


def test_some_peers_fail(run: Run, reach: dict[str, str]) -> None:
    """A peer that fails is named with its code, the others are counted, and the exit code says so."""
    table = run("unread", "alice", "bob", "nobody", env=reach)
    assert table.exit_code == 3
    assert table.stdout.splitlines()[-1].split() == ["nobody", "-", "70107"]
    assert table.stderr == f"1 peer failed.\n70107: {GONE.meaning} {GONE.remedy}\n"
    several = run("unread", "alice", "nobody", "nobody-else", env=reach)
    assert several.stderr == f"2 peers failed.\n70107: {GONE.meaning} {GONE.remedy}\n"
    document = run("unread", "alice", "bob", "nobody", "--json", env=reach)
    assert document.exit_code == 3
    assert json.loads(document.stdout) == {
        "to_account": "alice",
        "counts": {"bob": 3},
        "errors": {"nobody": {"code": 70107, "info": "", "meaning": GONE.meaning, "remedy": GONE.remedy}},
    }


@pytest.mark.parametrize("kind", [ConnectFailed, RequestTimeout, AuthError])
def test_an_error_ends_with_its_remedy(kind: type[TIMError], monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The remedy is printed once, even if the error's text has it already."""
    error = kind(70009, "no.") if issubclass(kind, AuthError) else kind("no.")

    async def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(TIMClient, "get_all_c2c_unread_msg_num", fail)
    here = {"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": "f" * 64, "TIM_REGION": "cn"}
    result = run("unread", "alice", env=here)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.endswith(f"no. {error.remedy}\n" if kind is not AuthError else f" {error.remedy}\n")
    assert result.stderr.count(error.remedy) == 1


def test_names_of_every_script(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """JSON holds names as they are, and a table aligns them by their width on a terminal."""
    service.state.add_messages("alice", "陈大文", 7)
    service.state.add_messages("alice", "보라💜", 11)
    document = run("unread", "alice", "陈大文", "보라💜", "--json", env=reach)
    assert '"陈大文": 7' in document.stdout
    lines = run("unread", "alice", "陈大文", "보라💜", "bob", env=reach).stdout.splitlines()
    # Each wide character takes two columns, so that a line with three of them is three shorter.
    assert [len(line) for line in lines[2:]] == [len(lines[1]) - 3, len(lines[1]) - 3, len(lines[1])]


def test_mark_read(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """All messages become read; the confirmation is on standard error."""
    result = run("mark-read", "alice", "bob", env=reach)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Marked as read for alice: all messages from bob.\n"
    assert service.state.unread("alice", "bob") == 0
    assert service.state.unread("alice", "carol") == 2


@pytest.mark.parametrize("time", ["1756602000", "2025-08-31T09:00:00+08:00", "2025-08-31T01:00:00Z"])
def test_mark_read_until(run: Run, reach: dict[str, str], service: Emulator, time: str) -> None:
    """A time is unix seconds or ISO 8601 with a zone."""
    service.state.add_messages("bob", "carol", 1, at=1756602000 - 1)
    service.state.add_messages("bob", "carol", 1, at=1756602000)
    result = run("mark-read", "bob", "carol", "--time", time, "--json", env=reach)
    assert json.loads(result.stdout) == {
        "report_account": "bob",
        "peer_account": "carol",
        "msg_read_time": 1756602000,
    }
    assert service.state.unread("bob", "carol") == 1


def test_set_unread(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """The member's count is set."""
    result = run("set-unread", GROUP, "bob", "12", env=reach)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Set the unread count of bob in @TGS#public to 12.\n"
    assert service.state.unread_in_group(GROUP, "bob") == 12
    document = run("set-unread", GROUP, "bob", "3", "--json", env=reach)
    assert json.loads(document.stdout) == {"group_id": GROUP, "member_account": "bob", "unread_msg_num": 3}
    assert service.state.unread_in_group(GROUP, "bob") == 3


def test_receipts(run: Run, reach: dict[str, str]) -> None:
    """The number of readers of each message, in the order of the arguments."""
    table = run("receipts", GROUP, "119-120,118", env=reach)
    assert (table.exit_code, table.stderr) == (0, "")
    assert [line.split() for line in table.stdout.splitlines()[2:]] == [
        ["119", "1", "1"],
        ["120", "0", "2"],
        ["118", "2", "0"],
    ]
    document = run("receipts", GROUP, "119", "--json", env=reach)
    assert json.loads(document.stdout) == {
        "group_id": GROUP,
        "receipts": {"119": {"read_num": 1, "unread_num": 1}},
        "errors": {},
    }


def test_receipts_by_member(run: Run, reach: dict[str, str]) -> None:
    """The members who have and who have not read a message."""
    table = run("receipts", GROUP, "119", "--who", env=reach)
    assert (table.exit_code, table.stderr) == (0, "")
    document = json.loads(run("receipts", GROUP, "119", "--who", "--json", env=reach).stdout)
    assert {name: len(found) for name, found in document.items() if isinstance(found, list)} == {"read": 1, "unread": 1}
    assert [line.split() for line in table.stdout.splitlines()[2:]] == [
        [document["read"][0], "yes"],
        [document["unread"][0], "no"],
    ]
    without = run("receipts", GROUP, "1", "--who", env=reach)
    assert without.exit_code == 1
    assert "10062" in without.stderr
    assert run("receipts", GROUP, "118-119", "--who", env=reach).exit_code == 2


def test_an_inbox(run: Run, reach: dict[str, str]) -> None:
    """By conversation, newest first; and one that is empty."""
    table = run("inbox", "alice", env=reach)
    assert (table.exit_code, table.stderr) == (0, "")
    document = json.loads(run("inbox", "alice", "--json", env=reach).stdout)
    assert document == {"from_account": "alice", "counts": {"bob": 3, "carol": 2}, "errors": {}}
    assert [line.split() for line in table.stdout.splitlines()[2:]] == [
        [peer, str(count)] for peer, count in document["counts"].items()
    ]
    assert run("inbox", "nobody", env=reach).exit_code == 1


def test_receipts_of_many(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """A range takes as many calls as it needs, and messages without a receipt are named."""
    result = run("receipts", GROUP, "1-120", "--json", env=reach)
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert sorted(document["receipts"]) == ["118", "119", "120"]
    assert document["errors"]["1"]["code"] == 10062
    assert document["errors"]["1"]["remedy"] == CODES[10062].remedy
    assert len(document["errors"]) == 117
    assert service.report().total.calls == 3


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("unread", "nobody"), "90003"),
        (("mark-read", "nobody", "bob"), "90008"),
        (("set-unread", "@TGS#none", "bob", "1"), "10010"),
        (("set-unread", "名字", "bob", "1"), "10015"),
    ],
)
def test_calls_that_the_service_refuses(run: Run, reach: dict[str, str], args: tuple[str, ...], code: str) -> None:
    """One line with the service's code, no data, and exit code 1."""
    for more in ((), ("--json",)):
        result = run(*args, *more, env=reach)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")
        assert f"error {code}" in result.stderr
        assert result.stderr.endswith(f" {CODES[int(code)].remedy}\n")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("unread",),
        ("unread", ""),
        ("unread", "alice", ""),
        ("unread", "alice", "--no-such-option"),
        ("no-such-command",),
        ("mark-read", "alice"),
        ("mark-read", "alice", "bob", "--time", "2025-08-31T09:00"),
        ("mark-read", "alice", "bob", "--time", "yesterday"),
        ("set-unread", GROUP, "alice", "many"),
        ("set-unread", GROUP, "alice", "--", "-1"),
        ("receipts", GROUP),
        ("receipts", GROUP, "1-2000000"),
    ],
)
def test_wrong_usage(run: Run, reach: dict[str, str], service: Emulator, args: tuple[str, ...]) -> None:
    """Invalid arguments: exit code 2, a message on standard error, and nothing is sent."""
    result = run(*args, env=reach)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
    assert service.report().total.calls == 0


def test_a_wrong_key_is_not_shown(run: Run, reach: dict[str, str]) -> None:
    """A refused signature fails the command and shows neither the key nor the signature."""
    key = "another-key-that-is-long-enough-for-one"
    result = run("unread", "alice", env={**reach, "TIM_SECRET_KEY": key})
    assert result.exit_code == 1
    assert key not in result.output
    assert "eJ" not in result.output


def test_a_transient_error_is_retried(run: Run, reach: dict[str, str], service: Emulator) -> None:
    """A command retries as the client does."""
    service.fault(code=10002, times=1)
    assert run("unread", "alice", env=reach).exit_code == 0


def test_a_bar_counts_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the progress bar of many calls moves with each that succeeds, and then disappears."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with calls._progress_bar(300) as count:
        assert count is not None
        for _ in range(150):
            count(Attempt("get_group_msg_receipt", 1, Lane.BULK, 0.0, 0.0, None, "ConnectionLost"))
            count(Attempt("get_group_msg_receipt", 2, Lane.BULK, 0.0, 0.0, 0, None))
    assert re.findall(r"(\d+)%", terminal.getvalue())[-1] == "50"
    assert terminal.getvalue().endswith("\x1b[1A\x1b[2K")
    with calls._progress_bar(200) as count:
        assert count is None
