"""The command ``quota``, which shows the members of a shared quota and their calls/s."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from tim_async._plaintext import plain_json
from tim_async._stores import read_url

from ._page import page_port, ui_option, ui_port_option
from ._page.quota import ENDPOINT_CELLS, MEMBER_CELLS, endpoint_cells, member_rows
from .failures import Failure, Misuse, argument_errors
from .output import examples, live_display, make_table, number_of, plain, say, show, show_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from tim_async._quota_view import EndpointUsage, QuotaView
    from tim_async._redis_clients import Connected

INTERVAL = 1.0
"""Seconds between two reads of the store."""
TIMEOUT = 5.0
"""Seconds within which the store must connect, and then reply."""
_MIN_MEMBERS = 3
"""Minimum number of members shown of an endpoint, however low the terminal is."""


@click.command(
    short_help="Show the members of a shared quota.",
    epilog=examples(
        "tim-async quota redis://store:6379/0",
        "tim-async quota redis+sentinel://one:26379,two:26379/quota/0 --watch",
        "tim-async quota redis://store:6379/0 --json",
        "tim-async quota redis://store:6379/0 --ui",
    ),
)
@click.argument("url", envvar="TIM_QUOTA_URL", required=True)
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@click.option("--namespace", default="tim_async", show_default=True, help="Prefix of the quota's keys.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document instead of tables; with --watch, one line per refresh.",
)
@ui_option
@ui_port_option
def quota(url: str, watch: bool, namespace: str, as_json: bool, ui: bool, ui_port: int | None) -> None:
    """Show the members of the quota in a Redis or Valkey, by app and endpoint, and their calls/s.

    URL is that of the `RedisQuota`; pass one with a password in TIM_QUOTA_URL.  The store is only read.  Without
    --watch, calls/s are averages since each member joined.
    """
    with argument_errors():
        url = read_url(url).text
    if {"{", "}"} & {*namespace} or not namespace:
        raise Misuse("--namespace must not be empty and must not contain braces")
    page = page_port(ui, ui_port)
    if page is not None:
        if watch or as_json:
            raise Misuse("--ui cannot be combined with --watch or --json")
        asyncio.run(_serve(url, namespace, page))
    else:
        asyncio.run(_watch(url, namespace, as_json=as_json) if watch else _once(url, namespace, as_json=as_json))


async def _once(url: str, namespace: str, *, as_json: bool) -> None:
    async with _connected(url) as connected:
        view = await _read_view(connected, namespace)
    if as_json:
        show_json(view.as_dict())
    elif view.endpoints:
        show(*_tables(view))
    else:
        say(_no_quota(view))


async def _watch(url: str, namespace: str, *, as_json: bool) -> None:
    """Show the quota every second; a failed read is reported and repeated, except the first one."""
    live = None if as_json else live_display(sys.stdout)
    async with _connected(url) as connected:
        view, trouble = await _read_view(connected, namespace), ""
        with live or contextlib.nullcontext():
            while True:
                if live is not None:
                    live.update(_screen(view, trouble, live.console.height), refresh=True)
                elif trouble:
                    say(trouble)
                elif as_json:
                    click.echo(plain_json(view.as_dict(), ensure_ascii=True))
                else:
                    show(*[_summary_line(view, one) for one in view.endpoints] or [_no_quota(view)])
                await asyncio.sleep(INTERVAL)
                try:
                    found, trouble = await _read_view(connected, namespace), ""
                    view = found.since(view)
                except Failure as error:
                    trouble = error.message


async def _serve(url: str, namespace: str, port: int) -> None:
    """Serve a page until Ctrl-C; the first read of the store must succeed."""
    from ._page.quota import QuotaSubject
    from ._page.server import serve_page

    async with _connected(url) as connected:
        subject = QuotaSubject(await _read_view(connected, namespace), partial(_read_view, connected, namespace))
        async with serve_page(subject, port) as page:
            say(f"Page at {page}; press Ctrl-C to stop.")
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connected]:
    from tim_async._redis_clients import connect

    connected = connect(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    try:
        yield connected
    finally:
        await connected.aclose()


async def _read_view(connected: Connected, namespace: str) -> QuotaView:
    """Read the quota from the store.

    Raises:
        Misuse: the store refuses, e.g. because of a wrong password.
        Failure: the store is unreachable.
    """
    from tim_async._quota_view import look
    from tim_async._store_faults import FAILURES, in_words, remedy

    try:
        async with asyncio.timeout(2 * TIMEOUT):
            return await look(connected, namespace)
    except FAILURES as failure:
        error = await connected.explained(failure)
        await connected.give_up()
        if cure := remedy(error, by_name=connected.by_name):
            raise Misuse(plain(f"the store at {connected.shown} refuses: {in_words(error)}; {cure}")) from None
        raise Failure(plain(f"cannot reach the store at {connected.shown}: {in_words(error)}")) from None


# Output


def _no_quota(view: QuotaView) -> str:
    return f"No quota in the namespace {plain(view.namespace)} was used at {view.store} within the last day."


def _summary_line(view: QuotaView, one: EndpointUsage) -> str:
    """Format an endpoint as one line."""
    clock = time.strftime("%H:%M:%S", time.localtime(view.time))
    texts = [
        f"{clock} {one.sdk_app_id} {one.name}: {one.calls_per_second:,.1f} of {one.limit:,g} calls/s",
        number_of(len(one.members), "member"),
        f"{one.out:,} out",
        f"{one.waiting('interactive'):,} waiting",
        f"{one.waiting('bulk'):,} bulk waiting",
        *one.remarks,
    ]
    return ", ".join(texts)


def _tables(view: QuotaView, most: int | None = None) -> list[Table | str]:
    """Return a table of the endpoints and one of their members.

    Args:
        view: the quota as read.
        most: maximum number of members shown of each endpoint; None for all.
    """
    endpoints = [[one.sdk_app_id, one.name, *endpoint_cells(one)] for one in view.endpoints]
    members = [[one.name, *row] for one in view.endpoints for row in member_rows(one, most)]
    return [
        make_table({"app": "text", "endpoint": "text", **ENDPOINT_CELLS, "": "text"}, endpoints),
        "",
        make_table({"endpoint": "text", **MEMBER_CELLS}, members),
    ]


def _screen(view: QuotaView, trouble: str, height: int) -> Group:
    """Return the tables, with no more lines than the terminal has."""
    from rich.console import Group
    from rich.text import Text

    count = len(view.endpoints)
    room = (height - count - 8) // count - 1 if count else 0
    parts: Sequence[Table | str] = _tables(view, max(_MIN_MEMBERS, room)) if count else [_no_quota(view)]
    clock = time.strftime("%H:%M:%S", time.localtime(view.time))
    head = Text(trouble or f"{view.store}  {clock}  Ctrl-C stops", no_wrap=True, overflow="ellipsis")
    return Group(head, "", *parts)
