"""What is worth saying of the rows of a file: ids that are probably wrong, rows without a time, records over lines."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Self

from ._rows import Column, is_visible

_LINES_NAMED = 5

_ORDINARY = re.compile(r"(?!(?i:null|-?nan|none|nil|undefined|nat)$|NA$)[A-Za-z0-9_@#$:-]{1,32}")
"""Ids with which nothing can be wrong; nearly all are."""
_EMPTY = {"null", "nan", "none", "nil", "undefined", "nat", "n/a", "\\n", "-nan", "#n/a", "#null!", "#value!", "#ref!"}
_EMPTY |= {"#name?", "#num!", "#div/0!", "<na>", "<null>", "(null)", "[null]", "{}", "[]", "[object object]"}
_ROUNDED = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE]\+\d+|[+-]?\d+[.,]\d+[eE]-?\d+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d+[.,]0+", re.ASCII)
_SERVICE = "@TGS#"
"""Beginning of the group ids that the service makes."""


def suspicion(column: Column, value: str) -> str:
    """Why an id is probably not what was meant; "" when nothing is odd about it.

    Args:
        column: the field that it is in.
        value: the id as it would be sent.
    """
    if _ORDINARY.fullmatch(value):
        return ""
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
    """Ids that are probably wrong for the same reason.

    Attributes:
        reason: why, as the end of a sentence that begins with the id.
        ids: how many.
        first_line: the line of the first of them.
        field: the field of the first.
        value: the first, quoted, with what is invisible escaped.
    """

    reason: str
    ids: int
    first_line: int
    field: str
    value: str


@dataclass(slots=True)
class Notes:
    """What is worth saying of the rows that were read.

    Attributes:
        without_time: rows that mark a conversation read up to now.
        on_several_lines: records of CSV that extend over several lines.
        first_lines: the lines where the first few of those begin.
        suspicions: ids that are probably wrong, by reason.
    """

    without_time: int = 0
    on_several_lines: int = 0
    first_lines: list[int] = field(default_factory=list)
    suspicions: dict[str, Suspicion] = field(default_factory=dict)

    def add_record(self, line: int) -> None:
        """Note a record over several lines, by the first of them."""
        self.on_several_lines += 1
        if len(self.first_lines) < _LINES_NAMED:
            self.first_lines.append(line)

    def add_suspicion(self, line: int, name: str, value: str, reason: str) -> None:
        """Note an id that is probably wrong: its line, its field, how it is shown, and why."""
        found = self.suspicions.get(reason) or Suspicion(reason, 0, line, name, value)
        self.suspicions[reason] = dataclasses.replace(found, ids=found.ids + 1)

    def sentences(self) -> list[str]:
        """Each note as a sentence for people, without its full stop."""
        said = []
        if self.without_time:
            said.append(f"{_many(self.without_time, 'row has', 'rows have')} no time: read up to when it is first sent")
        if self.on_several_lines:
            lines = ", ".join(map(str, self.first_lines))
            more = ", …" if self.on_several_lines > len(self.first_lines) else ""
            records = _many(self.on_several_lines, "record extends", "records extend")
            said.append(f"{records} over several lines, from line {lines}{more}; --quote none takes each line as a row")
        for one in self.suspicions.values():
            ids = _many(one.ids, "suspicious id", "suspicious ids")
            said.append(f"{ids}, the first on line {one.first_line}: {one.field} {one.value} {one.reason}")
        return said

    def to_json(self) -> str:
        """The notes as text to be kept."""
        suspicions = [dataclasses.asdict(one) for one in self.suspicions.values()]
        return json.dumps(dataclasses.asdict(self) | {"suspicions": suspicions})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote; of "", nothing worth saying."""
        values = json.loads(text or "{}")
        suspicions = [Suspicion(**one) for one in values.pop("suspicions", ())]
        return cls(**values, suspicions={one.reason: one for one in suspicions})


def _many(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
