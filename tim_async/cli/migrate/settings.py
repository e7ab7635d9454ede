"""The settings of a command: the values of its options, and the objects made from them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tim_async import config
from tim_async._stores import is_url, read_url
from tim_async.cli import credentials
from tim_async.cli.failures import Misuse, argument_errors
from tim_async.cli.output import plain
from tim_async.migrate import KINDS, MigrateOptions, Notes
from tim_async.migrate._files import part_of
from tim_async.migrate._journal_file import journal_files
from tim_async.migrate._sqlite import SqliteStore
from tim_async.regions import Hosts

from .files import STDIN, check_writable, file_identity, find_journal, query, sibling_path
from .options import DEFAULT_NAME, RATE, source_options

if TYPE_CHECKING:
    from tim_async import TIMClient
    from tim_async.migrate import Status, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of a command's options, by name; an option that a command does not have is at its default.

    Attributes:
        command: the command's name.
        words: the command line after it.
        kind: the name of the kind of the rows; None if it is to be detected.
        journal: a path, or the URL of a store.
        rejected: the file for failed and rejected rows; None for no file.
        source: the keyword arguments of the `FileSource`.
        options: the options of sending.
    """

    command: str
    words: tuple[str, ...]
    file: str = ""
    kind: str | None = None
    journal: str = ""
    name: str = DEFAULT_NAME
    lease: float = 10.0
    rejected: Path | None = None
    report: Path | None = None
    mended: Path | None = None
    restart: bool = False
    replace: bool = False
    yes: bool = False
    dry_run: bool = False
    check_groups: bool = False
    quota: str | None = None
    no_quota: bool = False
    new_rate: float | None = None
    new_share: float | None = None
    as_json: bool = False
    credentials_file: Path | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    options: MigrateOptions = field(default_factory=MigrateOptions)

    @classmethod
    def of(cls, ctx: click.Context) -> Settings:
        """Return the settings of a parsed command line.

        Raises:
            Misuse: options contradict each other, or one is invalid.
            Failure: an output file is not writable.
        """
        given: dict[str, Any] = {"command": ctx.command.name, "words": ctx.meta.get("words", ()), **ctx.params}
        if given["command"] in KINDS:
            given["kind"] = given["command"]
        if given["command"] in ("status", "verify", "set"):
            found = find_journal(given["journal"])
            if found != given["journal"]:
                given["file"] = given["journal"]  # the file that the journal belongs to
            given["journal"] = found
        elif "file" in given:
            given["journal"] = given["journal"] or sibling_path(given["file"], "journal")
            if given["rejected"] is None and not given.get("dry_run"):
                given["rejected"] = Path(sibling_path(given["file"], "rejected.jsonl"))
        if given.get("quota") and given.get("no_quota"):
            if ctx.get_parameter_source("quota") is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("--quota and --no-quota cannot be combined")
            given["quota"] = None
        if given.get("restart") and given.get("mended"):
            raise Misuse("--restart discards the rows that --mended corrects; use only one of them")
        if given.get("check_groups") and not given["dry_run"]:
            raise Misuse("--check-groups needs --dry-run; a run looks up each group anyway, before its first row")
        _check_pace(given.get("rate", RATE), given.get("share", 1.0))
        given["source"] = source_options(given)
        given["options"] = MigrateOptions(**_matching_fields(MigrateOptions, given))
        settings = cls(**_matching_fields(cls, given))
        settings.check_store()
        settings.check_paths(writes_journal="file" in ctx.params and not settings.dry_run)
        return settings

    def check_store(self) -> None:
        """Check that the journal can be at its path or URL."""
        if not self.in_store and self.command not in ("load", "work", "drop"):
            if self.name != DEFAULT_NAME:
                raise Misuse(f"--name is for a journal in Redis or Valkey; {plain(self.journal)} is a file")
            return
        with argument_errors():
            read_url(self.journal)
        from tim_async.migrate._redis import checked_name

        with argument_errors():
            checked_name(self.name)

    def check_paths(self, *, writes_journal: bool) -> None:
        """Check that the files are distinct and writable, so that none overwrites the rows or another file.

        Args:
            writes_journal: whether the command writes the journal, too.
        """
        taken = {} if self.file in ("", STDIN) else {file_identity(Path(self.file)): "FILE"}
        journal = None if self.in_store else Path(self.journal)
        begun = not writes_journal or journal is None or journal.exists()
        if not begun and self.file != STDIN and not os.path.lexists(self.file):  # leave no journal behind
            raise Misuse(f"cannot read {plain(self.file)}: No such file or directory")
        written = {"--journal": journal, "--rejected": self.rejected, "--report": self.report}
        for option, path in written.items():
            if path is None:
                continue
            for name in [path, *(journal_files(path) if path is journal else [part_of(path)])]:
                other = taken.setdefault(file_identity(name), option)
                if other != option:
                    raise Misuse(f"{option} and {other} are the same file: {plain(str(name))}")
            if option != "--journal" or writes_journal:
                check_writable(option, path)
        if self.mended is not None and taken.get(file_identity(self.mended), "--rejected") != "--rejected":
            raise Misuse(f"--mended and {taken[file_identity(self.mended)]} are the same file: {self.mended}")

    @property
    def in_store(self) -> bool:
        """Whether the journal is in Redis or Valkey."""
        return is_url(self.journal)

    @property
    def limit(self) -> float:
        """Calls/s to the endpoint of the rows."""
        return self.options.rate * self.options.share

    @property
    def quota_url(self) -> str | None:
        """The URL of the shared quota; None for a rate of its own."""
        return None if self.no_quota else self.quota or (self.journal if self.in_store else None)

    def make_store(self, stop: asyncio.Event, tell: Callable[..., None]) -> Store:
        """Create the journal's store; a `tim_async.migrate._engine.StoreFactory`."""
        if not self.in_store:
            return SqliteStore(self.journal)
        from tim_async.migrate._redis import RedisStore

        return RedisStore(self.journal, self.name, lease=self.lease, stop=stop, tell=tell)

    def client(self, endpoints: Iterable[str], on_attempt: Callable[[Any], None]) -> TIMClient:
        """Create a client that keeps to the pace.

        Args:
            endpoints: the endpoints to call, by method name.
            on_attempt: called for each attempt.
        """
        from tim_async.client import TIMClient

        given = credentials.client_options(self.credentials_file)
        with argument_errors():
            limits = pace(endpoints, self.options.rate, self.options.share, self.quota_url)
            return TIMClient(**given, **limits, on_attempt=on_attempt)

    def app(self) -> dict[str, Any]:
        """Return the app, if it is configured: a load needs no credentials, and then the first worker sets the app."""
        with argument_errors():
            if self.credentials_file is not None:
                found = credentials.client_options(self.credentials_file)
            else:
                # Neither the secret key nor a file with it is needed.
                wanted = ("TIM_SDK_APP_ID", "TIM_REGION", "TIM_BASE_URL", "TIM_ALLOW_HTTP")
                found = config.options({name: os.environ.get(name, "") for name in wanted})
                if "sdk_app_id" not in found or not {"region", "base_url"} & found.keys():
                    return {}
                config.require_place(found)
            host = Hosts.of(found.get("region"), found.get("base_url"), allow_http=found.get("allow_http", False))
            return {"sdk_app_id": found["sdk_app_id"], "base_url": host.current}


def read_journal(settings: Settings, seconds: float | None = None) -> tuple[Status, Notes]:
    """Read the status and the notes of a journal.

    Args:
        settings: the settings with the journal.
        seconds: the time-out in seconds; None for none.

    Raises:
        JournalError: there is no journal, or it is not readable.
        TimeoutError: the journal was not read in time.
    """

    async def ask(store: Store) -> tuple[Status, Notes]:
        return await store.status(), Notes.from_json(await store.note("notes"))

    async def limited() -> tuple[Status, Notes]:
        async with asyncio.timeout(seconds):
            return await query(settings.make_store, ask)

    return asyncio.run(limited())


def _matching_fields(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of a dataclass."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in given.items() if name in names}


def _check_pace(rate: float, share: float) -> None:
    if rate * share < 1.0:
        raise Misuse(f"--rate times --share must be at least 1 call/s, not {rate * share:g}")


def pace(endpoints: Iterable[str], rate: float, share: float, quota: str | None) -> dict[str, Any]:
    """Return the keyword arguments of a ``TIMClient`` that keep it to its part of the rate.

    Args:
        endpoints: the endpoints to call, by method name.
        rate: calls/s that the service allows on each endpoint; with a quota, the maximum of this process.
        share: the share of the rate to use, also for looking up groups.
        quota: the URL of the fleet's quota; None for a rate of its own.
    """
    if quota is None:
        lookups = {"get_group_info": max(1.0, RATE * share)}
        return {"rates": dict.fromkeys(endpoints, rate * share) | lookups}
    from tim_async.quota import RedisQuota

    try:
        # The other members name the service's limit; the share bounds the bulk calls.
        return {"rates": dict.fromkeys(endpoints, rate), "quota": RedisQuota(quota, bulk_share=share, own_rates=True)}
    except ValueError as error:
        raise Misuse(f"--quota: {error}") from None
