"""The command ``emulator``."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._page import page_port, ui_option, ui_port_option
from .failures import INTERRUPTED, Failure, Misuse
from .faultspec import FORMS, parse_fault
from .output import examples, json_option, make_table, number_of, plain, say, show, show_json
from .ranges import FiniteRange, NonEmptyPath

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from rich.table import Table

    from tim_async.emulator import Emulator, Report

_PORT = 8099
_COLUMNS = {
    "endpoint": "text",
    "calls": "count",
    "calls/s": "rate",
    "fullest s": "count",
    "refused": "count",
    "faults": "count",
    "retried": "count",
}
_READABLE = NonEmptyPath(exists=True, dir_okay=False, readable=True, path_type=Path)


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
    type=NonEmptyPath(dir_okay=False, path_type=Path),
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
@ui_option
@ui_port_option
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
    interrupted = False
    try:
        asyncio.run(_serve(service, options["limit"] or None, port, env_file, example=not empty))
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:
        raise Failure(f"cannot listen at port {options['port']}: {error.strerror or error}") from None
    report = service.report()
    if as_json:
        show_json(report.as_dict())
    elif report.endpoints:
        show("", report_table(report.as_dict()["endpoints"]), *_undocumented_fields(report))
    if interrupted:
        ctx.exit(INTERRUPTED)


def report_table(endpoints: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the endpoints: calls, mean rate, peak of any second, refusals, faults and retries."""
    numbers = ("calls", "calls_per_second", "fullest_sliding_second", "refused", "faults", "retried")
    counted = {name: {**seen, "faults": sum(seen["faults"].values())} for name, seen in endpoints.items()}
    return make_table(_COLUMNS, ([name, *(seen[one] for one in numbers)] for name, seen in counted.items()))


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
        raise Failure(f"cannot write {file}: {error.strerror or error}") from None


async def _serve(
    service: Emulator, limit: int | None, page_port: int | None, env_file: Path | None, *, example: bool
) -> None:
    """Run the emulator, and its page if there is a port for it, until SIGTERM, or until Ctrl-C cancels it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(signal.SIGTERM, ended.set)
            stack.callback(loop.remove_signal_handler, signal.SIGTERM)  # uvloop keeps it after the loop is closed
        await stack.enter_async_context(service)
        if page_port is not None:
            from ._page.emulator import EmulatorSubject
            from ._page.server import serve_page

            url = await stack.enter_async_context(serve_page(EmulatorSubject(service, limit), page_port))
            say(f"Page at {url}")
        if env_file is not None:
            _write(env_file, service.environment())
        _print_instructions(service, example=example)
        await ended.wait()


def _print_instructions(service: Emulator, *, example: bool) -> None:
    say(f"Emulator running at {service.url}; press Ctrl-C to stop.  In another terminal:\n")
    say("".join(f"  export {name}={shlex.quote(value)}\n" for name, value in service.environment().items()))
    if example:
        say("  tim-async unread alice bob carol")
        say("  tim-async set-unread @TGS#public alice 12")
        say("  tim-async receipts @TGS#public 116-120\n")
