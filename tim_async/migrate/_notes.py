"""Notes on the rows of a file: ids that are probably wrong, rows without a time, records over several lines."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Self

from ._rows import Column, is_visible

_LINES_NAMED = 5

_EMPTY = {"null", "nan", "none", "nil", "undefined", "nat", "n/a", "\\n", "-nan", "#n/a", "#null!", "#value!", "#ref!"}
_EMPTY |= {"#name?", "#num!", "#div/0!", "<na>", "<null>", "(null)", "[null]", "{}", "[]", "[object object]"}
_ROUNDED = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE]\+\d+|[+-]?\d+[.,]\d+[eE]-?\d+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d+[.,]0+", re.ASCII)
_SERVICE = "@TGS#"
"""The prefix of group ids that the service creates."""


def suspicion(column: Column, value: str) -> str:
    """Return the reason why an id is probably wrong, as the end of a sentence; "" for none.

    Args:
        column: its field.
        value: the id as it would be sent.
    """
    if not is_visible(value):
        return "holds an invisible character"
    if value == "NA" or value.casefold() in _EMPTY:
        return "stands for an empty value"
    if value.startswith("="):
        return "is a spreadsheet's formula"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return "is in quotes, which were taken as part of it"
    if _ROUNDED.fullmatch(value):
        return "is a number that a spreadsheet has rounded"
    if _DECIMAL.fullmatch(value):
        return "is a number with decimals"
    if not value.isascii():
        return "is not printable ASCII"
    if len(value) > column.longest and not value.startswith(_SERVICE):
        return f"is longer than the {column.longest} bytes that the service allows"
    return ""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The ids that are probably wrong for the same reason.

    Attributes:
        reason: the reason, as the end of a sentence that begins with the id.
        ids: the number of ids.
        first_line: the line of the first of them.
        field: the field of the first.
        value: the first, quoted, with invisible characters escaped.
    """

    reason: str
    ids: int
    first_line: int
    field: str
    value: str


@dataclass(slots=True)
class Notes:
    """Notes on the rows that were read.

    Attributes:
        without_time: rows without a time, which mark a conversation read up to now.
        on_several_lines: records of CSV that extend over several lines.
        first_lines: the lines where the first few of these begin.
        suspicions: ids that are probably wrong, by reason.
    """

    without_time: int = 0
    on_several_lines: int = 0
    first_lines: list[int] = field(default_factory=list)
    suspicions: dict[str, Suspicion] = field(default_factory=dict)

    def add_record(self, line: int) -> None:
        """Add a record over several lines, by the first of them."""
        self.on_several_lines += 1
        if len(self.first_lines) < _LINES_NAMED:
            self.first_lines.append(line)

    def add_suspicion(self, line: int, name: str, value: str, reason: str) -> None:
        """Add an id that is probably wrong: its line, its field, the id as it is shown, and the reason."""
        found = self.suspicions.get(reason) or Suspicion(reason, 0, line, name, value)
        self.suspicions[reason] = dataclasses.replace(found, ids=found.ids + 1)

    def sentences(self) -> list[str]:
        """Return each note as a sentence for people, without its full stop."""
        sentences = []
        if self.without_time:
            rows = _counted(self.without_time, "row has", "rows have")
            sentences.append(f"{rows} no time: read up to when it is first sent")
        if self.on_several_lines:
            lines = ", ".join(map(str, self.first_lines))
            more = ", …" if self.on_several_lines > len(self.first_lines) else ""
            records = _counted(self.on_several_lines, "record extends", "records extend")
            sentences.append(
                f"{records} over several lines, from line {lines}{more}; --quote none takes each line as a row"
            )
        for one in self.suspicions.values():
            ids = _counted(one.ids, "suspicious id", "suspicious ids")
            sentences.append(f"{ids}, the first on line {one.first_line}: {one.field} {one.value} {one.reason}")
        return sentences

    def to_json(self) -> str:
        """Return the notes as JSON."""
        suspicions = [dataclasses.asdict(one) for one in self.suspicions.values()]
        return json.dumps(dataclasses.asdict(self) | {"suspicions": suspicions})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the notes from the JSON of `to_json`; from "", no notes."""
        values = json.loads(text or "{}")
        suspicions = [Suspicion(**one) for one in values.pop("suspicions", ())]
        return cls(**values, suspicions={one.reason: one for one in suspicions})


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
