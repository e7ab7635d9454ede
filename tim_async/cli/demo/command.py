"""The command ``demo``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tim_async.cli.failures import PARTIAL, Misuse
from tim_async.cli.output import examples, plain, say, show
from tim_async.cli.ranges import NonEmptyPath

if TYPE_CHECKING:
    from tim_async.emulator import Emulator

    from .world import Discrepancy, World

ROWS = 2_000
LIMIT = 200
FAULTS: list[dict[str, Any]] = [
    {"code": 10002, "probability": 0.006},
    {"status": 502, "probability": 0.006},
    {"drop": "before", "probability": 0.004},
    {"drop": "after", "probability": 0.004},
]
"""Faults of 2 % of the calls: errors of the service and a gateway, connections lost before and after execution."""

_CREDENTIALS = "app.env"
_MAX_SHOWN = 5
_MAX_LISTED = 1_000


@click.command(
    short_help="Migrate 3,000 sample rows to an emulator with faults.",
    epilog=examples(
        "tim-async demo",
        "tim-async demo --keep demo",
        "tim-async demo --naive",
        "tim-async demo --json | jq 'select(.event == \"compared\")'",
    ),
)
@click.option(
    "--naive",
    is_flag=True,
    help="For comparison, send the rows with AsyncLimiter(200, 1) around each call and without retries.",
)
@click.option(
    "--keep",
    type=NonEmptyPath(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Keep the files, journals, rejected rows and reports in FOLDER.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, one object per event.")
@click.option("--rows", type=click.IntRange(min=1), default=ROWS, hidden=True, help="Unread counts to set.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, hidden=True, help="Calls/s on each endpoint.")
@click.pass_context
def demo(ctx: click.Context, naive: bool, keep: Path | None, as_json: bool, rows: int, limit: int) -> None:
    """Migrate 2,000 unread counts and 1,000 read conversations from two files, and check every row.

    Starts an emulator of the service on this machine, with 200 calls/s on each endpoint and 2 % faults; needs neither
    an account nor a network.  Runs the commands of a migration, about 20 seconds in total, and compares the emulator's
    final state with the files, row by row.  Exit code 3 if a row is lost or wrong.
    """
    from tim_async.emulator import Emulator

    from .world import COUNTS, READS, make_world

    world = make_world(rows)
    with _isolated(), _working_folder(keep) as folder, contextlib.chdir(folder), Emulator(limit=limit) as service:
        world.write(folder)
        world.fill(service.state)
        for fault in FAULTS:
            service.fault(**fault)
        options = service.client_options()
        faults = f"{100 * sum(fault['probability'] for fault in FAULTS):.0f} % faults"
        say(f"Emulator at {options['base_url']}: {limit} calls/s on each endpoint, {faults}.")
        if naive:
            from . import naive as naively

            failed = asyncio.run(naively.send(world, options, limit))
            say(f"AsyncLimiter({limit}, 1) and no retries: {failed:,} calls failed.")
        else:
            Path(_CREDENTIALS).write_text("".join(f"TIM_{name.upper()}={value}\n" for name, value in options.items()))
            for command in (("unread", COUNTS), ("read", READS), ("verify", READS)):
                if (code := _run(*command, rate=limit, as_json=as_json)) not in (0, PARTIAL):
                    ctx.exit(code)
        differences = list(world.differences(service.state))
        _print_results(world, service, differences, as_json=as_json)
    if differences:
        ctx.exit(PARTIAL)


@contextlib.contextmanager
def _isolated() -> Iterator[None]:
    """Ignore the proxy and the quota of the environment: the emulator is on this machine, and its app is fictitious."""
    before = dict(os.environ)
    os.environ.update({"no_proxy": "*", "NO_PROXY": "*", "TIM_QUOTA_URL": ""})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _working_folder(keep: Path | None) -> Iterator[Path]:
    """Yield the folder of the files: ``keep``, or a temporary one.

    Raises:
        Misuse: ``keep`` is not empty, or not a usable folder.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="tim-async-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        taken = any(keep.iterdir())
    except OSError as error:
        raise Misuse(f"--keep {plain(str(keep))}: {error.strerror or error}") from None
    if taken:
        raise Misuse(f"--keep {plain(str(keep))}: the folder is not empty")
    yield keep.resolve()


def _run(command: str, file: str, *, rate: int, as_json: bool) -> int:
    """Run a command of ``tim-async migrate``, and return its exit code."""
    from tim_async.cli.migrate.command import migrate

    words = [command, file, "--rate", f"{rate}", "--credentials", _CREDENTIALS]
    if command != "verify":
        words += ["--report", f"{Path(file).stem}.html"]
    say(f"\n$ tim-async migrate {' '.join(words)}")
    code = migrate.main([*words, *(["--json"] if as_json else [])], "tim-async migrate", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _print_results(world: World, service: Emulator, differences: list[Discrepancy], *, as_json: bool) -> None:
    """Print the report of the emulator, and the lost and wrong rows."""
    from tim_async.cli.migrate.tables import emit
    from tim_async.cli.serve import report_table

    report = service.report().as_dict()
    total = report["total"]
    checked, kinds = len(world.counts) + len(world.reads), Counter(difference.kind for difference in differences)
    if as_json:
        numbers = {"checked": checked, "lost": kinds["lost"], "wrong": kinds["wrong"], "refused": total["refused"]}
        listed = [asdict(difference) for difference in differences[:_MAX_LISTED]]
        emit("compared", {**numbers, "differences": listed, "emulator": report})
        return
    faults = sum(total["faults"].values())
    show(
        "\nCalls received by the emulator:\n",
        report_table(report["endpoints"]),
        f"\nInjected faults: {faults:,} in {total['calls']:,} calls.",
        f"Final state compared with the files, {checked:,} rows:",
        *(
            f"  {one.file}, line {one.line:,}: {one.kind}, {one.found:,} instead of {one.expected:,}"
            for one in differences[:_MAX_SHOWN]
        ),
        f"{kinds['lost']:,} lost, {kinds['wrong']:,} wrong, {total['refused']:,} refused",
    )
