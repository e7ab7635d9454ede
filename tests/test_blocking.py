"""`Portal`: one client for the threads of a process without an event loop; forks, interrupts, closing."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

import pytest

from tim_async import ClientClosed, ConnectionLost, RequestTimeout, TIMClient
from tim_async.blocking import Portal
from tim_async.emulator import Emulator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as running:
        running.state.add_messages("alice", "bob", 3)
        yield running


@pytest.fixture
def portal(service: Emulator) -> Iterator[Portal]:
    with Portal(lambda: TIMClient(**service.client_options())) as made:
        yield made
    gc.collect()  # unclosed objects warn, and warnings are errors


class Held:
    """A call that waits until it is cancelled."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self, tim: TIMClient) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


async def fail(tim: TIMClient, error: BaseException) -> NoReturn:
    raise error


def test_every_call_has_the_same_client_and_loop(portal: Portal) -> None:
    """The loop is not closed after the first call."""

    async def client_and_loop(tim: TIMClient) -> tuple[TIMClient, asyncio.AbstractEventLoop]:
        return tim, asyncio.get_running_loop()

    assert repr(portal) == "<Portal: not started>"
    assert [portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") for _ in range(3)] == [3, 3, 3]
    assert portal.run(lambda tim: tim.get_c2c_unread_msg_num("alice", peer_accounts=["bob"])).counts == {"bob": 3}
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: portal.run(client_and_loop), range(20)))) == 1
    assert repr(portal).startswith("<Portal: <TIMClient 1400000000 as 'administrator' at http")


def test_threads_share_one_limiter() -> None:
    """Concurrent first calls start the portal once, and no call is refused."""
    made = []
    threads = 40

    def make() -> TIMClient:
        made.append(TIMClient(**service.client_options(), rates={"get_c2c_unread_msg_num": 60}, strict=True))
        return made[-1]

    def ask(_: int) -> int:
        together.wait()
        return portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")

    together = threading.Barrier(threads)
    with Emulator(limit=60) as service, Portal(make) as portal, ThreadPoolExecutor(threads) as pool:
        service.state.add_messages("alice", "bob", 3)
        assert [*pool.map(ask, range(3 * threads))] == [3] * 3 * threads
        seen = service.report().endpoints["get_c2c_unread_msg_num"]
    assert (len(made), seen.calls, seen.refused) == (1, 3 * threads, 0)
    assert seen.fullest_sliding_second <= 60


def test_a_call_beyond_the_portals_time_out_is_cancelled(service: Emulator) -> None:
    """A TimeoutError of the called function itself is raised unchanged."""
    held = Held()
    with Portal(lambda: TIMClient(**service.client_options()), timeout=0.05) as portal:
        with pytest.raises(RequestTimeout, match=r"^the call did not end within 0\.05 s and was cancelled$"):
            portal.run(held)
        assert held.cancelled.wait(60)
    with Portal(lambda: TIMClient(**service.client_options()), timeout=60) as portal:
        assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3
        with pytest.raises(TimeoutError, match="of its own"):
            portal.run(fail, TimeoutError("of its own"))


@pytest.mark.parametrize("arrives", ["in the waiting thread", "in another"])
def test_an_interrupted_wait_cancels_the_call(portal: Portal, arrives: str) -> None:
    """By Ctrl-C; Celery's soft time limit interrupts it in the same way.

    A signal that arrives in another thread, or just before the wait begins, does not end the wait by itself.
    """
    held = Held()

    async def interrupted(tim: TIMClient) -> None:
        thread = threading.main_thread() if arrives == "in the waiting thread" else threading.current_thread()
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)
        await held(tim)

    with pytest.raises(KeyboardInterrupt):
        portal.run(interrupted)
    assert held.cancelled.wait(60)
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


@pytest.mark.parametrize("handler", ["runs", "closes", "closes and exits"])
def test_a_signal_handler_during_the_start_does_not_wait_for_it(service: Emulator, handler: str) -> None:
    """It has interrupted the starting thread: a call in it is an error, and closing ends the start."""
    handled = threading.Event()

    def make() -> TIMClient:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        handled.wait(0 if "closes" in handler else 60)  # it closes only what has been made
        return TIMClient(**service.client_options())

    def handle(*_: object) -> None:
        try:
            if handler == "runs":
                starting.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
            starting.close()
            if handler == "closes and exits":
                raise SystemExit(3)
        finally:
            handled.set()

    kinds = {"runs": RuntimeError, "closes": ClientClosed, "closes and exits": SystemExit}
    words = {
        "runs": "the portal is being started by this thread",
        "closes": "the portal is closed",
        "closes and exits": "3",
    }
    before = signal.signal(signal.SIGINT, handle)
    try:
        with Portal(make) as starting, pytest.raises(kinds[handler], match=f"^{words[handler]}"):
            starting.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threading.enumerate():
        if thread.name == "tim-portal":
            thread.join()


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [
        ("can't start new thread", "end threads or processes"),
        ("can't create new thread at interpreter shutdown", "start it before the program ends"),
        ("daemon threads are disabled in this (sub)interpreter", "run it in the main interpreter (with mod_wsgi: WSG"),
    ],
)
def test_a_thread_that_cannot_be_started_is_an_error_with_a_remedy(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, refused: str, remedy: str
) -> None:
    """Each reason has its remedy, also those of Python 3.12 and 3.13; the portal can be started afterwards."""

    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError(refused)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match=re.escape(f"the portal cannot start a thread: {refused}; {remedy}")):
            portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
    assert repr(portal) == "<Portal: not started>"
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


def test_another_event_loop_in_the_portals_thread_is_an_error(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a second interpreter in a process finds one before Python 3.12."""
    find = asyncio.get_running_loop
    another: list[object] = [object()]
    monkeypatch.setattr(
        asyncio,
        "get_running_loop",
        lambda: another.pop() if another and threading.current_thread().name == "tim-portal" else find(),
    )
    with pytest.raises(
        RuntimeError, match=r"^the portal cannot run an event loop in its thread: another one runs there; run it"
    ):
        portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


async def test_a_portal_in_a_thread_with_an_event_loop_is_an_error(portal: Portal) -> None:
    """It would block that loop; a call within a call would wait for itself."""
    blocked = "an event loop runs in this thread, and a portal would block it: await the methods of a TIMClient"
    with pytest.raises(RuntimeError, match=f"^{blocked}"):
        portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
    with pytest.raises(RuntimeError, match=f"^{blocked}"):
        portal.close()

    async def run_again(tim: TIMClient) -> int:
        return portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")

    with pytest.raises(RuntimeError, match=f"^{blocked}"):
        await asyncio.to_thread(portal.run, run_again)
    assert await asyncio.to_thread(portal.run, TIMClient.get_all_c2c_unread_msg_num, "alice") == 3
    await asyncio.to_thread(portal.close)


def test_an_error_of_the_clients_constructor_is_raised_until_it_succeeds(service: Emulator) -> None:
    options = {**service.client_options(), "identifier": ""}
    with Portal(lambda: TIMClient(**options)) as portal:
        for _ in range(2):
            with pytest.raises(ValueError, match="identifier is empty"):
                portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
        options["identifier"] = "administrator"
        assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


def test_bad_arguments_are_named(portal: Portal) -> None:
    with pytest.raises(
        TypeError, match=r"^TIMClient\.stats returned a dict, which cannot be awaited: call it in an `as"
    ):
        portal.run(TIMClient.stats)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^make must be a function that makes a client, not str$"):
        Portal("redis://")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        Portal(TIMClient.from_env, timeout=0)
    with (
        Portal(lambda: None) as wrong,  # type: ignore[arg-type,return-value]
        pytest.raises(TypeError, match=r"^the result of make must be a TIMClient, not NoneType$"),
    ):
        wrong.run(TIMClient.get_all_c2c_unread_msg_num, "alice")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), RequestTimeout("late"), KeyError("a")], ids=lambda e: type(e).__name__
)
def test_an_exception_of_a_function_is_raised_in_its_caller(portal: Portal, error: BaseException) -> None:
    """An exception of any kind; the loop keeps running."""
    with pytest.raises(type(error)) as caught:
        portal.run(fail, error)
    assert caught.value is error
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


def test_an_error_is_released_with_its_last_reference(portal: Portal) -> None:
    """Without a reference cycle, so that no collection is needed."""
    gc.disable()
    try:
        released = weakref.ref(failure_of(portal))
        assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3  # the loop has ended the first call
        assert released() is None
    finally:
        gc.enable()


class Mistake(Exception):
    """An exception that supports weak references, unlike built-in ones."""


def failure_of(portal: Portal) -> Mistake:
    async def mistaken(tim: TIMClient) -> None:
        raise Mistake

    try:
        portal.run(mistaken)
    except Mistake as error:
        return error
    raise AssertionError


def test_a_function_that_cancels_itself_raises_cancelled_error(portal: Portal) -> None:
    """The portal stays usable."""
    with pytest.raises(CancelledError):
        portal.run(fail, asyncio.CancelledError())
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


def test_an_ended_event_loop_is_replaced(portal: Portal) -> None:
    """Here a SystemExit in a callback has ended it."""

    def leave() -> NoReturn:
        raise SystemExit(3)

    async def end_the_loop(tim: TIMClient) -> None:
        asyncio.get_running_loop().call_soon(leave)
        await asyncio.Event().wait()

    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3
    with pytest.raises(CancelledError):
        portal.run(end_the_loop)
    for thread in threading.enumerate():
        if thread.name == "tim-portal":
            thread.join()
    assert portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice") == 3


def test_the_function_sees_the_context_of_its_caller(portal: Portal) -> None:
    """It holds tracing spans and a web framework's request, for example."""
    request = ContextVar("request", default="none")

    async def seen(tim: TIMClient) -> str:
        return request.get()

    request.set("mine")
    assert portal.run(seen) == "mine"


def test_closing_ends_running_calls(portal: Portal) -> None:
    """With ConnectionLost, since their outcome is unknown; later calls raise ClientClosed."""
    held, errors = Held(), []

    def wait() -> None:
        try:
            portal.run(held)
        except ConnectionLost as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    held.began.wait()
    portal.close()
    waiting.join()
    assert errors == ["the portal was closed during the call"]
    with pytest.raises(ClientClosed, match=r"^the portal is closed$"):
        portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")
    portal.close()
    assert repr(portal) == "<Portal: closed>"
    assert all(thread.name != "tim-portal" for thread in threading.enumerate())


FORKS = """
import os, sys
from tim_async import TIMClient
from tim_async.blocking import Portal

options = dict(sdk_app_id=int(sys.argv[1]), secret_key=sys.argv[2], base_url=sys.argv[3])
portal = Portal(lambda: TIMClient(**options))

def ask():
    return portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")

assert ask() == 3
ends = []
with portal._process().lock:  # held by a thread of the parent, which does not exist in the child
    for how in (os._exit, sys.exit):  # as Celery ends its children, and as gunicorn does
        child = os.fork()
        if not child:
            assert repr(portal) == "<Portal: not started>"
            assert [ask(), ask()] == [3, 3]
            how(0)
        ends.append(child)
for child in ends:
    assert os.waitpid(child, 0)[1] == 0
assert [ask(), ask()] == [3, 3]
assert "at http" in repr(portal)
"""


@pytest.mark.processes
def test_a_forked_process_makes_its_own_client(service: Emulator) -> None:
    """The parent's stays usable, and the exit of each process closes its client without output."""
    options = service.client_options()
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", FORKS),
            *(str(options[name]) for name in ("sdk_app_id", "secret_key", "base_url")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert service.report().endpoints["get_c2c_unread_msg_num"].calls == 7
