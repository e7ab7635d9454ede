"""The process that runs the demo's emulator, seen from the client's side."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Self

from tim_async.cli.failures import Failure

from .world import World


@dataclass(frozen=True, slots=True)
class Final:
    """What the emulator saw, and what it holds in the end.

    Attributes:
        report: what it saw, as its own report has it.
        unread: unread counts by GroupId and member.
        conversations: (unread messages, read until) by member and peer.
    """

    report: dict[str, Any]
    unread: dict[str, dict[str, int]]
    conversations: dict[tuple[str, str], tuple[int, float | None]]


class ServiceProcess:
    """An emulator in a process of its own, from entering to leaving.

    Args:
        world: what it is to hold.
        limit: the calls a second it allows for each endpoint.
        faults: keyword arguments of each fault to inject.
    """

    def __init__(self, world: World, limit: int, faults: list[dict[str, Any]]) -> None:
        self._plan = {"world": world.as_plain(), "limit": limit, "faults": faults}
        self._finished = False
        self.client_options: dict[str, Any] = {}

    def __enter__(self) -> Self:
        # The same modules as ours, however they were found.
        code = f"import sys; sys.path[:] = {sys.path!r}\nfrom tim_async.cli.demo.service import serve; serve()"
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us; it ends when we do
        )
        try:
            self.client_options = self._ask(self._plan)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def finish(self) -> Final:
        """Ask what it saw and what it holds; once."""
        answer = self._ask({})
        self._finished = True
        return Final(
            answer["report"],
            answer["groups"],
            {(member, peer): (unread, until) for member, peer, unread, until in answer["conversations"]},
        )

    def _ask(self, document: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(document) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(f"the emulator ended by itself, with exit code {self._process.wait()}")
        return dict(json.loads(line))

    def _end(self) -> None:
        if not self._finished:
            self._process.kill()  # it holds nothing that could be lost
        self._process.communicate()
