"""Escaping of untrusted text for terminals, logs and pages.

Control characters move the cursor, set the title of the window or end the line; bidirectional controls change the
order of the text after them.  Both are shown as escapes.  Joiners stay, since emoji and several scripts need them.
"""

from __future__ import annotations

import json
import re
import unicodedata

_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates, line and paragraph separators."""

# https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_BIDIRECTIONAL = frozenset(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))

_SUSPECTS = re.compile("[^\x20-\x7e\xa0-\u0600]")
"""Matches a superset of the unsafe characters; printable ASCII contains none."""


def is_unsafe(character: str) -> bool:
    """Whether a character is a control character, or changes the direction of text."""
    return character in _BIDIRECTIONAL or unicodedata.category(character) in _CATEGORIES


def plain(text: str) -> str:
    """Return a text with its unsafe characters escaped, e.g. ESC as backslash and ``x1b``; idempotent."""
    return text if text.isprintable() else _SUSPECTS.sub(_escape, text)


def plain_json(document: object, *, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Return a document as JSON, with unsafe characters in its strings as JSON's own escapes.

    Args:
        document: a value that `json.dumps` accepts.
        ensure_ascii: whether to escape everything that is not ASCII.
        indent: spaces per level; None for a single line.
    """
    return _SUSPECTS.sub(_json_escape, json.dumps(document, ensure_ascii=ensure_ascii, indent=indent))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return character.encode("unicode_escape").decode() if is_unsafe(character) else character


def _json_escape(match: re.Match[str]) -> str:
    # All unsafe characters are in the first plane.  json.dumps has escaped line feeds within strings.
    character = match[0]
    return f"\\u{ord(character):04x}" if character != "\n" and is_unsafe(character) else character
