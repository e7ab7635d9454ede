"""The command that runs the emulator by hand."""

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
from .output import examples, json_option, plain, say, show, show_json
from .ranges import FiniteRange

if TYPE_CHECKING:
    import ssl

    from tim_async.emulator import Emulator, Report

_PORT = 8099
_READABLE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(
    short_help="Run the service on this machine.",
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
    help="The port; 0 for any free one.",
)
@click.option(
    "--sdk-app-id", type=click.IntRange(min=1), metavar="ID", help="The app it serves; 1400000000 by default."
)
@click.option(
    "--secret-key", metavar="KEY", help="The app's key, which it prints: no real one.  64 known characters by default."
)
@click.option(
    "--identifier",
    "admins",
    metavar="ACCOUNT",
    multiple=True,
    help='An administrator; "administrator" by default.  May be given several times.',
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write its address and credentials into this file once it runs, for --credentials, a shell or a container.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Calls a second of each endpoint; 0 for no limit.",
)
@click.option(
    "--window",
    type=click.Choice(["sliding", "calendar", "bucket"]),
    default="sliding",
    show_default=True,
    help="How calls are counted.",
)
@click.option(
    "--bucket-capacity", type=click.IntRange(min=1), help="Calls that the bucket holds; the limit by default."
)
@click.option("--count-refused", is_flag=True, help="Refused calls fill the sliding second, too.")
@click.option("--integer-read-time", is_flag=True, help="Take an Integer as MsgReadTime, as some SDKs send it.")
@click.option(
    "--refuse-unknown-fields", is_flag=True, help="Refuse requests with fields that the documents do not know."
)
@click.option("--tls-cert", type=_READABLE, metavar="FILE", help="Serve HTTPS with the certificate in this PEM file.")
@click.option(
    "--tls-key", type=_READABLE, metavar="FILE", help="The PEM file of its key; that of --tls-cert by default."
)
@click.option("--latency", type=FiniteRange(min=0), default=0.0, help="Mean round trip, seconds; 0 by default.")
@click.option(
    "--jitter",
    type=FiniteRange(min=0),
    default=0.0,
    help="Coefficient of variation of the round trip; 0 by default, 0.3 is much.",
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
    """Run the service on this machine, with real limits and faults on request, until Ctrl-C.

    It prints its address and credentials, which are valid nowhere else, to standard error, as lines to paste into
    another terminal; and when it ends, a report of the calls to standard output.
    """
    from tim_async.emulator import Emulator, fill_example

    port = page_port(ui, ui_port)
    try:
        # What is not given has the emulator's own default.
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
    """The file for the environment cannot be written."""


def _undocumented_fields(report: Report) -> list[str]:
    """Lines about the request fields that the documents do not know."""
    return [
        f"{name}: {count:,} with the field {plain(unknown)}, which no document knows"
        for name, seen in report.endpoints.items()
        for unknown, count in seen.unknown_fields.items()
    ]


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The TLS of a certificate, if there is one."""
    if cert is None:
        if key is not None:
            raise Misuse("--tls-key needs --tls-cert")
        return None
    import ssl  # help needs none

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # an SSLError is one
        raise Misuse(f"cannot use --tls-cert {cert}: {error.strerror or error}") from None
    return context


def _write(file: Path, environment: dict[str, str]) -> None:
    """Write a file of credentials, whole at once, so that no reader sees a part."""
    from tim_async.migrate._files import replacing

    try:
        with replacing(file) as out:
            out.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    except OSError as error:
        raise _EnvFileError(error.strerror or str(error)) from None


@asynccontextmanager
async def _page(service: Emulator, limit: int | None, port: int | None) -> AsyncIterator[str | None]:
    """Serve a page within the block, which gets its URL, if there is a port for it."""
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
    """Run until a signal, with a page; return the signal's number."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    async with contextlib.AsyncExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            # A loop that cannot handle signals leaves Ctrl-C a KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, end, number)
                stack.callback(loop.remove_signal_handler, number)  # uvloop's do not end with the loop
        await stack.enter_async_context(service)
        url = await stack.enter_async_context(page)
        if env_file is not None:
            _write(env_file, service.environment())
        _print_instructions(service, url, example=example)
        return await ended


def _print_instructions(service: Emulator, page: str | None, *, example: bool) -> None:
    if page is not None:
        say(f"The page is at {page}")
    say(f"The emulator runs at {service.url}; Ctrl-C ends it.  In another terminal:\n")
    say("".join(f"  export {name}={shlex.quote(value)}\n" for name, value in service.environment().items()))
    if example:
        say("  tim-async unread alice bob carol")
        say("  tim-async set-unread @TGS#public alice 12")
        say("  tim-async receipts @TGS#public 116-120\n")
