"""Checks of the caller's arguments, which raise before anything is sent.

`TypeError` for a value of the wrong kind, `ValueError` for one of the right kind that the service cannot take.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from .config import unix_seconds
from .errors import is_text

T = TypeVar("T", str, int)

MOST_CONCURRENT = 100_000
"""Calls under way at once, at most: a task each, and far more than any rate needs."""


def text(name: str, value: object) -> str:
    """A user id, a group id: a str that is not empty and can be encoded.

    Of a subclass, such as a member of a `enum.StrEnum` or `numpy.str_`, its characters: as the key of a result, orjson
    takes a plain str alone.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty")
    if not is_text(value):
        raise ValueError(f"{name} holds a lone surrogate and cannot be sent")
    return value if type(value) is str else str.__str__(value)


def number(name: str, value: object) -> int:
    """A count or a sequence number: an int, not negative."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} is negative: {value}")
    if value >= 2**63:
        raise ValueError(f"{name} is too large: no service counts that far")
    return int(value)


def kind(name: str, value: object, wanted: type) -> None:
    """An object of a class."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name} must be a {wanted.__name__}, not {type(value).__name__}")


def positive(name: str, value: object) -> float:
    """A finite number above 0, in any unit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be above 0 and finite, not {value}")
    return value


def concurrency(value: object) -> int:
    """How many calls may be under way at once; each is a task from the beginning."""
    count = number("concurrency", value)
    if not 1 <= count <= MOST_CONCURRENT:
        raise ValueError(f"concurrency must be from 1 to {MOST_CONCURRENT}, not {value}")
    return count


def share(name: str, value: object) -> float:
    """A part of a whole: above 0 and up to 1."""
    part = positive(name, value)
    if part > 1:
        raise ValueError(f"{name} must be at most 1, not {value}")
    return float(part)


def seconds(name: str, value: object) -> str:
    """A moment as the service takes it, a String of unix seconds, from an int or an aware datetime."""
    if isinstance(value, bool) or not isinstance(value, int | dt.datetime):
        raise TypeError(f"{name} must be an int or a datetime, not {type(value).__name__}")
    try:
        return str(unix_seconds(value))
    except ValueError as error:
        raise ValueError(f"{name} {error}: {value}") from None


def several(name: str, values: Iterable[T], check: Callable[[str, object], T]) -> list[T]:
    """The items of an iterable, each checked and each once, in the order given; at least one."""
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list or another iterable, not {type(values).__name__}")
    unique = list(dict.fromkeys([check(f"an item of {name}", value) for value in values]))
    if not unique:
        raise ValueError(f"{name} is empty")
    return unique
