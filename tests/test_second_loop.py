"""A client in a second event loop, or in none, is an error that names the loops and the remedy, and changes nothing."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tim_async import TIMClient
from tim_async.emulator import Emulator
from tim_async.webhooks import RequestOverLimit

from .stand_in import METHODS

# uvloop warns about the sockets of a client whose loop was closed before it.
LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")
ALERT = RequestOverLimit(service_name="openim", command="get_c2c_unread_msg_num", request=400, limit=200)


async def every(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def mapped(tim: TIMClient) -> list[Any]:
    async with tim.batch.map(tim.set_unread_msg_num, [("@TGS#1", "alice", 1)] * 200) as outcomes:
        return await every(aiter(outcomes))


async def called(function: Callable[[], object]) -> None:
    function()


USES: dict[str, Callable[[TIMClient], Awaitable[object]]] = {
    **{method.name: method.run for method in METHODS},
    "async with": lambda tim: tim.__aenter__(),
    "aclose": lambda tim: tim.aclose(),
    "with_options": lambda tim: tim.with_options(timeout=5).get_all_c2c_unread_msg_num("alice"),
    "lookup.c2c_unread_msg_num": lambda tim: tim.lookup.c2c_unread_msg_num("alice", "bob"),
    "lookup.group_msg_receipt": lambda tim: tim.lookup.group_msg_receipt("@TGS#1", 7),
    "batch.get_c2c_unread_msg_num": lambda tim: tim.batch.get_c2c_unread_msg_num("alice", ["bob"]),
    "batch.get_group_msg_receipt": lambda tim: tim.batch.get_group_msg_receipt("@TGS#1", [7]),
    "batch.get_recent_c2c_unread_msg_num": lambda tim: tim.batch.get_recent_c2c_unread_msg_num("alice"),
    "batch.get_recent_contact_list": lambda tim: every(tim.batch.get_recent_contact_list("alice")),
    "batch.get_group_msg_receipt_detail": lambda tim: every(tim.batch.get_group_msg_receipt_detail("@TGS#1", 7)),
    "batch.map": mapped,
    "set_rate": lambda tim: called(lambda: tim.set_rate("set_unread_msg_num", 10)),
    "on_alert": lambda tim: called(lambda: tim.on_alert(ALERT)),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator() as running:
        running.state.add_messages("alice", "bob", 3)
        yield running


def named(loop: asyncio.AbstractEventLoop) -> str:
    return re.escape(f"{type(loop).__name__} at {id(loop):#x}")


@pytest.mark.parametrize("use", USES)
def test_a_second_loop_is_named_and_changes_nothing(service: Emulator, use: str) -> None:
    """The first loop is between two runs; the client works in it afterwards."""
    tim = TIMClient(**service.client_options())
    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(tim.get_all_c2c_unread_msg_num("alice")) == 3
        message = (
            f"^the client belongs to the event loop {named(first.get_loop())} of thread 'MainThread', which is not "
            f"running; this is the event loop {named(second.get_loop())} of thread 'MainThread': make one client for "
            f"each event loop, or use a tim_async.blocking.Portal in code that runs none$"
        )
        with pytest.raises(RuntimeError, match=message):
            second.run(USES[use](tim))  # type: ignore[arg-type]  # they are coroutines
        assert second.run(readable_anywhere(tim)) == first.run(readable_anywhere(tim))
        assert first.run(tim.get_all_c2c_unread_msg_num("alice")) == 3
        first.run(tim.aclose())


async def readable_anywhere(tim: TIMClient) -> object:
    """Return what any loop and any thread may read."""
    return repr(tim), tim.stats(), tim.with_options(timeout=5).base_url


@LEAVES_SOCKETS
@pytest.mark.parametrize("use", USES)
def test_a_closed_first_loop_is_named_as_closed(service: Emulator, use: str) -> None:
    """As with one client for two `asyncio.run`; it can be closed, though aiohttp leaves its idle sockets open."""
    tim = TIMClient(**service.client_options())
    assert asyncio.run(tim.get_all_c2c_unread_msg_num("alice")) == 3
    if use != "aclose":
        with pytest.raises(RuntimeError, match=r"of thread 'MainThread', which is closed; this is the event loop"):
            asyncio.run(USES[use](tim))  # type: ignore[arg-type]
    asyncio.run(tim.aclose())
    gc.collect()


@LEAVES_SOCKETS
@pytest.mark.parametrize("use", ["set_rate", "on_alert"])
def test_without_a_loop_the_remedy_is_named(service: Emulator, use: str) -> None:
    """For methods that are not coroutines."""
    tim = TIMClient(**service.client_options())
    assert asyncio.run(tim.get_all_c2c_unread_msg_num("alice")) == 3
    with pytest.raises(RuntimeError, match=r"^no event loop runs in thread 'MainThread': make one client for each ev"):
        USES[use](tim).send(None)  # type: ignore[attr-defined]
    asyncio.run(tim.aclose())
    gc.collect()


def test_a_second_loop_in_another_thread_is_named(service: Emulator) -> None:
    """Both loops run."""

    def ask() -> tuple[str, str]:
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(tim.get_all_c2c_unread_msg_num("alice"))
        return str(caught.value), threading.current_thread().name

    async def main() -> tuple[str, str]:
        async with tim:
            return await asyncio.to_thread(ask)

    tim = TIMClient(**service.client_options())
    message, other = asyncio.run(main())
    assert "of thread 'MainThread', which is running; this is" in message
    assert f"of thread {other!r}:" in message
