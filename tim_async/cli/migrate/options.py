"""The options of the commands, each declared once; `Settings` has their values by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tim_async.cli.failures import Misuse
from tim_async.cli.ranges import FiniteRange, NonEmptyPath

DEFAULT_NAME = "migration"  # the library's DEFAULT_NAME, without importing it for help
MAX_CONCURRENCY = 100_000  # as the library's
RATE = 200.0
"""Calls/s that the service allows on an endpoint by default."""
_STORE = (
    "redis://HOST:PORT/DB, rediss:// for TLS, unix://PATH, redis+sentinel://HOST:PORT,HOST:PORT/NAME/DB, or "
    "redis+cluster://HOST:PORT,HOST:PORT"
)


def _option(names: str, text: str, metavar: str | None = None, **more: Any) -> click.Option:
    return click.Option(names.split(), metavar=metavar, help=text, **more)


def _flag(names: str, text: str, **more: Any) -> click.Option:
    return click.Option(names.split(), is_flag=True, help=text, **more)


def _path(names: str, text: str, *, exists: bool = False) -> click.Option:
    return _option(names, text, "PATH", type=NonEmptyPath(exists=exists, dir_okay=False, path_type=Path))


def _pairs(ctx: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Parse the values of a FIELD=… option, by field."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Misuse(f"{option.opts[0]} takes {option.make_metavar(ctx)}, not {text!r}")
        if name in found:
            raise Misuse(f"{option.opts[0]} is given twice for {name}")
        found[name] = value
    return found


def _names(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


_PATH_OR_URL = NonEmptyPath(readable=False)
FILE = click.Argument(["file"], type=_PATH_OR_URL)
JOURNAL = click.Argument(["journal"], type=_PATH_OR_URL)
URL = click.Argument(["journal"], metavar="URL")

_OF_FIELDS: dict[str, Any] = {"multiple": True, "callback": _pairs}
_FORMAT = "Format of FILE; by default detected from its name or its content."
_MAP = "Read FIELD from another column, or from a dotted path into JSON.  May be given several times."
_ID_FORMAT = "Template of an id: {} is the value read, {name} the value of another column.  May be given several times."
SOURCE = (
    _option("--format", _FORMAT, type=click.Choice(["csv", "tsv", "jsonl"])),
    _option("--map columns", _MAP, "FIELD=COLUMN", **_OF_FIELDS),
    _option("--id-format id_formats", _ID_FORMAT, "FIELD=TEMPLATE", **_OF_FIELDS),
    _option("--delimiter", "Delimiter of the fields: one character, or tab; by default detected.", "CHAR"),
    _option("--quote", 'Quote character of the fields; by default " with commas, none with tabs.', "CHAR|none"),
    _option("--encoding", "Encoding of FILE; UTF-8 by default.", "NAME"),
    _option("--null", r"Text that represents an empty field, such as NULL or \N.", "TEXT"),
    _flag("--no-header", "FILE has no header; --columns names its columns."),
    _option("--columns header", "Names of the columns, for --no-header.", "A,B,…", callback=_names),
    _flag("--strict-ids", "Reject rows with suspicious ids, such as NULL, 1.38E+10 or too long ones."),
)
"""The arguments of `FileSource`, by their names; ``--no-header`` only confirms ``--columns``."""

UNTIL_NOW = _flag(
    "--until-now",
    "For rows without a MsgReadTime, use the time of sending; by default, they are rejected.",
)
_KIND = "Kind of the rows, as in the commands of these names; by default detected from their columns."
KIND = _option("--kind", _KIND, type=click.Choice(["unread", "read"]))
_NAME = "Name of the migration in Redis or Valkey; one database can hold several."
NAME = _option("--name", _NAME, default=DEFAULT_NAME, show_default=True)
REJECTED = _path("--rejected", "File for failed and rejected rows, with their reasons; FILE.rejected.jsonl by default.")
REJECTED_OF = _path("--rejected", "Write the failed and rejected rows, with their reasons, to PATH.")
REPORT = _path("--report", "Write a report, a single HTML page, to PATH.")
_MENDED = "Read corrected values of failed and rejected rows from PATH, the edited file of rejected rows."
MENDED = _path("--mended", _MENDED, exists=True)
_RESTART = "Discard the journal of earlier runs and start over; on a terminal, asks for confirmation."
YES = _flag("--yes", "Do not ask for confirmation.")
RESTART = (_flag("--restart", _RESTART), YES)
REPLACE = _flag("--replace", "Replace a stream of this name that has other rows.")
_JOURNAL = f"Journal of the migration: a file, FILE.journal by default, or a Redis or Valkey: {_STORE}."
FILES = (_option("--journal", _JOURNAL, "PATH|URL", type=_PATH_OR_URL), NAME, REJECTED, REPORT, MENDED, *RESTART)
_STREAM = (
    f"Redis or Valkey with the stream: {_STORE}.  Pass one with a password in TIM_REDIS_URL.  [env: TIM_REDIS_URL]"
)
TO = _option("--to journal", _STREAM, "URL", required=True, envvar="TIM_REDIS_URL")
FROM = _option("--from journal", _STREAM, "URL", required=True, envvar="TIM_REDIS_URL")

_CALLS = FiniteRange(min=1)
_PART = FiniteRange(min=0, max=1, min_open=True)
_RATE = "Calls/s that the service allows; with --quota, the maximum of this process; 200 by default."
_SHARE = (
    "Share of the rate to use, 1 by default; the rest is left to live traffic.  0.8 also stays below the vendor's "
    "alert at 80 %."
)
_QUOTA = (
    "Store of a quota to share; by default, that of a journal in Redis or Valkey, and none with a file: "
    f"{_STORE}.  Pass one with a password in TIM_QUOTA_URL.  [env: TIM_QUOTA_URL]"
)
PACE = (
    _option("--rate", _RATE, "CALLS/S", type=_CALLS, default=RATE),
    _option("--share", _SHARE, "PART", type=_PART, default=1.0),
    _option("--quota", _QUOTA, "URL", type=_PATH_OR_URL, envvar="TIM_QUOTA_URL"),
    _flag("--no-quota", "Share no quota: --rate is for this process alone."),
)
NEW_PACE = (
    _option("--rate new_rate", "Calls/s that the service allows from now on.", "CALLS/S", type=_CALLS),
    _option("--share new_share", "Share of the rate to use from now on.", "PART", type=_PART),
)
_SECONDS = FiniteRange(min=0, min_open=True)
_CONCURRENCY = click.IntRange(1, MAX_CONCURRENCY)
_OUTAGE = "Stop if the service accepts no row for this long; by default, never."
LIMITS = (
    _option("--concurrency", "Maximum concurrent calls.", type=_CONCURRENCY, default=100, show_default=True),
    _option("--max-errors", "Stop after more than N failed or rejected rows.", "N", type=click.IntRange(min=0)),
    _option("--max-outage", _OUTAGE, "SECONDS", type=_SECONDS),
    _option("--limit", "Stop after N rows, resumably.", "N", type=click.IntRange(min=1)),
)
_UNCHECKED = (
    "Do not look up the group of a row first.  Rows of groups without unread counts then count as accepted, although "
    "the service ignores them."
)
GROUP_CHECK = _flag("--no-group-check group_check", _UNCHECKED, callback=lambda _ctx, _option, flag: not flag)
_LEASE = "Seconds of silence after which other workers take over the rows of a worker."
LEASE = _option("--lease", _LEASE, "SECONDS", type=FiniteRange(0.5, 3600), default=10.0, show_default=True)
DRY_RUN = _flag("--dry-run", "Read and check all rows, but send nothing; needs no credentials.")
CHECK_GROUPS = _flag("--check-groups", "With --dry-run, also look up the groups; needs credentials.")
JSON_LINES = _flag("--json as_json", "Print JSON Lines, one object per event, instead of a table.")
JSON = _flag("--json as_json", "Print one JSON document instead of a table.")


def source_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a `FileSource` from the values of the options.

    Raises:
        Misuse: only one of ``--no-header`` and ``--columns`` was given.
    """
    names = {str(option.name) for option in (*SOURCE, UNTIL_NOW)} - {"no_header"}
    if bool(given.get("no_header")) != (given.get("header") is not None):
        raise Misuse("--no-header and --columns A,B,… must be used together")
    return {name: given[name] for name in given.keys() & names if given[name]}
