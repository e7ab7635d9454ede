"""The columns and JSON paths of fields, and templates of ids."""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from ._rows import UNTIL_NOW, BadField, Column, Kind, shown

FieldReader = Callable[[list[str]], dict[str, Any]]
"""Returns the fields of a row, by name, given those of a record; raises `BadField` for a wrong number of the latter."""

_MAX_LISTED = 12
_EMPTY = (None, "")
_ZERO_WIDTH = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
"""Byte-order marks and other zero-width characters, which the headers of joined or copied files have."""
_MAX_PADDING = 16
"""The maximum number of ignored characters in a name."""
_MAX_COMPARED = 100
"""Characters of a name that are compared with a field."""
_MIN_SIMILARITY = 0.4
"""The minimum similarity to a field of a column that an error suggests for it."""


class _Repeated(str):
    """A string with an identity of its own, so that JSON can hold it in a rejected row."""

    __slots__ = ()


REPEATED = _Repeated("two values")
"""The value of a JSON name that its object has twice."""


class Columns:
    """The columns or paths of a kind's fields.

    Names are compared without case, surrounding blanks and byte-order marks; an exact match takes precedence.

    Args:
        kind: the kind of the rows.
        paths: column or dotted path by field, where it is not the field's own name.
        templates: templates of ids, by field.
        null: a text that stands for an absent value.
        until_now: whether rows without a time may mark conversations read up to now.

    Raises:
        ValueError: an unknown field, an empty path, or an invalid template.
    """

    def __init__(
        self,
        kind: Kind,
        paths: Mapping[str, str],
        templates: Mapping[str, str],
        null: str | None = None,
        *,
        until_now: bool = False,
    ) -> None:
        names = [column.name for column in kind.columns]
        ids = [column.name for column in kind.columns if column.is_id]
        for name, path in paths.items():
            if name not in names:
                raise ValueError(f"unknown field {name!r}; the fields are {', '.join(names)}")
            if not path:
                raise ValueError(f"{name} needs the name of a column")
        for name in templates:
            if name not in ids:
                raise ValueError(f"{name!r} is not an id; the ids are {', '.join(ids)}")
        self.paths: dict[str, str] = dict(paths)
        self.templates: dict[str, str] = dict(templates)
        self.kind: Kind = kind
        self._null = null
        self._parts = {name: _parsed(name, template) for name, template in templates.items()}
        used = {part for parts in self._parts.values() for _, part in parts if part is not None}
        # An id that is composed of other columns alone needs no column of its own.
        self._composed = {name for name, parts in self._parts.items() if all(part != name for _, part in parts)}
        read = [column for column in kind.columns if column.name in used or column.name not in self._composed]
        others = sorted(used - set(names))
        self._path_of = {column.name: paths.get(column.name, column.name) for column in read}
        self._path_of |= {name: name for name in others}
        # An optional column that is named must be there, too: a misspelt one must not pass for an absent one.
        self.needed: frozenset[str] = frozenset(others) | {
            column.name
            for column in read
            if column.required or (column.until_now and not until_now) or column.name in used | paths.keys()
        }
        """The fields and columns of templates that a file must have."""

    def field_reader(self, header: Sequence[str]) -> FieldReader:
        """Return a function that finds the fields in a record under this header.

        Raises:
            ValueError: the header lacks a column, or has it twice; the message continues a sentence.
        """
        found = {name: _matches(header, path) for name, path in self._path_of.items()}
        if missing := self.needed - {name for name, columns in found.items() if columns}:
            raise ValueError(f"has no column {self.missing(missing, header)}")
        for columns in found.values():
            if len(columns) > 1:
                raise ValueError(f"has two columns {' and '.join(dict.fromkeys(columns))}")
        places = [(name, header.index(columns[0])) for name, columns in found.items() if columns]
        width, null = len(header), self._null

        def read(fields: list[str]) -> dict[str, Any]:
            if len(fields) != width:
                many = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
                raise BadField("", f"{many} where the header has {width}")
            return {name: None if fields[place] == null else fields[place] for name, place in places}

        return read

    def fit(self, header: Sequence[str]) -> bool:
        """Whether a header has all required columns."""
        return all(_matches(header, self._path_of[name]) for name in self.needed)

    def read_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that a JSON object has.

        Raises:
            BadField: the object has two names for a field, which are equal or differ in case only.
        """
        found = {}
        for name, path in self._path_of.items():
            try:
                value = _follow(document, path)
            except ValueError as error:
                raise BadField(name, str(error)) from None
            if value is not _ABSENT:
                found[name] = None if value == self._null else value
        return found

    def missing(self, fields: Iterable[str], names: Sequence[str]) -> str:
        """Describe missing columns, those found, and likely candidates, to continue a sentence.

        Args:
            fields: the fields and columns that a file lacks.
            names: the columns or paths that it has.
        """
        lacking = [name for name in self._path_of if name in fields]
        text = f"{', '.join(self._path_of[name] for name in lacking)}; found {listed(names) or 'none'}"
        columns = [column for column in self.kind.columns if column.name in lacking]
        taken = {name for path in self._path_of.values() for name in _matches(names, path)}
        left = [name for name in names if name.strip() and name.isprintable() and name not in taken]
        for column in columns:
            guess = _best_guess(column, left)
            named = shlex.quote(f"{column.name}={guess}")
            text += f"; try --map {named}" if guess else f"; name it with --map {column.name}=NAME"
            left = [name for name in left if name != guess]
        if any(column.until_now and column.name not in self.paths for column in columns):
            text += f"; {UNTIL_NOW}"
        return text

    def apply_templates(self, found: dict[str, Any]) -> None:
        """Replace the ids that have templates.

        Raises:
            BadField: a template needs a value that is absent; its id is then empty.
        """
        made: dict[str, Any] = {}
        problem: BadField | None = None
        for name, parts in self._parts.items():
            if name not in self._composed and found.get(name) in _EMPTY:
                continue
            lacking = [part for _, part in parts if part is not None and found.get(part) in _EMPTY]
            made[name] = "" if lacking else _filled(parts, found)
            if lacking and problem is None:
                state = "empty" if lacking[0] in found else "missing"
                problem = BadField(name, f"needs {lacking[0]}, which is {state}")
        found.update(made)
        if problem is not None:
            raise problem


def listed(names: Sequence[str]) -> str:
    """Return names as an error lists them: each quoted, the first 12 of many."""
    return ", ".join(map(shown, names[:_MAX_LISTED])) + (", …" if len(names) > _MAX_LISTED else "")


def paths_in(document: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of possible fields in a JSON object, two levels deep."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from (f"{name}.{step}" for step, part in value.items() if not isinstance(part, dict | list))
        elif not isinstance(value, list):
            yield name


def list_in(document: dict[str, Any]) -> str:
    """Return the name of the only list of objects in a JSON object; "" when there is none, or several."""
    names = [
        name
        for name, value in document.items()
        if isinstance(value, list) and value and all(isinstance(part, dict) for part in value)
    ]
    return names[0] if len(names) == 1 else ""


_ABSENT: Any = object()


@functools.lru_cache(4096)
def _normalized(name: str) -> str:
    """Return the part of a name that is compared."""
    return name.strip().strip(_ZERO_WIDTH).strip().casefold()


def _matches(names: Iterable[str], wanted: str) -> list[str]:
    """Return the names that match; more than one when ambiguous."""
    exact = [name for name in names if name == wanted]
    longest = len(wanted) + _MAX_PADDING
    return exact or [name for name in names if len(name) <= longest and _normalized(name) == _normalized(wanted)]


def _best_guess(column: Column, names: Iterable[str]) -> str:
    """Return the name that is most likely the field's; "" for none."""
    similarities = {name: _similarity(column, name) for name in names}
    best = max(similarities, key=similarities.__getitem__, default="")
    return best if similarities.get(best, 0) >= _MIN_SIMILARITY else ""


def _similarity(column: Column, name: str) -> float:
    parts = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name[:_MAX_COMPARED]).casefold())
    # Not the "read" of "unread", nor the "to" of "total".
    words = sum(
        word == part or (len(word) > len("to") and word in part and f"un{word}" not in part)
        for word in column.words
        for part in parts
    )
    alike = difflib.SequenceMatcher(None, column.name.casefold(), "".join(parts)).ratio()
    return float(alike / 2 + min(words, 2) * 0.4)


def _filled(parts: list[tuple[str, str | None]], values: Mapping[str, Any]) -> Any:
    """Fill a template in; return the first value that is itself no valid id instead, so that its check rejects it."""
    texts = []
    for text, part in parts:
        texts.append(text)
        if part is not None:
            value = values[part]
            if isinstance(value, bool) or not isinstance(value, str | int) or str(value) != str(value).strip():
                return value
            texts.append(str(value))
    return "".join(texts)


def _follow(document: Any, path: str) -> Any:
    """Return the value at a dotted path, through objects and, by index, through arrays.

    Raises:
        ValueError: an object has two names for a step, which are equal or differ in case only.
    """
    steps = [path] if isinstance(document, dict) and _matches(document, path) else path.split(".")
    for step in steps:
        if isinstance(document, dict) and (names := _matches(document, step)):
            document = document[names[0]]
            if len(names) > 1 or document is REPEATED:
                raise ValueError(f"is there twice, as {' and '.join(map(shown, names))}")
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return _ABSENT
    return document


def _parsed(field: str, template: str) -> list[tuple[str, str | None]]:
    """Parse a template into pairs of literal text and the column that follows it; ``{}`` is the id's own.

    Raises:
        ValueError: the template is invalid, or would give every row the same id.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template of {field} cannot be parsed: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError(f"the template of {field} may hold {{}} and {{column}}, without formats")
    parts = [(text, field if name == "" else name) for text, name, _, _ in parsed]
    if all(name is None for _, name in parts):
        raise ValueError(f"the template of {field} needs a {{}} for the id, such as 'room_{{}}'")
    return parts
