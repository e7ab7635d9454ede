"""The command ``emulator``."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._page import page_options, page_port
from .emulator_report import report_table
from .failures import INTERRUPTED, Failure, Misuse
from .faultspec import FORMS, parse_fault
from .output import examples, json_option, number_of, plain, say, show, show_json
from .ranges import FiniteRange, Place

if TYPE_CHECKING:
    import ssl

    from tim_async.emulator import Emulator, Report

_PORT = 8099
_READABLE = Place(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(
    short_help="Run an emulator of the service on this machine.",
    epilog=examples(
        "tim-async emulator",
        "tim-async emulator --port 9000 --limit 50 --window calendar",
        "tim-async emulator --fault 10002=1% --fault http-502=0.5% --fault drop-after=0.5%",
        "tim-async emulator --fault 60007=10%@set_unread_msg_num --latency 0.05",
        "tim-async emulator --env-file emulator.env --integer-read-time",
        "tim-async emulator --ui",
    ),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Port to listen on; 0 for any free port.",
)
@click.option(
    "--sdk-app-id", type=click.IntRange(min=1), metavar="ID", help="SDKAppID of the app; 1400000000 by default."
)
@click.option(
    "--secret-key",
    metavar="KEY",
    help="Secret key of the app; a fixed one by default.  It is printed: never use a real key.",
)
@click.option(
    "--identifier",
    "admins",
    metavar="ACCOUNT",
    multiple=True,
    help='Identifier of an admin; "administrator" by default.  May be given several times.',
)
@click.option(
    "--env-file",
    type=Place(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the URL and the credentials to FILE once the emulator runs, for --credentials, a shell or a container.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Calls/s allowed on each endpoint; 0 for no limit.",
)
@click.option(
    "--window",
    type=click.Choice(["sliding", "calendar", "bucket"]),
    default="sliding",
    show_default=True,
    help="Window of the rate limit.",
)
@click.option(
    "--bucket-capacity", type=click.IntRange(min=1), help="Capacity of the bucket, in calls; the limit by default."
)
@click.option("--count-refused", is_flag=True, help="Count refused calls in the sliding second, too.")
@click.option("--integer-read-time", is_flag=True, help="Accept an Integer as MsgReadTime, as some SDKs send it.")
@click.option("--refuse-unknown-fields", is_flag=True, help="Refuse requests with undocumented fields.")
@click.option("--tls-cert", type=_READABLE, metavar="FILE", help="Serve HTTPS with the certificate in this PEM file.")
@click.option(
    "--tls-key",
    type=_READABLE,
    metavar="FILE",
    help="PEM file with the key of the certificate; by default, the file of --tls-cert.",
)
@click.option("--latency", type=FiniteRange(min=0), default=0.0, help="Mean round-trip time in seconds; 0 by default.")
@click.option(
    "--jitter",
    type=FiniteRange(min=0),
    default=0.0,
    help="Coefficient of variation of the round-trip time; 0 by default, 0.3 is high.",
)
@click.option(
    "--fault",
    "faults",
    metavar="KIND[=SHARE][@ENDPOINT]",
    multiple=True,
    help=f"Inject a fault into a share of the calls.  KIND is {FORMS}.  May be given several times.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random choices.")
@click.option("--empty", is_flag=True, help="Start without the example accounts, groups and messages.")
@page_options
@json_option
@click.pass_context
def emulator(
    ctx: click.Context,
    /,
    faults: tuple[str, ...],
    empty: bool,
    as_json: bool,
    ui: bool,
    ui_port: int | None,
    env_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    **options: Any,
) -> None:
    """Run an emulator of the service on this machine, with its limits and with faults on request, until Ctrl-C.

    Prints its URL and its credentials, which are valid nowhere else, to standard error, as lines to paste into another
    terminal; and when it ends, a report of the calls to standard output.
    """
    from tim_async.emulator import Emulator, fill_example

    port = page_port(ui, ui_port)
    try:
        # Options that were not given have the defaults of `Emulator`.
        given = {name: value for name, value in options.items() if value not in (None, ())}
        service = Emulator(**{**given, "limit": options["limit"] or None}, ssl_context=_tls(tls_cert, tls_key))
        for fault in faults:
            service.fault(**parse_fault(fault))
    except ValueError as error:
        raise Misuse(str(error)) from None
    if not empty:
        fill_example(service.state)
    page = _page(service, options["limit"] or None, port)
    try:
        ended_by = asyncio.run(_serve(service, page, env_file, example=not empty))
    except _EnvFileError as error:
        raise Failure(f"cannot write {env_file}: {error}") from None
    except OSError as error:
        raise Failure(f"cannot listen at port {options['port']}: {error.strerror or error}") from None
    report = service.report()
    if as_json:
        show_json(report.as_dict())
    elif report.endpoints:
        show("", report_table(report.as_dict()["endpoints"]), *_undocumented_fields(report))
    if ended_by == signal.SIGINT:
        ctx.exit(INTERRUPTED)


class _EnvFileError(Exception):
    """A failure to write the file of --env-file."""


def _undocumented_fields(report: Report) -> list[str]:
    """Return a line for each undocumented request field."""
    return [
        f"{name}: {number_of(count, 'request')} with the undocumented field {plain(unknown)}"
        for name, seen in report.endpoints.items()
        for unknown, count in seen.unknown_fields.items()
    ]


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the SSL context of a certificate; None without one."""
    if cert is None:
        if key is not None:
            raise Misuse("--tls-key needs --tls-cert")
        return None
    import ssl  # help does not need it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # an SSLError is one
        raise Misuse(f"cannot use --tls-cert {cert}: {error.strerror or error}") from None
    return context


def _write(file: Path, environment: dict[str, str]) -> None:
    """Write a file of credentials atomically: no reader sees a part of it."""
    from tim_async.migrate._files import replacing

    try:
        with replacing(file) as out:
            out.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    except OSError as error:
        raise _EnvFileError(error.strerror or str(error)) from None


@asynccontextmanager
async def _page(service: Emulator, limit: int | None, port: int | None) -> AsyncIterator[str | None]:
    """Serve the page within the block and yield its URL; None without a port."""
    if port is None:
        yield None
        return
    from ._page.emulator import EmulatorSubject
    from ._page.server import serve_page

    async with serve_page(EmulatorSubject(service, limit), port) as url:
        yield url


async def _serve(
    service: Emulator, page: AbstractAsyncContextManager[str | None], env_file: Path | None, *, example: bool
) -> int:
    """Run the emulator and its page until a signal; return the signal's number."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    async with contextlib.AsyncExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Where the loop cannot handle signals, Ctrl-C raises KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, end, number)
                stack.callback(loop.remove_signal_handler, number)  # uvloop keeps them after the loop is closed
        await stack.enter_async_context(service)
        url = await stack.enter_async_context(page)
        if env_file is not None:
            _write(env_file, service.environment())
        _print_instructions(service, url, example=example)
        return await ended


def _print_instructions(service: Emulator, page: str | None, *, example: bool) -> None:
    if page is not None:
        say(f"Page at {page}")
    say(f"Emulator running at {service.url}; press Ctrl-C to stop.  In another terminal:\n")
    say("".join(f"  export {name}={shlex.quote(value)}\n" for name, value in service.environment().items()))
    if example:
        say("  tim-async unread alice bob carol")
        say("  tim-async set-unread @TGS#public alice 12")
        say("  tim-async receipts @TGS#public 116-120\n")
