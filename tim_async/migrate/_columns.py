"""Which column, or which path into a JSON document, holds which field; and how ids are made of what is there."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from ._rows import UNTIL_NOW, BadField, Column, Kind, shown

_MOST_SHOWN = 12
_NOTHING = (None, "")
_UNSEEN = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
"""Byte-order marks and other characters without width, which files that were joined or copied have in their headers."""
_MOST_AROUND = 16
_LONGEST_NAME = 100
_LIKE = 0.4
"""How much a name has to be like that of a field to be named as what may be meant."""


class _Repeated(str):
    """A text that is no other object; a rejected row can be written with it."""

    __slots__ = ()


REPEATED = _Repeated("two values")
"""Stands for the value of a JSON name that is in its object twice."""


class Columns:
    """Finds a kind's fields in a record.

    Names are compared without case, surrounding blanks and byte-order marks; one that is exactly right goes first.

    Args:
        kind: whose fields.
        paths: column or dotted path by field, where it is not the field's own name.
        templates: how ids are made, by field.
        null: a text that stands for an absent value.
        until_now: whether rows without a time may mark conversations read up to now.

    Raises:
        ValueError: an unknown field, an empty path, or a template that cannot be right.
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
                raise ValueError(f"no field {name!r}; there are {', '.join(names)}")
            if not path:
                raise ValueError(f"{name} needs the name of a column")
        for name in templates:
            if name not in ids:
                raise ValueError(f"{name!r} is no id; there are {', '.join(ids)}")
        self.paths: dict[str, str] = dict(paths)
        self.templates: dict[str, str] = dict(templates)
        self.kind: Kind = kind
        self._null = null
        self._parts = {name: _parts(name, template) for name, template in templates.items()}
        used = {part for parts in self._parts.values() for _, part in parts if part is not None}
        # An id that is made of other columns alone needs none of its own.
        self._made = {name for name, parts in self._parts.items() if all(part != name for _, part in parts)}
        read = [column for column in kind.columns if column.name in used or column.name not in self._made]
        others = sorted(used - set(names))
        self._source = {column.name: paths.get(column.name, column.name) for column in read}
        self._source |= {name: name for name in others}
        # An optional column that was named must be there, too: a slip of the pen is not to pass for its absence.
        self.needed: frozenset[str] = frozenset(others) | {
            column.name
            for column in read
            if column.required or (column.until_now and not until_now) or column.name in used | paths.keys()
        }
        """The fields, and the columns of templates, that a file without them cannot be read for."""

    def of_fields(self, header: Sequence[str]) -> Callable[[list[str]], dict[str, Any]]:
        """What finds the fields in a record under this header.

        Raises:
            ValueError: the header is not this kind's; the message is the end of a sentence.
        """
        found = {name: _find(header, path) for name, path in self._source.items()}
        if missing := self.needed - {name for name, columns in found.items() if columns}:
            raise ValueError(f"has no column {self.missing(missing, header)}")
        for columns in found.values():
            if len(columns) > 1:
                raise ValueError(f"has two columns {' and '.join(dict.fromkeys(columns))}")
        places = [(name, header.index(columns[0])) for name, columns in found.items() if columns]
        null = self._null
        if null is None:
            return lambda fields: {name: fields[place] for name, place in places}
        return lambda fields: {name: None if fields[place] == null else fields[place] for name, place in places}

    def fit(self, header: Sequence[str]) -> bool:
        """Whether a header has all that is needed."""
        return all(_find(header, self._source[name]) for name in self.needed)

    def of_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """The fields of a JSON object; those that are not there are left out.

        Raises:
            BadField: the object has two names for one of them, which are equal or differ in case only.
        """
        found = {}
        for name, path in self._source.items():
            try:
                value = _once(document[path], path) if path in document else _follow(document, path)
            except ValueError as error:
                raise BadField(name, str(error)) from None
            if value is not _ABSENT:
                found[name] = None if value == self._null else value
        return found

    def missing(self, fields: Iterable[str], names: Sequence[str]) -> str:
        """What a file lacks, what it has, and what may be meant, as the end of a sentence.

        Args:
            fields: the fields and columns that it lacks.
            names: the columns or paths that it has.
        """
        lacking = [name for name in self._source if name in fields]
        there = ", ".join(map(shown, names[:_MOST_SHOWN])) + (", …" if len(names) > _MOST_SHOWN else "") or "none"
        said = f"{', '.join(self._source[name] for name in lacking)}; there are {there}"
        columns = [column for column in self.kind.columns if column.name in lacking]
        taken = {name for path in self._source.values() for name in _find(names, path)}
        left = [name for name in names if name.strip() and name not in taken]
        for column in columns:
            guess = _likely(column, left)
            said += f"; --map {column.name}={guess} may be meant" if guess else f"; --map {column.name}=NAME names it"
            left = [name for name in left if name != guess]
        if any(column.until_now and column.name not in self.paths for column in columns):
            said += f"; {UNTIL_NOW}"
        return said

    def format(self, found: dict[str, Any]) -> None:
        """Make the ids that have templates, and put them among the fields.

        Raises:
            BadField: a template needs a value that is not there; its id is empty then.
        """
        made: dict[str, Any] = {}
        problem: BadField | None = None
        for name, parts in self._parts.items():
            if name not in self._made and found.get(name) in _NOTHING:
                continue
            lacking = [part for _, part in parts if part is not None and found.get(part) in _NOTHING]
            made[name] = "" if lacking else _made_of(parts, found)
            if lacking and problem is None:
                how = "empty" if lacking[0] in found else "missing"
                problem = BadField(name, f"needs {lacking[0]}, which is {how}")
        found.update(made)
        if problem is not None:
            raise problem


def paths_in(document: dict[str, Any]) -> Iterator[str]:
    """The paths in a JSON object, two steps deep, as far as they lead to something that can be a field."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from (f"{name}.{step}" for step, part in value.items() if not isinstance(part, dict | list))
        elif not isinstance(value, list):
            yield name


def list_in(document: dict[str, Any]) -> str:
    """The name of the one list of objects in a JSON object; "" when there is none, or more."""
    names = [
        name
        for name, value in document.items()
        if isinstance(value, list) and value and all(isinstance(part, dict) for part in value)
    ]
    return names[0] if len(names) == 1 else ""


_ABSENT: Any = object()


@functools.lru_cache(4096)
def _plain(name: str) -> str:
    """A name without what is not compared."""
    return name.strip().strip(_UNSEEN).strip().casefold()


def _find(names: Iterable[str], wanted: str) -> list[str]:
    """Those of the names that are meant by one: more than one where that is not clear."""
    exact = [name for name in names if name == wanted]
    longest = len(wanted) + _MOST_AROUND
    return exact or [name for name in names if len(name) <= longest and _plain(name) == _plain(wanted)]


def _likely(column: Column, names: Iterable[str]) -> str:
    """The one of the names that most likely is a field's; "" for none."""
    likeness = {name: _likeness(column, name) for name in names}
    best = max(likeness, key=likeness.__getitem__, default="")
    return best if likeness.get(best, 0) >= _LIKE else ""


def _likeness(column: Column, name: str) -> float:
    parts = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name[:_LONGEST_NAME]).casefold())
    # Not the "read" of "unread", nor the "to" of "total".
    words = sum(
        word == part or (len(word) > len("to") and word in part and f"un{word}" not in part)
        for word in column.words
        for part in parts
    )
    alike = difflib.SequenceMatcher(None, column.name.casefold(), "".join(parts)).ratio()
    return float(alike / 2 + min(words, 2) * 0.4)


def _made_of(parts: list[tuple[str, str | None]], values: Mapping[str, Any]) -> Any:
    """A template filled in; or the first value that would be no id by itself, for whoever checks the id to refuse."""
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
    """The value at a dotted path, through objects and, by number, through arrays.

    Raises:
        ValueError: an object has two names for a step, which are equal or differ in case only.
    """
    steps = [path] if isinstance(document, dict) and _find(document, path) else path.split(".")
    for step in steps:
        if isinstance(document, dict) and (names := _find(document, step)):
            if len(names) > 1:
                raise ValueError(f"is there twice, as {' and '.join(map(shown, names))}")
            document = _once(document[names[0]], names[0])
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return _ABSENT
    return document


def _once(value: Any, name: str) -> Any:
    """The value of a name.

    Raises:
        ValueError: the name is there twice.
    """
    if value is REPEATED:
        raise ValueError(f"is there twice, as {shown(name)}")
    return value


def _parts(field: str, template: str) -> list[tuple[str, str | None]]:
    """A template as pairs of literal text and the column that follows it; ``{}`` is that of the id itself.

    Raises:
        ValueError: not a template, or one that would give every row the same id.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template of {field} cannot be read: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError(f"the template of {field} may hold {{}} and {{column}}, and no formats")
    parts = [(text, field if name == "" else name) for text, name, _, _ in parsed]
    if all(name is None for _, name in parts):
        raise ValueError(f"the template of {field} needs a {{}} for the id, such as 'room_{{}}'")
    return parts
