"""What the commands are given: their options, and these together as settings that can be worked with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tim_async.cli.failures import Failure, Misuse

if TYPE_CHECKING:
    from tim_async.migrate import FileSource, Kind

Command = TypeVar("Command", bound=Callable[..., Any])

STDIN = "-"
RATE = 200.0
QUOTA = "TIM_QUOTA_URL"
"""Calls a second that the service allows on an endpoint unless more was bought."""

_STDIN_NAME = "stdin"
_FORMATS = ["csv", "tsv", "jsonl"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One migration as it was asked for.

    Attributes:
        kind: the name of the kind of its rows.
        file: the file with the rows as it was given; "-" for standard input.
        journal: where its journal is.
        rejected: where failed and rejected rows go.
        report: where the report goes; None for nowhere.
        columns: columns by field.
        id_formats: templates of ids by field.
        format: the file's format; None to find out.
        rate: calls/s that the service allows.
        share: the part of them to use, above 0 and up to 1.
        quota: the store with the quota of the whole fleet; None for a rate of its own.
        concurrency: calls under way at a time.
        max_errors: failed and rejected rows that are borne; None for any number.
        max_outage: seconds that an outage is borne; None for as long as it takes.
        group_check: whether groups are looked up before their rows are sent.
        as_json: whether events go to standard output, as JSON lines.
    """

    kind: str
    file: str
    journal: Path
    rejected: Path
    report: Path | None
    columns: dict[str, str]
    id_formats: dict[str, str]
    format: Any
    rate: float
    share: float
    quota: str | None
    concurrency: int
    max_errors: int | None
    max_outage: float | None
    group_check: bool
    as_json: bool

    @classmethod
    def of(
        cls,
        kind: str,
        file: str,
        *,
        journal: Path | None,
        rejected: Path | None,
        columns: Iterable[str],
        id_formats: Iterable[str],
        group_check: bool = True,
        **others: Any,
    ) -> Settings:
        """Make settings of the options as click has read them.

        Raises:
            Misuse: they contradict each other, or one cannot be right.
        """
        settings = cls(
            kind,
            file,
            journal=journal_of(file) if journal is None else journal,
            rejected=rejected_of(file) if rejected is None else rejected,
            columns=pairs("--map", "COLUMN", columns),
            id_formats=pairs("--id-format", "TEMPLATE", id_formats),
            group_check=group_check,
            **others,
        )
        check_share(settings.rate, settings.share)
        _check_places(settings)
        return settings

    @property
    def limit(self) -> float:
        """Calls/s to the endpoint of the rows."""
        return self.rate * self.share

    def source(self) -> FileSource:
        """The rows.

        Raises:
            Misuse: a field, a column or a template that cannot be.
        """
        from tim_async.migrate import KINDS, FileSource

        try:
            return FileSource(
                self.file,
                KINDS[self.kind],
                format=self.format,
                columns=self.columns,
                id_formats=self.id_formats,
            )
        except ValueError as error:
            raise Misuse(str(error)) from None

    def what(self) -> Kind:
        """The kind of its rows."""
        from tim_async.migrate import KINDS

        return KINDS[self.kind]


def journal_of(file: str) -> Path:
    """Where the journal of a file is unless another place was named; that of standard input is in this folder."""
    return Path(f"{_base(file)}.journal")


def takes_file(command: Command) -> Command:
    """Give a command FILE and all that says where its rows are."""
    for option in reversed(
        (
            click.argument("file"),
            click.option(
                "--format",
                type=click.Choice(_FORMATS),
                help="Format of FILE; by default that of its name, or else of its content.",
            ),
            click.option(
                "--map",
                "columns",
                metavar="FIELD=COLUMN",
                multiple=True,
                help="Read a field from another column, or from a dotted path into JSON.  May be given several times.",
            ),
            click.option(
                "--id-format",
                "id_formats",
                metavar="FIELD=TEMPLATE",
                multiple=True,
                help="Template of an id: {} is the value read, {name} that of another column.  "
                "May be given several times.",
            ),
        )
    ):
        command = option(command)
    return command


def takes_rejected(command: Command) -> Command:
    """Give a command ``--rejected``."""
    return click.option(
        "--rejected",
        type=_file(),
        metavar="PATH",
        help="File for failed and rejected rows, with the reasons; FILE.rejected.jsonl by default.",
    )(command)


def takes_rows(command: Command) -> Command:
    """Give a command FILE and all that says where its rows are and where what comes of them goes."""
    command = takes_rejected(command)
    command = click.option(
        "--journal", type=_file(), metavar="PATH", help="File that records the progress; FILE.journal by default."
    )(command)
    return takes_file(command)


def takes_report(command: Command) -> Command:
    """Give a command ``--report``."""
    return click.option("--report", type=_file(), metavar="PATH", help="Write a report, one page of HTML, to PATH.")(
        command
    )


def takes_pace(command: Command) -> Command:
    """Give a command ``--rate`` and ``--share``."""
    command = click.option(
        "--share",
        type=click.FloatRange(min=0, max=1, min_open=True),
        metavar="PART",
        default=1.0,
        help="Use this share of the rate and leave the rest to live traffic; 1 by default.  "
        "0.8 also stays below the vendor's alert at 80 %.",
    )(command)
    return click.option(
        "--rate",
        type=click.FloatRange(min=1),
        metavar="CALLS/S",
        default=RATE,
        help="Calls/s that the service allows; 200 by default.",
    )(command)


def takes_quota(command: Command) -> Command:
    """Give a command ``--quota``."""
    return click.option(
        "--quota",
        metavar="URL",
        envvar=QUOTA,
        help="Share the rate with all users of this store's quota: redis://HOST:PORT/DB, rediss:// for TLS, or "
        f"unix://PATH.  Put one with a password into the environment.  [env: {QUOTA}]",
    )(command)


def pace(endpoints: Iterable[str], rate: float, share: float, quota: str | None) -> dict[str, Any]:
    """What keeps a client to its part of the rate, as keyword arguments of a ``TIMClient``.

    Args:
        endpoints: those that are called, by method name.
        rate: calls/s that the service allows on each of them.
        share: the part of them to use; it also holds for looking up groups.
        quota: the store with the quota of the whole fleet; None for a rate of its own.

    Raises:
        Misuse: no such URL.
        Failure: redis-py is not installed.
    """
    if quota is None:
        lookups = {"get_group_info": max(1.0, RATE * share)}
        return {"rates": dict.fromkeys(endpoints, rate * share) | lookups}
    from tim_async.quota import RedisQuota

    try:
        # All who share it must mean the same limit: this one's part is what its bulk calls leave.
        return {"rates": dict.fromkeys(endpoints, rate), "quota": RedisQuota(quota, bulk_share=share)}
    except ValueError as error:
        raise Misuse(f"--quota: {error}") from None
    except ImportError as error:
        raise Failure(str(error)) from None


def takes_limits(command: Command) -> Command:
    """Give a command what bounds a run."""
    for option in reversed(
        (
            click.option(
                "--concurrency",
                type=click.IntRange(min=1),
                default=100,
                show_default=True,
                help="Concurrent calls.",
            ),
            click.option(
                "--max-errors",
                type=click.IntRange(min=0),
                metavar="N",
                help="Stop after more failed or rejected rows than this.",
            ),
            click.option(
                "--max-outage",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SECONDS",
                help="Stop when the service accepts no row for this long; by default, never.",
            ),
        )
    ):
        command = option(command)
    return command


def takes_json_lines(command: Command) -> Command:
    """Give a command the flag ``--json`` for a stream of events."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON lines, one object for each event, instead of a table."
    )(command)


def check_share(rate: float, share: float) -> None:
    """See that ``rate`` and its ``share`` leave a pace that can be kept.

    Raises:
        Misuse: they do not.
    """
    if not 1.0 <= rate * share < math.inf:  # what is no number fails this, too
        raise Misuse(f"--rate times --share must be at least 1 call/s and finite, not {rate * share:g}")


def rejected_of(file: str) -> Path:
    """Where the rows of a file that did not arrive go unless another place was named."""
    return Path(f"{_base(file)}.rejected.jsonl")


def _base(file: str) -> str:
    return _STDIN_NAME if file == STDIN else file


def _file() -> click.Path:
    return click.Path(dir_okay=False, path_type=Path)


def pairs(option: str, what: str, texts: Iterable[str]) -> dict[str, str]:
    """What an option that takes FIELD=… says, by field.

    Raises:
        Misuse: it is not of that form, or says something of a field twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Misuse(f"{option} takes FIELD={what}, not {text!r}")
        if name in found:
            raise Misuse(f"{option} is given twice for {name}")
        found[name] = value
    return found


def _check_places(settings: Settings) -> None:
    """See that no file is written over another, least of all over the rows."""
    places = {} if settings.file == STDIN else {identity_of(Path(settings.file)): "FILE"}
    named = {"--journal": settings.journal, "--rejected": settings.rejected, "--report": settings.report}
    for option, path in named.items():
        if path is None:
            continue
        other = places.setdefault(identity_of(path), option)
        if other != option:
            raise Misuse(f"{option} and {other} are the same file: {path}")


def identity_of(path: Path) -> tuple[int, int] | Path:
    """What two names of one file have in common."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino
