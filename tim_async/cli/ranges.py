"""How numbers and times are written on the command line: ``1-500,720`` and ``2025-08-31T09:00:00+08:00``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import click

from tim_async.config import unix_seconds

MAX_MESSAGES = 1_000_000
"""Messages that one command asks for at most; more is far likelier a slip of the finger."""

_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


class FiniteRange(click.FloatRange):
    """A range of numbers, of which ``nan`` and ``inf`` are none: to click, both are in every range without an end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not finite.", param, ctx)
        return number


def parse_seqs(texts: Iterable[str]) -> list[int]:
    """Read message numbers and ranges of them.

    Args:
        texts: each one or more of ``7`` and ``1-500``, with commas between.

    Returns:
        The numbers in the order given, each once.

    Raises:
        ValueError: a part is no number or range, a range runs backwards, or they are more than a million.
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
                raise ValueError(f"the range {part.strip()} runs backwards")
            if last - first >= MAX_MESSAGES:
                raise ValueError(f"the range {part.strip()} holds more than {MAX_MESSAGES:,} messages")
            seqs.update(dict.fromkeys(range(first, last + 1)))
            if len(seqs) > MAX_MESSAGES:
                raise ValueError(f"these are more than {MAX_MESSAGES:,} messages")
    return list(seqs)


def parse_time(text: str) -> int:
    """Read a time as `config.unix_seconds` does.

    Raises:
        ValueError: naming it, and what is wrong.
    """
    try:
        return unix_seconds(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
