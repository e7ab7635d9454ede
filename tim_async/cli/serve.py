"""The command that runs the emulator by hand."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import click

from .failures import INTERRUPTED, Failure, Misuse
from .faultspec import FORMS, parse_fault
from .output import examples, say, show, show_json, takes_json
from .seen import seen_table

if TYPE_CHECKING:
    from tim_async.emulator import Emulator

_PORT = 8099


@click.command(
    short_help="Run the service on this machine.",
    epilog=examples(
        "tim-async emulator",
        "tim-async emulator --port 9000 --limit 50 --window calendar",
        "tim-async emulator --fault 10002=1% --fault http-502=0.5% --fault drop-after=0.5%",
        "tim-async emulator --fault 60007=10%@set_unread_msg_num --latency 0.05",
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
@click.option("--latency", type=click.FloatRange(min=0), default=0.0, help="Mean round trip, seconds; 0 by default.")
@click.option(
    "--jitter",
    type=click.FloatRange(min=0),
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
@takes_json
@click.pass_context
def emulator(ctx: click.Context, /, faults: tuple[str, ...], empty: bool, as_json: bool, **options: Any) -> None:
    """Run the service on this machine, with real limits and faults on request, until Ctrl-C.

    It prints its address and credentials, which are valid nowhere else, to standard error, as lines to paste into
    another terminal; and when it ends, a report of the calls to standard output.
    """
    from tim_async.emulator import Emulator, fill_example

    try:
        service = Emulator(**{**options, "limit": options["limit"] or None})
        for fault in faults:
            service.fault(**parse_fault(fault))
    except ValueError as error:
        raise Misuse(str(error)) from None
    if not empty:
        fill_example(service.state)
    try:
        ended_by = asyncio.run(_serve(service, example=not empty))
    except OSError as error:
        raise Failure(f"cannot listen at port {options['port']}: {error.strerror or error}") from None
    report = service.report()
    if as_json:
        show_json(report.as_dict())
    elif report.endpoints:
        show("", seen_table(report.as_dict()["endpoints"]))
    if ended_by == signal.SIGINT:
        ctx.exit(INTERRUPTED)


async def _serve(service: Emulator, *, example: bool) -> int:
    """Run until a signal; return its number."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        # A loop that cannot handle signals leaves Ctrl-C a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    async with service:
        _tell(service, example=example)
        return await ended


def _tell(service: Emulator, *, example: bool) -> None:
    options = service.client_options()
    say(f"The emulator runs at {service.url}; Ctrl-C ends it.  In another terminal:\n")
    say(f"  export TIM_BASE_URL={options['base_url']}")
    say(f"  export TIM_SDK_APP_ID={options['sdk_app_id']}")
    say(f"  export TIM_SECRET_KEY={options['secret_key']}")
    say(f"  export TIM_IDENTIFIER={options['identifier']}\n")
    if example:
        say("  tim-async unread alice bob carol")
        say("  tim-async set-unread @TGS#public alice 12")
        say("  tim-async receipts @TGS#public 116-120\n")
