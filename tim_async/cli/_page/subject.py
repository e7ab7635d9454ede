"""What a page shows: the protocol of its subjects, and what a look at one finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """An endpoint's rate now, calls/s; the page draws it over time.

    Attributes:
        key: the same from look to look.
        title: the endpoint.
        limit: what it allows; None for no limit.
        passed: calls that were not refused.
        refused: calls over the rate.
        takes: what the service takes at present, where that is below the limit.
        note: the figures beside it, in words.
    """

    key: str
    title: str
    limit: float | None
    passed: float
    refused: float
    takes: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: its caption.
        columns: the headings, and of each the kind of its cells: ``text``, ``count``, ``rate`` or ``share`` (0 to 1).
        rows: cells by column, the first of which names the row; None for an empty cell.
        none: said in place of a table without rows.
        sum: the last row, of all others together, if there is one.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[list[Cell]]
    none: str = "None so far."
    sum: list[Cell] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was found.

    Attributes:
        time: when that was, Unix seconds.
        charts: the endpoints, in a lasting order.
        tables: the figures.
        note: a sentence about all of it, if there is one.
    """

    time: float
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    note: str = ""


class Subject(Protocol):
    """What a page is about.

    Attributes:
        name: the page's heading.
        address: what is looked at, without secrets.
    """

    name: str
    address: str

    async def snapshot(self) -> Snapshot:
        """Look once; rates are those since the last look.

        Raises:
            click.ClickException: it cannot be looked at now; the message says why.
        """

    def faults(self) -> dict[str, Any] | None:
        """The faults that are injected, and those that can be; None where none can be."""

    def act(self, action: Mapping[str, Any]) -> None:
        """Do what a button of the page asks for.

        Raises:
            ValueError: there is no such action, or it is refused; the message says why.
        """
