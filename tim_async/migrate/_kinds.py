"""What kind of rows a file holds, told by its columns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from ._rows import KINDS, Kind, Rejected
from ._sources import FileSource
from .errors import SourceError

_LOOKED_AT = 200
"""Rows that are looked at."""


def kind_of(path: str | Path, **options: Any) -> Kind | None:
    """The one kind whose columns a file has; None when none or both fit.  Blocks.

    Args:
        path: a file that can be read more than once.
        options: the keyword arguments of its `FileSource`.
    """
    scores = {name: _score(path, kind, options) for name, kind in KINDS.items()}
    best = max(scores.values())
    fitting = [KINDS[name] for name, score in scores.items() if score == best >= 0]
    return fitting[0] if len(fitting) == 1 else None


def _score(path: str | Path, kind: Kind, options: dict[str, Any]) -> int:
    """How many of the first rows have what the kind needs; -1 when none can."""
    try:
        with FileSource(path, kind, **options | {"until_now": True}) as source:
            rows = list(islice(source.read(), _LOOKED_AT))
    except (ValueError, SourceError):  # a field that the kind has not, or a header without its columns
        return -1
    # A line that cannot be taken apart says nothing; rows of JSON Lines have no header, and lack fields one by one.
    return sum(
        not isinstance(row, Rejected) or (row.field != "" and row.found.get(row.field) is not None) for row in rows
    )
