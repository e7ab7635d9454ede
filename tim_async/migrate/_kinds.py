"""Detection of the kind of a file's rows by its columns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from ._rows import KINDS, Kind, Rejected
from ._sources import FileSource
from .errors import SourceError

_SAMPLED = 200
"""Rows that are sampled."""


def kind_of(path: str | Path, **options: Any) -> Kind | None:
    """Return the only kind whose columns a file has; None when none or both fit.  Blocks.

    Args:
        path: a file that can be read more than once.
        options: the keyword arguments of its `FileSource`.
    """
    scores = {name: _score(path, kind, options) for name, kind in KINDS.items()}
    best = max(scores.values())
    fitting = [KINDS[name] for name, score in scores.items() if score == best >= 0]
    return fitting[0] if len(fitting) == 1 else None


def _score(path: str | Path, kind: Kind, options: dict[str, Any]) -> int:
    """Return the number of sampled rows that have the kind's fields; -1 when the file cannot have any."""
    try:
        with FileSource(path, kind, **options | {"until_now": True}) as source:
            rows = list(islice(source.read(), _SAMPLED))
    except (ValueError, SourceError):  # an option for another kind's field, or a header without its columns
        return -1
    # A line that cannot be parsed is no evidence; JSON Lines have no header, and each row may lack fields.
    return sum(
        not isinstance(row, Rejected) or (row.field != "" and row.found.get(row.field) is not None) for row in rows
    )
