"""Checks of the caller's arguments, made before anything is sent.

They raise `TypeError` for a value of the wrong type, and `ValueError` for one of the right type that the service does
not accept.
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
"""The maximum number of concurrent calls: each is a task, and no rate needs nearly as many."""


def text(name: str, value: object) -> str:
    """Check an id: a str that is not empty and can be encoded as UTF-8.

    A value of a subclass, such as a member of an `enum.StrEnum` or a `numpy.str_`, is converted to a plain str: orjson
    accepts no other keys of a result.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty")
    if not is_text(value):
        raise ValueError(f"{name} holds a lone surrogate and cannot be sent")
    return value if type(value) is str else str.__str__(value)


def number(name: str, value: object) -> int:
    """Check a count or a sequence number: an int from 0 to 2**63 - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} is negative: {value}")
    if value >= 2**63:
        raise ValueError(f"{name} is too large: it must be below 2**63")
    return int(value)


def kind(name: str, value: object, wanted: type) -> None:
    """Check that a value is an instance of a class."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name} must be a {wanted.__name__}, not {type(value).__name__}")


def positive(name: str, value: object) -> float:
    """Check a finite number above 0, in any unit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be above 0 and finite, not {value}")
    return value


def concurrency(value: object) -> int:
    """Check a number of concurrent calls: from 1 to `MOST_CONCURRENT`."""
    count = number("concurrency", value)
    if not 1 <= count <= MOST_CONCURRENT:
        raise ValueError(f"concurrency must be from 1 to {MOST_CONCURRENT}, not {value}")
    return count


def share(name: str, value: object) -> float:
    """Check a part of a whole: above 0, at most 1."""
    part = positive(name, value)
    if part > 1:
        raise ValueError(f"{name} must be at most 1, not {value}")
    return float(part)


def seconds(name: str, value: object) -> str:
    """Convert a time, an int or an aware datetime, to the form of the service: a str of unix seconds."""
    if isinstance(value, bool) or not isinstance(value, int | dt.datetime):
        raise TypeError(f"{name} must be an int or a datetime, not {type(value).__name__}")
    try:
        return str(unix_seconds(value))
    except ValueError as error:
        raise ValueError(f"{name} {error}: {value}") from None


def several(name: str, values: Iterable[T], check: Callable[[str, object], T]) -> list[T]:
    """Check the items of an iterable, at least one; returns each distinct one once, in the order given."""
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list or another iterable, not {type(values).__name__}")
    unique = list(dict.fromkeys([check(f"an item of {name}", value) for value in values]))
    if not unique:
        raise ValueError(f"{name} is empty")
    return unique
