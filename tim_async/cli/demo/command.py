"""The command ``demo``."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from tim_async.cli.failures import PARTIAL
from tim_async.cli.output import examples, say, show, show_json, takes_json

LIMIT = 200
FAULTS: list[dict[str, Any]] = [
    {"code": 10002, "probability": 0.006},
    {"status": 502, "probability": 0.006},
    {"drop": "before", "probability": 0.004},
    {"drop": "after", "probability": 0.004},
]
"""Two calls in a hundred: the service's own fault, a gateway's, and connections lost before and after the work."""


@click.command(
    short_help="See it work: 2,000 rows over all four endpoints.",
    epilog=examples("tim-async demo", "tim-async demo --naive", "tim-async demo --json | jq .lost"),
)
@click.option(
    "--naive",
    is_flag=True,
    help="Use plain aiohttp with AsyncLimiter(200, 1) and no retries instead, to see the difference.",
)
@takes_json
@click.option("--rows", type=click.IntRange(min=1), hidden=True, help="Stop after so many valid rows.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, hidden=True, help="Calls a second per endpoint.")
@click.pass_context
def demo(ctx: click.Context, naive: bool, as_json: bool, rows: int | None, limit: int) -> None:
    """Carry a sample export of 2,000 rows over all four endpoints at once, and check every row.

    It starts an emulator of the service on this machine, which allows 200 calls a second for each endpoint and
    answers 2 % of them wrongly, and needs neither an account nor a network.  It sets unread counts, marks
    conversations read, queries counts and pulls receipts, in 10 to 20 seconds.  Then it prints what the emulator saw,
    and compares the final state with the file, row by row.  Exit code 3 if anything was lost or wrong.
    """
    from . import compare, report, run
    from . import naive as naively
    from .process import ServiceProcess
    from .progress import Progress, shown
    from .results import COUNT, MARK, RECEIPTS, SET
    from .sample import read_shipped
    from .world import RECEIPTS_A_CALL, build

    sample = read_shipped(rows)
    say(f"{sample.name}: {len(sample.rows):,} rows to carry over, {len(sample.invalid)} invalid.")
    world = build(sample)
    progress = Progress(
        {
            SET: len(world.rows),
            MARK: len(world.marks),
            COUNT: sum(-(-len(inbox) // naively.PEERS_A_CALL) for inbox in world.inboxes.values()),
            RECEIPTS: sum(-(-len(by_seq) // RECEIPTS_A_CALL) for by_seq in world.receipts.values()),
        }
    )

    with ServiceProcess(world, limit, FAULTS) as service:

        async def watched() -> Any:
            # Said in here: from now on Ctrl-C is the loop's to handle, at any moment.
            say(
                f"The emulator at {service.client_options['base_url']}: {limit} calls/s for each endpoint, "
                f"{100 * sum(fault['probability'] for fault in FAULTS):.0f} % faults.\n"
            )
            do = naively.run_naively if naive else run.run
            return await shown(progress, do(world, service.client_options, limit, progress))

        results = asyncio.run(watched())
        final = service.finish()
    say("")
    comparison = compare.compare(world, results, final)
    if as_json:
        show_json(report.as_plain(sample, results, final, comparison, naive=naive))
    else:
        show(*report.as_text(sample, results, final, comparison, limit=limit, naive=naive))
    if comparison.differences:
        ctx.exit(PARTIAL)
