"""Child processes of a benchmark: the stand-in server, and measurements in a fresh interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.server import Config, arguments

SDK_APP_ID = 1400000000
SECRET_KEY = "0123456789abcdef" * 4
ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """Return an environment in which a child process imports the same modules."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def credentials(base_url: str) -> dict[str, str]:
    """Return `environment` with the variables of `TIMClient.from_env`, and none of the caller's."""
    own = {name: value for name, value in environment().items() if not name.startswith("TIM_")}
    return {**own, "TIM_SDK_APP_ID": str(SDK_APP_ID), "TIM_SECRET_KEY": SECRET_KEY, "TIM_BASE_URL": base_url}


class Remote:
    """A running stand-in server, from the benchmark's side."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        # Without any proxy of the environment.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def report(self) -> dict[str, dict[str, Any]]:
        """Return the server's report, by method name."""
        report: dict[str, dict[str, Any]] = self._get("/_control/report")
        return report

    def stall(self, seconds: float) -> None:
        """Hold back every arrival for `seconds` from now."""
        self._get(f"/_control/stall?seconds={seconds}")

    def _get(self, path: str) -> Any:
        with self._opener.open(self.base_url + path, timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def server(config: Config) -> Iterator[Remote]:
    """Run a fresh stand-in server in a process of its own."""
    with listening("benchmarks.server", arguments(config)) as port:
        yield Remote(port)


@contextlib.contextmanager
def listening(module: str, *args: str) -> Iterator[int]:
    """Run a module that prints its port and ends with its standard input, in a process; yield the port."""
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


def fresh(function: Callable[..., Coroutine[Any, Any, Any]], timeout: float = 600, **settings: Any) -> Any:
    """Run a module's coroutine function in a fresh interpreter, with JSON as arguments; return its result.

    So no measurement inherits the heap and the caches of earlier ones.
    """
    asked = json.dumps([function.__module__, function.__name__, settings])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.remote", asked],
        stdout=subprocess.PIPE,
        timeout=timeout,
        check=True,
        env=environment(),
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    module, name, settings = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(getattr(import_module(module), name)(**settings))))
