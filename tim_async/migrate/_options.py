"""The options of a run, listed once: the command line, `run` and `work` all pass on this one value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tim_async import _arguments

DEFAULT_CONCURRENCY = 100
"""Rows in flight at once: enough for 200 calls/s with round trips of a third of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """The options for sending the rows of a migration.

    Attributes:
        concurrency: rows in flight at once, 1 to 100,000.
        group_check: look up each group before its first row is sent, and fail the rows of groups that would ignore
            them; it concerns unread counts only.
        max_errors: stop when more rows than this have failed or been rejected; None for no limit.
        max_outage: stop when the service has accepted no row for this many seconds; None for no limit.
        limit: stop after this many rows, at least 1; None to send all of them.
        rate: the client's rate, calls/s, until `Store.set_pace` changes it.
        share: the share of the rate that the client uses, above 0 and up to 1, likewise.
        shared_quota: whether the client shares its rates by a `RedisQuota`, where the share is its ``bulk_share``.
        interval: seconds between two `Progress` events.

    Raises:
        ValueError, TypeError: an invalid option.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    group_check: bool = True
    max_errors: int | None = None
    max_outage: float | None = None
    limit: int | None = None
    rate: float = 200.0
    share: float = 1.0
    shared_quota: bool = False
    interval: float = 1.0

    def __post_init__(self) -> None:
        _arguments.concurrency(self.concurrency)
        _arguments.positive("interval", self.interval)
        _arguments.positive("rate", self.rate)
        _arguments.share("share", self.share)
        _arguments.kind("group_check", self.group_check, bool)
        _arguments.kind("shared_quota", self.shared_quota, bool)
        if self.max_errors is not None:
            _arguments.number("max_errors", self.max_errors)
        if self.max_outage is not None:
            _arguments.positive("max_outage", self.max_outage)
        if self.limit is not None:
            _arguments.positive("limit", _arguments.number("limit", self.limit))

    @property
    def most_errors(self) -> float:
        """``max_errors``, or infinity."""
        return math.inf if self.max_errors is None else self.max_errors

    @property
    def longest_outage(self) -> float:
        """``max_outage``, or infinity."""
        return math.inf if self.max_outage is None else self.max_outage
