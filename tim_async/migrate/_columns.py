"""Which column, or which path into a JSON document, holds which field; and how ids are made of what is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from ._rows import BadField, Kind, shown

_MOST_SHOWN = 12
_NOTHING = (None, "")


class Columns:
    """Finds a kind's fields in a record.

    Args:
        kind: whose fields.
        paths: column or dotted path by field, where it is not the field's own name.
        templates: how ids are made, by field.

    Attributes:
        named: the optional fields that ``paths`` names a column for.

    Raises:
        ValueError: an unknown field, an empty path, or a template that cannot be right.
    """

    def __init__(self, kind: Kind, paths: Mapping[str, str], templates: Mapping[str, str]) -> None:
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
        self._parts = {name: _parts(name, template) for name, template in templates.items()}
        used = {part for parts in self._parts.values() for _, part in parts if part is not None}
        # An id that is made of other columns alone needs none of its own.
        self._made = {name for name, parts in self._parts.items() if all(part != name for _, part in parts)}
        read = [column for column in kind.columns if column.name in used or column.name not in self._made]
        self.named: frozenset[str] = frozenset(
            column.name for column in read if column.name in paths and not column.required
        )
        # Those that must be in a header.  An optional one that was named, too: without its times, conversations would
        # be marked read up to now.
        self._needed = [column.name for column in read if column.required or column.name in used | self.named]
        self._others = sorted(used - set(names))
        self._source = {column.name: paths.get(column.name, column.name) for column in read}
        self._source |= {name: name for name in self._others}

    def problem_with(self, header: list[str]) -> str:
        """What keeps a header from being this kind's, as the end of a sentence; "" when nothing does."""
        missing = [self._source[name] for name in self._needed + self._others if self._source[name] not in header]
        if missing:
            there = ", ".join(map(shown, header[:_MOST_SHOWN])) + (", …" if len(header) > _MOST_SHOWN else "")
            hints = [f"--map {name}=NAME" for name in self._needed if self._source[name] in missing]
            hint = f"; {' '.join(hints)} says what it is called" if hints else ""
            return f"has no column {', '.join(missing)}; its header is {there}{hint}"
        twice = [column for column in self._source.values() if header.count(column) > 1]
        return f"has two columns {twice[0]}" if twice else ""

    def of_fields(self, header: list[str]) -> Callable[[list[str]], dict[str, Any]]:
        """What finds the fields in a record under this header."""
        places = [(name, header.index(path)) for name, path in self._source.items() if path in header]
        return lambda fields: {name: fields[place] for name, place in places}

    def of_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """The fields of a JSON object; those that are not there are left out."""
        found = {}
        for name, path in self._source.items():
            if path in document:
                found[name] = document[path]
            elif "." in path and (value := _follow(document, path)) is not _ABSENT:
                found[name] = value
        return found

    def format(self, found: dict[str, Any]) -> None:
        """Make the ids that have templates, and put them among the fields.

        Raises:
            BadField: a template needs a value that is not there; its id is empty then.
        """
        if not self._parts:
            return
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


_ABSENT: Any = object()


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
    """The value at a dotted path, through objects and, by number, through arrays."""
    for step in path.split("."):
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return _ABSENT
    return document


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
