"""All texts that a debugger, a crash reporter or a log could show of an exception, a task or an object."""

from __future__ import annotations

import asyncio
import collections
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_TESTS = str(Path(__file__).parents[1])
_LIBRARIES = ("aiohttp", "yarl", "multidict")
"""Packages whose objects' attributes are walked, since observers read them; of others, the repr and str are."""
_DEPTH = 5


def texts_of(value: object, depth: int = _DEPTH, seen: set[int] | None = None) -> Iterator[str]:
    """Yield the texts of a value, of the items of plain containers, and of the attributes of aiohttp's objects."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray):
        yield bytes(value).decode("latin-1")
    elif isinstance(value, BaseException):
        yield from texts_of_failure(value, seen)
    elif depth > 0 and not (value is None or isinstance(value, int | float)):
        items = _items(value)
        if items is None:
            yield from (repr(value), str(value))
            items = _attributes(value) if type(value).__module__.partition(".")[0] in _LIBRARIES else ()
        for item in items:
            yield from texts_of(item, depth - 1, seen)


def _items(value: object) -> Iterable[Any] | None:
    """Return the items of a plain container; None for anything else."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return list(value)
    return None


def _attributes(value: object) -> Iterator[Any]:
    names = set(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    for name in names:
        if hasattr(value, name):
            yield getattr(value, name)


def texts_of_failure(failure: BaseException, seen: set[int] | None = None) -> Iterator[str]:
    """Yield the texts of an exception and all linked ones, with the variables of every frame."""
    seen = set() if seen is None else seen
    seen.add(id(failure))
    yield from (repr(failure), str(failure))
    yield from texts_of(failure.args, seen=seen)
    yield from texts_of(vars(failure), seen=seen)
    for name in ("strerror", "filename", "request_info", "os_error", "message", "host"):
        yield from texts_of(getattr(failure, name, None), seen=seen)
    yield from texts_of_frames(_frames(failure.__traceback__), seen)
    linked = [failure.__cause__, failure.__context__]
    if isinstance(failure, BaseExceptionGroup):
        linked += failure.exceptions
    for other in linked:
        if other is not None and id(other) not in seen:
            yield from texts_of_failure(other, seen)


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def texts_of_frames(frames: Iterator[FrameType], seen: set[int] | None = None) -> Iterator[str]:
    """Yield the variables of each frame, except those of tests, which hold the secrets."""
    for frame in frames:
        if not frame.f_code.co_filename.startswith(_TESTS):
            for name, value in list(frame.f_locals.items()):
                for text in texts_of(value, seen=seen):
                    yield f"{frame.f_code.co_qualname}: {name} = {text}"


def without_frames_of_tests(failure: BaseException) -> BaseException:
    """Return the exception, its traceback cut to begin with the library's frames.

    The frames of tests hold secrets, as a program's own may.
    """
    trace = failure.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_TESTS):
        trace = trace.tb_next
    return failure.with_traceback(trace)


def texts_as_printed(failure: BaseException) -> Iterator[str]:
    """Yield the output of the usual traceback printers, with all variables."""
    yield "".join(traceback.format_exception(failure))
    yield "".join(traceback.TracebackException.from_exception(failure, capture_locals=True).format())
    import rich.traceback  # here, since most observers do not need it

    # The data that rich shows, without the rendering.
    trace = rich.traceback.Traceback.extract(
        type(failure),
        failure,
        failure.__traceback__,
        show_locals=True,
        locals_max_length=1000,
        locals_max_string=100_000,
        locals_hide_dunder=False,
        locals_hide_sunder=False,
    )
    for stack in trace.stacks:
        yield f"{stack.exc_type}: {stack.exc_value}"
        for frame in stack.frames:
            yield from (f"{frame.name}: {name} = {node}" for name, node in (frame.locals or {}).items())


def texts_of_tasks() -> Iterator[str]:
    """Yield the variables of all suspended tasks, as a debugger or a dump of stacks shows them."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        yield repr(task)
        yield from texts_of_frames(iter(task.get_stack()))
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
            if frame is not None:
                yield from texts_of_frames(iter([frame]))
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
