"""The options of the commands, each declared once; `Settings` takes their values by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tim_async.cli.failures import Misuse

NAME = "migration"  # the library's DEFAULT_NAME; help imports nothing of that
RATE = 200.0
"""Calls/s that the service allows on an endpoint unless more was bought."""
_STORE = "redis://HOST:PORT/DB, rediss:// for TLS, or unix://PATH.  Put one with a password into the environment."
_PATH = click.Path(dir_okay=False, path_type=Path)


def _pairs(_: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """The values of an option that takes FIELD=…, by field."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Misuse(f"{option.opts[0]} takes {option.make_metavar(_)}, not {text!r}")
        if name in found:
            raise Misuse(f"{option.opts[0]} is given twice for {name}")
        found[name] = value
    return found


def _names(_: click.Context, __: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


def _inverted(_: click.Context, __: click.Parameter, flag: bool) -> bool:
    return not flag


def _flag(name: str, text: str, **more: Any) -> click.Option:
    return click.Option([f"--{name}", *more.pop("names", ())], is_flag=True, help=text, **more)


FILE = click.Argument(["file"])
JOURNAL = click.Argument(["journal"])
URL = click.Argument(["journal"], metavar="URL")

SOURCE = (
    click.Option(
        ["--format"],
        type=click.Choice(["csv", "tsv", "jsonl"]),
        help="Format of FILE; by default that of its name, or else of its content.",
    ),
    click.Option(
        ["--map", "columns"],
        metavar="FIELD=COLUMN",
        multiple=True,
        callback=_pairs,
        help="Read a field from another column, or from a dotted path into JSON.  May be given several times.",
    ),
    click.Option(
        ["--id-format", "id_formats"],
        metavar="FIELD=TEMPLATE",
        multiple=True,
        callback=_pairs,
        help="Template of an id: {} is the value read, {name} that of another column.  May be given several times.",
    ),
    click.Option(["--delimiter"], metavar="CHAR", help="Character between the fields, or tab; by default found out."),
    click.Option(
        ["--quote"],
        metavar="CHAR|none",
        help='Character around fields; by default " where commas are between them, and none where tabs are.',
    ),
    click.Option(["--encoding"], metavar="NAME", help="Encoding of FILE; UTF-8 by default."),
    click.Option(["--null"], metavar="TEXT", help=r"Text that stands for an empty field, such as NULL or \N."),
    _flag("no-header", "FILE has no header; --columns names its columns."),
    click.Option(
        ["--columns", "header"], metavar="A,B,…", callback=_names, help="Names of the columns, for --no-header."
    ),
    _flag("strict-ids", "Reject rows with suspicious ids, such as NULL, 1.38E+10 or ids that are too long."),
)
"""What `FileSource` takes, by its names; ``--no-header`` only confirms ``--columns``."""

UNTIL_NOW = _flag(
    "until-now", "Mark rows without a MsgReadTime read up to the moment at which each is sent; else they are rejected."
)
KIND = click.Option(
    ["--kind"],
    type=click.Choice(["unread", "read"]),
    help="Kind of the rows, as in the commands of these names; by default that of their columns.",
)
NAMED = click.Option(
    ["--name"],
    default=NAME,
    show_default=True,
    help="Name of the migration in Redis or Valkey; one database can hold several.",
)
REJECTED = click.Option(
    ["--rejected"],
    type=_PATH,
    metavar="PATH",
    help="File for failed and rejected rows, with the reasons; FILE.rejected.jsonl by default.",
)
REJECTED_OF = click.Option(
    ["--rejected"], type=_PATH, metavar="PATH", help="Write the failed and rejected rows, with the reasons, to PATH."
)
REPORT = click.Option(["--report"], type=_PATH, metavar="PATH", help="Write a report, one page of HTML, to PATH.")
MENDED = click.Option(
    ["--mended"],
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Take new values of failed and rejected rows from PATH, the edited file of rejected rows.",
)
YES = _flag("yes", "Do not ask.")
RESTART = (
    _flag("restart", "Forget what the journal knows of an earlier run, and start over; asks first on a terminal."),
    YES,
)
REPLACE = _flag("replace", "Drop a stream of this name with other rows.")
KEPT = (
    click.Option(
        ["--journal"],
        metavar="PATH|URL",
        help="Where to record the progress: a file, FILE.journal by default, or a Redis or Valkey: " + _STORE,
    ),
    NAMED,
    REJECTED,
    REPORT,
    MENDED,
    *RESTART,
)


def stream(option: str) -> click.Option:
    """The URL of the store, by an option of this name."""
    return click.Option(
        [option, "journal"],
        metavar="URL",
        required=True,
        envvar="TIM_REDIS_URL",
        help=f"Redis or Valkey with the stream: {_STORE}  [env: TIM_REDIS_URL]",
    )


TO = stream("--to")
FROM = stream("--from")

PACE = (
    click.Option(
        ["--rate"],
        type=click.FloatRange(min=1),
        metavar="CALLS/S",
        default=RATE,
        help="Calls/s that the service allows; 200 by default.",
    ),
    click.Option(
        ["--share"],
        type=click.FloatRange(min=0, max=1, min_open=True),
        metavar="PART",
        default=1.0,
        help="Use this share of the rate and leave the rest to live traffic; 1 by default.  "
        "0.8 also stays below the vendor's alert at 80 %.",
    ),
    click.Option(
        ["--quota"],
        metavar="URL",
        envvar="TIM_QUOTA_URL",
        help="Share the rate with all users of this store's quota; with a journal in Redis or Valkey, of that one by "
        f"default: {_STORE}  [env: TIM_QUOTA_URL]",
    ),
    _flag("no-quota", "Use --rate for this process alone."),
)
NEW_PACE = (
    click.Option(
        ["--rate"], type=click.FloatRange(min=1), metavar="CALLS/S", help="Calls/s that the service allows from now on."
    ),
    click.Option(
        ["--share"],
        type=click.FloatRange(min=0, max=1, min_open=True),
        metavar="PART",
        help="Share of the rate to use from now on.",
    ),
)

BOUNDS = (
    click.Option(
        ["--concurrency"], type=click.IntRange(min=1), default=100, show_default=True, help="Concurrent calls."
    ),
    click.Option(
        ["--max-errors"],
        type=click.IntRange(min=0),
        metavar="N",
        help="Stop after more failed or rejected rows than this.",
    ),
    click.Option(
        ["--max-outage"],
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Stop when the service accepts no row for this long; by default, never.",
    ),
    click.Option(["--limit"], type=click.IntRange(min=1), metavar="N", help="Stop after N rows, resumably."),
)
GROUP_CHECK = _flag(
    "no-group-check",
    "Do not look up each group first.  Rows of groups without unread counts then count as accepted, "
    "although the service ignores them.",
    names=["group_check"],
    callback=_inverted,
)
LEASE = click.Option(
    ["--lease"],
    type=click.FloatRange(min=0.5, max=3600),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Seconds of silence after which other workers take over a worker's rows.",
)
DRY_RUN = (
    _flag("dry-run", "Read and check everything, and send nothing; needs no credentials."),
    _flag("check-groups", "With --dry-run: also look up the groups, which needs credentials."),
)
JSON_LINES = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print JSON lines, one object for each event, instead of a table."
)
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document instead of a table.")


class Remembering(click.Command):
    """A command that remembers its words, to be shown again with another option among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words as any command does."""
        ctx.meta[__name__] = list(args)
        return super().parse_args(ctx, args)


def words_of(ctx: click.Context) -> list[str]:
    """The words of a `Remembering` command that come after its name."""
    words: list[str] = ctx.meta.get(__name__, [])
    return words


def source_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a `FileSource` among the values of options.

    Raises:
        Misuse: ``--no-header`` without ``--columns``, or the other way round.
    """
    names = {str(option.name) for option in (*SOURCE, UNTIL_NOW)} - {"no_header"}
    if bool(given.get("no_header")) != (given.get("header") is not None):
        raise Misuse("--no-header and --columns A,B,… need each other")
    return {name: given[name] for name in given.keys() & names if given[name]}
