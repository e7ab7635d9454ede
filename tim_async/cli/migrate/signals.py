"""Ctrl-C, once and twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stopping(first: Callable[[], None], second: Callable[[], None]) -> Iterator[None]:
    """Have signals end what runs in the block: SIGINT, which is Ctrl-C, and SIGTERM alike.

    To be entered in a running loop of the main thread.  From the third signal on they do what they always did.

    Args:
        first: called in the loop at the first signal; it should ask for an orderly end.
        second: called at the next; it should see to an end at once.
    """
    loop = asyncio.get_running_loop()
    asked = 0

    def take() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            first()
        else:
            handlers.close()
            second()

    with contextlib.ExitStack() as handlers:
        for number in _NUMBERS:
            handlers.callback(_take(loop, number, take))
        yield


def _take(loop: asyncio.AbstractEventLoop, number: signal.Signals, take: Callable[[], None]) -> Callable[[], object]:
    """Have a signal call ``take`` in the loop; what is returned undoes that."""
    try:
        loop.add_signal_handler(number, take)
    except NotImplementedError:  # Windows' loop; there a plain handler will do

        def pass_on(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(take)

        before = signal.signal(number, pass_on)
        return lambda: signal.signal(number, before)
    return lambda: loop.remove_signal_handler(number)


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt in the block, as Ctrl-C does; for code outside an event loop."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
