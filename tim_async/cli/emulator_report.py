"""The table of an emulator's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .output import make_table

if TYPE_CHECKING:
    from rich.table import Table

_NUMBERS = ("calls", "calls/s", "fullest s", "refused", "faults", "retried")


def report_table(endpoints: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the endpoints: calls, mean rate, peak of any second, refusals, faults and retries."""
    table = make_table("endpoint", *_NUMBERS, right=_NUMBERS)
    for name, seen in endpoints.items():
        table.add_row(
            name,
            f"{seen['calls']:,}",
            f"{seen['calls_per_second']:.1f}",
            str(seen["fullest_sliding_second"]),
            f"{seen['refused']:,}",
            f"{sum(seen['faults'].values()):,}",
            f"{seen['retried']:,}",
        )
    return table
