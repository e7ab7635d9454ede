"""Where a stream is: its name, and the keys it has in the store."""

from __future__ import annotations

import re

DEFAULT_NAME = "migration"
"""What a stream is called unless there are several in one database."""

_NAME = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")

KEYS = (
    "about",  # a hash: what the stream is of, and how far its load is
    "rows",  # the stream: rows without an outcome; an entry's id is <line>-0
    "counts",  # a hash: rows that were taken, lowered, failed
    "failed",  # a hash: the rows that failed, as documents, by line
    "causes",  # a hash: how many failed, by cause
    "firsts",  # a hash: the first line of each cause, and its reason
    "rejected",  # a hash: the rows that load rejected, as documents, by line
    "pins",  # a hash: the times of rows under way that have none of their own
    "workers",  # a hash: who works, and when it was last heard of
    "series",  # a hash: how each worker's calls went over time
    "pace",  # a hash: outcomes of the last minute, by time
)


def keys_of(name: str) -> list[str]:
    """The keys of a stream, in the order of `KEYS`; one hash tag keeps them on one node of a cluster."""
    return [f"tim_async:{{migration:{name}}}:{key}" for key in KEYS]


def checked_name(name: str) -> str:
    """The name of a stream.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name is 1 to 100 characters without white space and braces, not {name!r}")
    return name
