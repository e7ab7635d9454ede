"""The syntax of numbers, times and paths on the command line: ``1-500,720`` and ``2025-08-31T09:00:00+08:00``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import click

from tim_async.config import unix_seconds

MAX_MESSAGES = 1_000_000
"""Maximum number of messages of one command; more are most likely a typing error."""

_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


class FiniteRange(click.FloatRange):
    """A range of finite numbers; click accepts ``nan`` and ``inf`` in a range without a bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not finite.", param, ctx)
        return number


class NonEmptyPath(click.Path):
    """A path or URL, not empty: pathlib takes the value of an unset variable, "", for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check a path or URL."""
        if not value:
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


def parse_seqs(texts: Iterable[str]) -> list[int]:
    """Parse message numbers and ranges of them.

    Args:
        texts: each a list of ``7`` or ``1-500``, separated by commas.

    Returns:
        The numbers in their order, without duplicates.

    Raises:
        ValueError: a part is not a number or range, a range is descending, or there are more than a million messages.
    """
    seqs: dict[int, None] = {}
    for text in texts:
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"{part.strip()!r} is neither a message number nor a range such as 1-500")
            first = int(match[1])
            last = first if match[2] is None else int(match[2])
            if last < first:
                raise ValueError(f"the range {part.strip()} is descending; write {last}-{first}")
            if last - first >= MAX_MESSAGES:
                raise ValueError(
                    f"the range {part.strip()} has more than {MAX_MESSAGES:,} messages, the maximum of one command"
                )
            seqs.update(dict.fromkeys(range(first, last + 1)))
            if len(seqs) > MAX_MESSAGES:
                raise ValueError(f"more than {MAX_MESSAGES:,} messages, the maximum of one command")
    return list(seqs)


def parse_time(text: str) -> int:
    """Parse a time as `config.unix_seconds` does.

    Raises:
        ValueError: the time is invalid; the message has the text and the reason.
    """
    try:
        return unix_seconds(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
