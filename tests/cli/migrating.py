"""Helpers of the tests of ``migrate``: files of rows, the service's state, and the command as a process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.programs import PIPE, ForkedProgram
from tim_async.cli.output import plain
from tim_async.emulator import Emulator
from tim_async.migrate import Status, read_status

UNREAD = "GroupId,Member_Account,UnreadMsgNum"
READ = "Report_Account,Peer_Account,MsgReadTime"
GROUP = "@TGS#public"
"""A group of the example world with 120 messages and the members alice, bob and carol."""

Run = Callable[..., Any]


def write(path: Path, header: str, *rows: str) -> str:
    """Write a CSV file, and return its path."""
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def crowd(service: Emulator, members: int, messages: int = 1000) -> list[str]:
    """Add a group ``crowd``, and return a row for each member: ``m7`` gets 7 unread messages, and so on."""
    service.state.add_group("crowd", messages=messages, members=[f"m{number}" for number in range(members)])
    return [f"crowd,m{number},{number}" for number in range(members)]


def arrived(service: Emulator, members: int) -> int:
    """Count the rows of `crowd` in the service; the count of m0 is 0 in any case."""
    return sum(service.state.unread_in_group("crowd", f"m{number}") == number for number in range(1, members))


def env_of(service: Emulator, **changes: str) -> dict[str, str]:
    """Return the environment with the URL and the credentials of a service."""
    options = {name: str(value) for name, value in service.client_options().items()}
    return {f"TIM_{name.upper()}": value for name, value in {**options, **changes}.items()}


def status_of(file: str) -> Status:
    """Read the status of a file's journal."""
    return read_status(Path(f"{file}.journal"))


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def events(stdout: str) -> list[dict[str, Any]]:
    """Parse JSON Lines, each with the name of its event and a time."""
    documents = [json.loads(line) for line in stdout.splitlines()]
    assert all(document["event"] and document["time"] > 0 for document in documents)
    return documents


def one(stdout: str, event: str) -> dict[str, Any]:
    """Return the only event with this name."""
    (found,) = [document for document in events(stdout) if document["event"] == event]
    return found


def table(stdout: str) -> dict[str, int]:
    """Parse the rows by state from a summary."""
    found = {}
    for line in stdout.splitlines():
        name, _, rest = line.strip().partition(" ")
        number = rest.split()[0] if rest.split() else ""
        if name in ("total", "accepted", "lowered", "failed", "rejected", "superseded", "left") and name not in found:
            found[name] = int(number.replace(",", ""))
    return found


def started(args: Sequence[str], env: dict[str, str], **options: Any) -> ForkedProgram:
    """Start ``tim-async migrate …``."""
    return _program("-m", "tim_async", "migrate", *args, env=env, **options)


def with_fault(fault: str, args: Sequence[str], env: dict[str, str], **options: Any) -> ForkedProgram:
    """Start ``tim-async migrate …`` with a fault of `faulty` in it."""
    return _program("-m", "tests.cli.faulty", fault, "migrate", *args, env=env, **options)


def _program(*arguments: str, env: dict[str, str], **options: Any) -> ForkedProgram:
    streams = {"stdout": PIPE, "stderr": PIPE, **options}
    return ForkedProgram(*arguments, env={**os.environ, **env}, **streams)


def read_until(process: ForkedProgram, wanted: str, stream: str = "stderr") -> str:
    """Read the output of a process up to a line with ``wanted``."""
    said = ""
    lines: Iterator[str] = getattr(process, stream)
    for line in lines:
        said += line
        if wanted in line:
            return said
    raise AssertionError(plain(said))
