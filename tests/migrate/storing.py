"""Journals as the tests make them, and processes that work on them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tim_async.migrate import Row
from tim_async.migrate._store import About

FINGERPRINT = "a1" * 32
ABOUT = About(
    kind="unread",
    source="/data/export.csv",
    arguments={"format": None, "columns": {"GroupId": "room"}},
    sdk_app_id=1400000000,
    base_url="http://127.0.0.1:8099",
)
KNOWN = dataclasses.replace(ABOUT, fingerprint=FINGERPRINT)


def rows(count: int, members: int | None = None) -> Iterator[Row]:
    """Rows as a file of so many holds them, below a header; of so many members."""
    for number in range(count):
        member = number if members is None else number % members
        yield Row(number + 2, (f"group{member % 7}", f"member{member}", number))


@contextlib.contextmanager
def ram_folder() -> Iterator[Path]:
    """A folder in memory, where there is such: many journals in turn need not each wait for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
