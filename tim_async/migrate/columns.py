"""Which column, or which path into a JSON document, holds which field; and how ids are made of what is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from .rows import Kind

_MOST_SHOWN = 12


class Columns:
    """Finds a kind's fields in a record.

    Args:
        kind: whose fields.
        paths: column or dotted path by field, where it is not the field's own name.
        templates: how ids are made, by field.

    Raises:
        ValueError: an unknown field, an empty path, or a template that cannot be right.
    """

    def __init__(self, kind: Kind, paths: Mapping[str, str], templates: Mapping[str, str]) -> None:
        self._kind = kind
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
        self.paths = dict(paths)
        self.templates = dict(templates)
        self._source = {name: paths.get(name, name) for name in names}
        self._parts = {name: _parts(name, template) for name, template in templates.items()}
        # An id that is made of other columns alone needs none of its own.
        made = {name for name, parts in self._parts.items() if all(part != "" for _, part in parts)}
        self._made = made
        self._required = [column.name for column in kind.columns if column.required and column.name not in made]
        # What templates need besides the fields themselves.
        self._others = {part for parts in self._parts.values() for _, part in parts if part} - set(names)

    def problem_with(self, header: list[str]) -> str:
        """What keeps a header from being this kind's, as the end of a sentence; "" when nothing does."""
        wanted = [self._source[name] for name in self._required] + sorted(self._others)
        missing = [column for column in wanted if column not in header]
        if missing:
            there = ", ".join(map(repr, header[:_MOST_SHOWN])) + (", …" if len(header) > _MOST_SHOWN else "")
            hints = [f"--map {name}=NAME" for name in self._required if self._source[name] in missing]
            hint = f"; {' '.join(hints)} says what it is called" if hints else ""
            return f"has no column {', '.join(missing)}; its header is {there}{hint}"
        twice = [column for column in wanted if header.count(column) > 1]
        return f"has two columns {twice[0]}" if twice else ""

    def of_fields(self, header: list[str]) -> Callable[[list[str]], dict[str, Any]]:
        """What finds the fields in a record under this header."""
        places = {name: header.index(path) for name, path in self._source.items() if path in header}
        places |= {name: header.index(name) for name in self._others}
        pairs = tuple(places.items())
        return lambda fields: {name: fields[place] for name, place in pairs}

    def of_document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a JSON object; those that are not there are left out."""
        found = {}
        for name, path in self._source.items():
            value = document.get(path, _ABSENT)
            if value is _ABSENT and "." in path:
                value = _follow(document, path)
            if value is not _ABSENT:
                found[name] = value
        for name in self._others:
            value = _follow(document, name)
            if value is not _ABSENT:
                found[name] = value
        return found

    def formatted(self, found: dict[str, Any]) -> dict[str, Any]:
        """The fields with their templates applied; a template that lacks a value gives an empty id."""
        if not self._parts:
            return found
        made = dict(found)
        for name, parts in self._parts.items():
            if name in self._made or found.get(name) not in (None, ""):
                made[name] = _made_of(parts, {**found, "": found.get(name)})
        return made


_ABSENT: Any = object()


def _made_of(parts: list[tuple[str, str | None]], values: Mapping[str, Any]) -> Any:
    """A template filled in; "" when it needs a value that is not there, and a value that is no id as it is."""
    texts = []
    for text, part in parts:
        texts.append(text)
        if part is not None:
            value = values.get(part)
            if value is None or value == "":
                return ""
            if isinstance(value, bool) or not isinstance(value, str | int):
                return value
            texts.append(str(value))
    return "".join(texts)


def _follow(document: Any, path: str) -> Any:
    """The value at a dotted path, through objects and, by number, through arrays."""
    for step in path.split("."):
        if isinstance(document, Mapping) and step in document:
            document = document[step]
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return _ABSENT
    return document


def _parts(field: str, template: str) -> list[tuple[str, str | None]]:
    """A template as pairs of literal text and the column that follows it; "" is the id's own.

    Raises:
        ValueError: not a template, or one that would give every row the same id.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template of {field} cannot be read: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError(f"the template of {field} may hold {{}} and {{column}}, and no formats")
    parts = [(text, "" if name == field else name) for text, name, _, _ in parsed]
    if all(name is None for _, name in parts):
        raise ValueError(f"the template of {field} needs a {{}} for the id, such as 'room_{{}}'")
    return parts
