"""The subject of a page: the protocol, and the snapshot with its charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tim_async.cli.output import Cell


@dataclass(frozen=True, slots=True)
class Chart:
    """The current rate of an endpoint, calls/s; the page draws it over time.

    Attributes:
        key: the identity of the chart, the same in each snapshot.
        title: the endpoint.
        limit: the limit of the endpoint; None for no limit.
        passed: calls that were not refused.
        refused: calls that were refused for the rate.
        adaptive: the adaptive rate, if it is below the limit.
        note: the text with further figures.
    """

    key: str
    title: str
    limit: float | None
    passed: float
    refused: float
    adaptive: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: its caption.
        columns: the kind of the cells by heading, as in `make_table`.
        rows: the cells by column, the first one with the name of the row; None for an empty cell.
        none: the text in place of a table without rows.
        sum: the last row, with the totals, if there is one.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[list[Cell]]
    none: str = "None so far."
    sum: list[Cell] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a subject at one time.

    Attributes:
        time: the time, Unix seconds.
        charts: a chart for each endpoint, in a stable order.
        tables: the tables.
        note: a sentence about the subject, if there is one.
    """

    time: float
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    note: str = ""


class Subject(Protocol):
    """The object that a page shows.

    Attributes:
        name: the page's heading.
        address: its URL, without secrets.
    """

    name: str
    address: str

    async def snapshot(self) -> Snapshot:
        """Take a snapshot, with the rates since the last one.

        Raises:
            click.ClickException: that failed; the message has the reason.
        """

    def faults(self) -> dict[str, Any] | None:
        """Return the injected faults and the endpoints for new ones; None if the subject has no faults."""

    def act(self, action: Mapping[str, Any]) -> None:
        """Carry out the action of a button.

        Raises:
            ValueError: the action is unknown or refused; the message has the reason.
        """
