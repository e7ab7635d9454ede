"""An emulator's thread that cannot start, ends early or is blocked: an error at once, and nothing left open."""

from __future__ import annotations

import contextlib
import gc
import http.client
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tim_async import _loop_thread
from tim_async.emulator import Emulator

from .support import C2C_UNREAD, NOW, BlockingCaller

ROOT = Path(__file__).resolve().parents[2]

USES_THE_FIXTURE = """
def test_it(tim_emulator):
    assert tim_emulator.url
"""


def open_files() -> set[int]:
    """Return the file descriptors in use, including the one that reads the list."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


def call(service: Emulator) -> int:
    """Call the emulator, and return the ErrorCode."""
    caller = BlockingCaller(service)
    try:
        return caller.code(C2C_UNREAD, {"To_Account": "administrator"})
    finally:
        caller.close()


def run(*command: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_pytest(folder: Path, *options: str, test: str = USES_THE_FIXTURE) -> subprocess.CompletedProcess[str]:
    (folder / "test_inbox.py").write_text(test, encoding="utf-8")
    plugins = ("no:cacheprovider", "pytest_socket", "tim_async.emulator.pytest_plugin")
    return run(
        *("-m", "pytest", "-q", *(f"-p{plugin}" for plugin in plugins), "--rootdir", str(folder)),
        *(*options, str(folder)),
        folder=folder,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",  # some plugins take a second to load
    )


@pytest.mark.processes
@pytest.mark.parametrize("options", [("--disable-socket",), ("--disable-socket", "--allow-unix-socket")])
def test_blocked_sockets_are_an_error_that_names_the_remedy(tmp_path: Path, options: tuple[str, ...]) -> None:
    """By pytest-socket, configured as in a project that forbids network access."""
    ended = run_pytest(tmp_path, *options)
    assert ended.returncode == 1, ended.stdout
    assert "1 error" in ended.stdout
    assert "the emulator cannot open sockets: SocketBlockedError" in ended.stdout
    assert "@pytest.mark.enable_socket" in ended.stdout
    assert "--allow-hosts=127.0.0.1" in ended.stdout
    assert "ResourceWarning" not in ended.stdout + ended.stderr
    assert "never awaited" not in ended.stdout + ended.stderr


@pytest.mark.processes
def test_each_named_remedy_works(tmp_path: Path) -> None:
    """The marker, and the changed option."""
    ended = run_pytest(tmp_path, "--allow-hosts=127.0.0.1")
    assert ended.returncode == 0, ended.stdout
    marked = f"import pytest\n\n@pytest.mark.enable_socket{USES_THE_FIXTURE}"
    ended = run_pytest(tmp_path, "--disable-socket", test=marked)
    assert ended.returncode == 0, ended.stdout


def test_without_free_file_descriptors_it_fails_and_leaves_none_open() -> None:
    """With none to three of the four it needs; with four it runs."""
    with Emulator():
        pass  # so that its lazy imports are done
    gc.collect()  # so that garbage of earlier tests is closed before, not meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_files()) + 5, hard))
    taken: list[int] = []
    said: list[str] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for free in range(5):
            if free:
                os.close(taken.pop())
                before = open_files()
            try:
                with Emulator():
                    said.append("it runs")
            except RuntimeError as error:
                said.append(str(error))
            gc.collect()  # anything left open warns, and warnings are errors
            if free:
                assert open_files() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
    no_files = (
        "the emulator cannot open sockets: [Errno 24] Too many open files; close files that are not needed, or raise "
        "the limit of open files (ulimit -n)"
    )
    assert said == [*[no_files] * 4, "it runs"]


def test_without_memory_for_a_thread_it_fails() -> None:
    """Python's own error and a remedy, at once."""
    service = Emulator(clock=lambda: NOW)
    before = threading.stack_size(1 << 47)  # the whole address space of a process
    try:
        with pytest.raises(RuntimeError, match=r"cannot start a thread: can't start new thread; end threads or proc"):
            service.__enter__()
    finally:
        threading.stack_size(before)
    gc.collect()  # anything left open warns, and warnings are errors
    with service:
        assert call(service) == 0


async def test_where_sockets_are_blocked_it_names_the_remedy_with_and_without_a_loop(
    request: pytest.FixtureRequest,
) -> None:
    """`with` and `async with`, in a loop that was made before sockets were blocked."""
    request.getfixturevalue("socket_disabled")  # pytest-socket's; it ends with the test
    with pytest.raises(RuntimeError, match=r"--allow-hosts=127\.0\.0\.1"):
        await Emulator().__aenter__()
    with pytest.raises(RuntimeError, match=r"--allow-hosts=127\.0\.0\.1"):
        Emulator().__enter__()
    gc.collect()  # anything left open warns, and warnings are errors


def test_a_loop_that_has_ended_is_an_error_at_once() -> None:
    """Here by an exit within a call; afterwards the port is free and the emulator can run again."""
    exits = True

    def clock() -> float:
        if exits:
            raise SystemExit(3)
        return NOW

    service = Emulator(clock=clock)
    service.__enter__()
    with pytest.raises((OSError, http.client.HTTPException)):
        call(service)
    with pytest.raises(RuntimeError, match=r"event loop of the emulator has ended: SystemExit\(3\)") as caught:
        service.__exit__()
    assert isinstance(caught.value.__cause__, SystemExit)
    gc.collect()  # anything left open warns, and warnings are errors
    exits = False
    with service:
        assert call(service) == 0


def test_a_blocked_thread_is_reported_with_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """E.g. by its clock; the error shows the place.  The test uses a private name only to avoid a wait of 10 s."""
    monkeypatch.setattr(_loop_thread, "PATIENCE", 0.2)
    monkeypatch.delattr(sys, "tracebacklimit", raising=False)  # of --loop=debug
    called, release = threading.Event(), threading.Event()

    def hold_the_loop() -> float:
        called.set()
        release.wait()
        return NOW

    service = Emulator(clock=hold_the_loop)
    service.__enter__()

    def call_in_vain() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            call(service)

    caller = threading.Thread(target=call_in_vain)
    caller.start()
    called.wait()
    with pytest.raises(RuntimeError, match="hold_the_loop"):
        service.__exit__()
    release.set()
    caller.join()
    for thread in threading.enumerate():
        if thread.name == "tim-emulator":
            thread.join()
    gc.collect()  # anything left open warns, and warnings are errors


def test_a_blocked_start_is_reported_and_undone_as_soon_as_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here in the system call that opens the listener.  The test uses a private name only to avoid a wait of 10 s."""
    monkeypatch.setattr(_loop_thread, "PATIENCE", 0.2)
    monkeypatch.delattr(sys, "tracebacklimit", raising=False)
    create_server, release = socket.create_server, threading.Event()

    def blocked_create_server(address: tuple[str, int]) -> socket.socket:
        release.wait()
        return create_server(address)

    monkeypatch.setattr(socket, "create_server", blocked_create_server)
    service = Emulator()
    with pytest.raises(RuntimeError, match="blocked_create_server"):
        service.__enter__()
    release.set()
    for thread in threading.enumerate():
        if thread.name == "tim-emulator":
            thread.join()
    gc.collect()  # anything left open warns, and warnings are errors
    monkeypatch.setattr(_loop_thread, "PATIENCE", 10.0)
    with service:
        assert service.url


def test_in_a_forked_child_it_does_not_wait() -> None:
    """The thread stays with the parent."""
    with Emulator() as service:
        child = os.fork()
        if not child:
            try:
                service.__exit__()
            except RuntimeError as error:
                os._exit(0 if "has ended" in str(error) else 2)
            os._exit(1)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.01)
        assert (ended, os.waitstatus_to_exitcode(status)) == (child, 0)
