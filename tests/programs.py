"""Python programs as processes, forked from an interpreter that has already imported the modules they need.

Starting Python and importing aiohttp, click and rich takes longer than most programs of this suite run.  A forked
program is a real process: it has its own pid, standard streams, signals and environment, can be killed at any time,
shuts the interpreter down as usual, and its exit code is the kernel's.  Only its start-up is not real.  Tests of the
start-up (imports, closed streams, ``-X dev``, the environment's encoding) use `subprocess` instead.

Each process of pytest has one such interpreter, ``python -m tests.programs FD``.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

_PRELOADED = ("tim_async.cli", "tim_async.migrate", "tim_async.emulator")
"""Packages to import, with all their modules, before the first fork."""


class ForkedProgram:
    """A running program, with a part of the interface of `subprocess.Popen` and with text streams.

    Args:
        arguments: the arguments of ``python``: ``-m MODULE …`` or ``-c CODE …``.
        env: the whole environment; by default this process's.  Every warning is an error, whatever PYTHONWARNINGS is.
        cwd: the working folder; by default this process's.
        stdin, stdout, stderr: a descriptor, `PIPE` or `DEVNULL`; by default this process's.
        process_group: 0 for a process group of its own.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        process_group: int | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._waiting = threading.Lock()
        request = {
            "arguments": arguments,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "process_group": process_group,
        }
        self._line, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as opened:
            descriptors, ours = zip(
                *(self._stream(number, given, opened) for number, given in enumerate((stdin, stdout, stderr))),
                strict=True,
            )
            self.stdin, self.stdout, self.stderr = ours
            _server().fork([*descriptors, theirs.fileno()])
        self._said = self._line.makefile("r", encoding="ascii")
        self.pid = int(self._said.readline())
        self._line.sendall(json.dumps(request).encode() + b"\n")

    @staticmethod
    def _stream(number: int, given: int | None, opened: contextlib.ExitStack) -> tuple[int, IO[str] | None]:
        """Return the program's descriptor of a stream and our end of it; ``opened`` closes descriptors made here."""
        if given is None:
            return number, None
        if given == DEVNULL:
            descriptor = os.open(os.devnull, os.O_RDWR)
            opened.callback(os.close, descriptor)
            return descriptor, None
        if given != PIPE:
            return given, None
        reads, writes = os.pipe()
        theirs, ours = (reads, writes) if number == 0 else (writes, reads)
        opened.callback(os.close, theirs)
        return theirs, open(ours, "w" if number == 0 else "r", encoding="utf-8")  # noqa: PTH123 - a descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill the program if it still runs, and close its streams."""
        self.kill()
        self.wait()
        self.close()

    def close(self) -> None:
        """Close our ends of its streams."""
        for stream in (self.stdin, self.stdout, self.stderr, self._said, self._line):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended before it read all its input
                    stream.close()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"program {self.pid}", timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            with self._waiting:
                if self.returncode is None:  # no other thread has read it
                    self.returncode = int(self._said.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close its input, read its output to the end, and wait for its end."""
        if self.stdin is not None:
            self.stdin.close()
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            texts[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in enumerate((self.stdout, self.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it by SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


_THREADS = concurrent.futures.ThreadPoolExecutor(64)
"""Threads for all programs that are awaited concurrently; asyncio's own pool has six on two cores."""


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a blocking method of a program without blocking the event loop, which may serve the program."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, function, *args)


class _Server:
    """The interpreter that forks, from the side of pytest; it ends with this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.programs", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
                stdin=DEVNULL,
                stdout=DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait()

    def fork(self, descriptors: list[int]) -> None:
        """Fork a program; the last of its four descriptors carries the request, the pid and the exit code."""
        socket.send_fds(self._control, [b"f"], descriptors)


@functools.cache
def _server() -> _Server:
    return _Server()


# In the interpreter that forks


def _preload() -> None:
    """Import the packages, and exempt them from garbage collection, which would make each program copy their memory."""
    for name in _PRELOADED:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith(("__main__", "pytest_plugin")):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork on request; return in each forked program, with its request, and never in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the processes that wait for the programs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends pytest, which ends this
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            control.close()
            return _forked(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _forked(descriptors: list[int]) -> dict[str, Any]:
    """Fork the program, in which this returns; this process tells its pid, waits for it and tells its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, number = descriptors
    with socket.socket(fileno=number) as line:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with line.makefile("r", encoding="utf-8") as given:
                request: dict[str, Any] = json.loads(given.readline())
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return request
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(ConnectionError):  # its user has closed it
            line.sendall(b"%d\n" % pid)
            line.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _run(arguments: list[str], env: dict[str, str], cwd: str, process_group: int | None) -> None:
    """Become the program, as far as a running interpreter can."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if process_group is not None:
        os.setpgid(0, process_group)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(line_buffering=stream.isatty())  # type: ignore[union-attr]  # they are text streams
    sys.path[0] = cwd
    kind, program, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    _preload()
    _run(**_serve(socket.socket(fileno=int(sys.argv[1]))))
