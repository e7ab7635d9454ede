"""The examples as separate processes, started as their docstrings show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tim_async.emulator import Emulator

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "xxxxyyyy"
PATIENCE = 60.0
"""Seconds after which a wait has failed."""

# Not every warning: the parent process of uvicorn's workers never closes its listening socket.
_COMPLAINT = re.compile(
    r"^.*(?:Traceback|ERROR|WARNING|Unclosed|never retrieved|never awaited|is unreachable).*$", re.MULTILINE
)


def environment(service: Emulator, store: str, **more: str) -> dict[str, str]:
    """Return the environment in which an example reaches the emulator and the store."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIM_")},
        **{f"TIM_{name.upper()}": str(value) for name, value in service.client_options().items()},
        "TIM_QUOTA_URL": store,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


class Program:
    """A Python program that runs until it is terminated.

    Args:
        log: the file for its output, standard error included.
        command: the arguments of ``python``.
        env: its environment.
        ready: the text that it prints once it is ready, and the number of times.
        url: the URL that answers once it is ready; "" for none.
    """

    def __init__(
        self, log: Path, *command: str, env: dict[str, str], ready: tuple[str, int] = ("", 0), url: str = ""
    ) -> None:
        self.url = url
        self._log = log
        self._command = command
        self._env = env
        self._ready = ready

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._log.read_text(encoding="utf-8")

    def end(self) -> list[str]:
        """Terminate it by SIGTERM; return the errors and warnings that it printed, and a non-zero exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        return [*([f"exit code {code}"] if code else []), *_COMPLAINT.findall(self.output)]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command], env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until = time.monotonic() + PATIENCE
            while not self._is_ready():
                assert self._process.poll() is None, self.output
                assert time.monotonic() < until, self.output
                time.sleep(0.02)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._kill()

    def _is_ready(self) -> bool:
        text, count = self._ready
        if self.output.count(text) < count:
            return False
        if not self.url:
            return True
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def _kill(self) -> None:
        # Its children, too: a killed parent cannot terminate them.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
