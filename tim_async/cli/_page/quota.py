"""A shared quota as a subject: its endpoints, their queues, and the members with their calls/s."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from tim_async._plaintext import plain

from .subject import Chart, Snapshot, Table

if TYPE_CHECKING:
    from tim_async._quota_view import EndpointUsage, QuotaView

_MAX_ENDPOINTS = 24
"""Maximum number of endpoints with a chart and a table of members."""
_MAX_MEMBERS = 20
"""Maximum number of members shown of an endpoint; the others are summed up."""
ENDPOINT_CELLS = {
    "limit": "count",
    "calls/s": "rate",
    "out": "count",
    "cooling": "count",
    "waiting": "count",
    "bulk": "count",
    "members": "count",
}
"""The kinds of the first `endpoint_cells`; the last one is a text."""
MEMBER_CELLS = {
    "member": "text",
    "calls/s": "rate",
    "share": "share",
    "out": "count",
    "waiting": "text",
    "limit": "text",
    "age": "number",
}
"""The kinds of the cells of `member_rows`."""
_ENDPOINTS = {"endpoint": "text", **ENDPOINT_CELLS, "remarks": "text"}


class QuotaSubject:
    """The quotas in a store.

    Args:
        view: the first view of them.
        look: reads the store again; raises `Failure` if that fails.
    """

    name = "Shared quota"

    def __init__(self, view: QuotaView, look: Callable[[], Awaitable[QuotaView]]) -> None:
        self.address = view.store
        self._view = view
        self._look = look

    async def snapshot(self) -> Snapshot:
        """Read the store; see `Subject`."""
        found = await self._look()
        view = found.since(self._view)
        self._view = view
        apps = len({one.sdk_app_id for one in view.endpoints})
        names = [f"{one.name} of {one.sdk_app_id}" if apps > 1 else one.name for one in view.endpoints]
        named = list(zip(map(plain, names), view.endpoints, strict=True))
        none = f"No quota in the namespace {plain(view.namespace)} was used within the last day."
        tables = [
            Table("Endpoints", _ENDPOINTS, [[name, *endpoint_cells(one)] for name, one in named], none),
            *(
                Table(f"Members of {name}", MEMBER_CELLS, member_rows(one, _MAX_MEMBERS), "None.")
                for name, one in named[:_MAX_ENDPOINTS]
            ),
        ]
        app = "" if apps != 1 else f"App {view.endpoints[0].sdk_app_id}."
        return Snapshot(view.time, [_chart(name, one) for name, one in named[:_MAX_ENDPOINTS]], tables, app)

    def faults(self) -> None:
        """Return None: a quota has no faults."""

    def act(self, action: Mapping[str, Any]) -> None:
        """Refuse any action: a quota is only read."""
        del action
        raise ValueError("this page is read-only")


def _chart(name: str, one: EndpointUsage) -> Chart:
    waiting = [one.waiting(lane) for lane in ("interactive", "bulk")]
    note = f"{one.out:,} out · {waiting[0]:,} waiting · {waiting[1]:,} bulk waiting · {len(one.members):,} members"
    return Chart(
        key=f"{one.sdk_app_id} {one.command}",
        title=name,
        limit=one.limit,
        passed=max(0.0, one.calls_per_second - one.refused),
        refused=one.refused,
        adaptive=one.rate if one.rate < one.limit else None,
        note=note,
    )


def endpoint_cells(one: EndpointUsage) -> list[Any]:
    """Return the figures of an endpoint, and its remarks."""
    waiting = [one.waiting(lane) for lane in ("interactive", "bulk")]
    counts = [one.out, one.cooling, *waiting, len(one.members)]
    return [one.limit, one.calls_per_second, *counts, ", ".join(one.remarks)]


def member_rows(one: EndpointUsage, most: int | None) -> list[list[Any]]:
    """Return a row for each member of an endpoint.

    Args:
        one: the endpoint.
        most: the maximum number of members shown, above a row that sums up the others; None for all.
    """
    shown, rest = one.members[:most], one.members[len(one.members[:most]) :]
    rows: list[list[Any]] = [
        [
            plain(member.id),
            member.calls_per_second,
            member.share,
            member.out,
            member.waiting,
            one.named_by(member),
            member.since,
        ]
        for member in shown
    ]
    if rest:
        sums = [sum(m.calls_per_second for m in rest), sum(m.share for m in rest), sum(m.out for m in rest)]
        rows.append([f"{len(rest):,} others", *sums, "", "", ""])
    return rows
