"""JSON documents: one a line, one after another over any number of lines, or in one array."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ._columns import REPEATED
from ._lines import LONGEST, TOO_LONG, Text
from ._rows import BadField
from .errors import SourceError

_BLOCK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_TOO_DEEP = "is not JSON: nested too deeply"
_NO_OBJECT = "is not a JSON object"
_DEEPEST = 100
"""Levels of nested arrays and objects in a row, at most."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a name that occurs twice has neither of its values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        found.update((name, REPEATED) for name in found if times[name] > 1)
    return found


def _integer(digits: str) -> int | str:
    """Return an integer; one of more digits than int() takes as text: it matters only in a field, which refuses it."""
    try:
        return int(digits)
    except ValueError:
        return digits


_decoded = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer).raw_decode
"""Reads the value that begins at an index of a text; returns it and the index of its end."""

Document = tuple[int, dict[str, Any] | BadField, str]
"""The line where it begins, the object or the problem, and its text."""


def documents(text: Text, name: str) -> Iterator[Document]:
    """Yield each document of a file, in ascending order of line.

    When several begin on one line, as in an array without line ends, those after the first are numbered as if each had
    its own line.

    Args:
        text: the file.
        name: its name in an error.

    Raises:
        SourceError: its documents extend over several lines, and the end of one of them cannot be found.
    """
    if _is_on_several_lines(text):
        yield from _stream(text.stream.read, name)
        return
    for number, line in enumerate(text.lines(), 1):
        if line is None:
            yield number, BadField("", TOO_LONG), ""
        elif not line.isspace():
            yield number, _read(line), line


def _is_on_several_lines(text: Text) -> bool:
    """Whether the documents are in an array, or the first extends over several lines, and is no line that was cut."""
    start = text.head.strip()
    if not start.startswith("{"):
        return start.startswith("[")
    if text.is_cut:
        start = start[: start.rfind("\n") + 1].rstrip()  # complete lines only
    try:
        return "\n" in start[: _decoded(start, 0)[1]]
    except json.JSONDecodeError as error:
        return "\n" in start and error.pos >= len(start)
    except RecursionError:
        return False


def _read(line: str) -> dict[str, Any] | BadField:
    if is_deep(line):
        return BadField("", _TOO_DEEP)
    try:
        value, end = _decoded(line, _after_space(line, 0))
        if line[end:].strip(" \t\r\n"):
            return BadField("", "is not JSON: Extra data")
    except json.JSONDecodeError as error:
        return BadField("", f"is not JSON: {error.msg}")
    return value if isinstance(value, dict) else BadField("", _NO_OBJECT)


def _stream(read: Callable[[int], str], name: str) -> Iterator[Document]:
    stream, last = _Stream(read, name), 0
    array = stream.next() == "["
    if array:
        stream.skip()
        if stream.next() == "]":
            return
    while array or stream.next():
        line, value, text = stream.document()
        last = max(line, last + 1)
        if is_deep(text):
            yield last, BadField("", _TOO_DEEP), text
        else:
            yield last, value if isinstance(value, dict) else BadField("", _NO_OBJECT), text
        if array:
            after = stream.next()
            if after not in (",", "]"):
                raise SourceError(f"{name}, line {stream.line}: is not JSON: ',' or ']' expected in its array")
            stream.skip()
            stream.next()
            if after == "]":
                break
    if stream.next():
        raise SourceError(f"{name}, line {stream.line}: extra data after its array; rows are JSON objects")


class _Stream:
    """Reads documents one by one.

    Attributes:
        line: the line of the next character.
    """

    def __init__(self, read: Callable[[int], str], name: str) -> None:
        self.line: int = 1
        self._read = read
        self._name = name
        self._text = ""
        self._at = 0

    def next(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            self._go(_after_space(self._text, self._at))
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Skip the next character."""
        self._go(self._at + 1)

    def document(self) -> tuple[int, Any, str]:
        """Read the document that begins with the next character; return its line, its value and its text."""
        while True:
            try:
                value, end = _decoded(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._text) - self._at <= LONGEST and self._more():
                    continue
                raise SourceError(f"{self._name}, line {self._line_of(error)}: {self._problem(error)}") from None
            # A number may continue beyond the text read so far.
            if end == len(self._text) and not isinstance(value, dict | list | str) and self._more():
                continue
            line, text = self.line, self._text[self._at : end]
            self._go(end)
            return line, value, text

    def _line_of(self, error: Exception) -> int:
        is_long = len(self._text) - self._at > LONGEST
        if is_long or not isinstance(error, json.JSONDecodeError):
            return self.line
        return self.line + self._text.count("\n", self._at, error.pos)

    def _problem(self, error: Exception) -> str:
        if len(self._text) - self._at > LONGEST:
            return f"the document that begins here {TOO_LONG}, or is not closed"
        return f"is not JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else _TOO_DEEP

    def _more(self) -> bool:
        block = self._read(max(_BLOCK, len(self._text) - self._at))
        if block:
            self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def _go(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def is_deep(text: str) -> bool:
    """Whether a document is nested deeper than any row; checked before it could exhaust the stack."""
    if text.count("{") + text.count("[") <= _DEEPEST:
        return False
    depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            if depth > _DEEPEST:
                return True
        elif character in "]}":
            depth -= 1
    return False
