"""Processes beside the benchmark's own: the stand-in server, and measurements in a fresh interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.server import Config, arguments

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """The same modules for a child, wherever the benchmark was started from."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class Remote:
    """A running stand-in server, as seen from the benchmark."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        # Whatever proxy the environment names, loopback is reached directly.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def report(self) -> dict[str, dict[str, Any]]:
        """What the server saw, by method name."""
        report: dict[str, dict[str, Any]] = self._get("/_control/report")
        return report

    def stall(self, seconds: float, what: str = "arrivals") -> None:
        """Hold back every arrival, or every answer, until `seconds` from now."""
        self._get(f"/_control/stall?seconds={seconds}&what={what}")

    def _get(self, path: str) -> Any:
        with self._opener.open(self.base_url + path, timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def server(config: Config) -> Iterator[Remote]:
    """A fresh stand-in server in a process of its own, ended with the block."""
    with listening("benchmarks.server", arguments(config)) as port:
        yield Remote(port)


@contextlib.contextmanager
def listening(module: str, *args: str) -> Iterator[int]:
    """A module in a process of its own, which prints its port and ends with its standard input; yields the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start")
        yield int(line)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def fresh(module: str, timeout: float = 600, **settings: Any) -> dict[str, Any]:
    """Run a module in a fresh interpreter with `settings` as its one argument; its last line is the result.

    A heap that earlier measurements have grown, and caches that they have warmed, would belong to nobody.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(settings)],
        stdout=subprocess.PIPE,
        timeout=timeout,
        check=True,
        env=environment(),
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
