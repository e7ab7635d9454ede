"""Texts and JSON for terminals: unsafe characters are shown as escapes, and all others stay."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async._plaintext import is_unsafe, plain, plain_json

from .hypotheses import at_most

ANY = st.text(st.characters(exclude_categories=()))


def test_every_unsafe_character_is_escaped() -> None:
    """All control, surrogate and bidirectional characters of Unicode, and no others."""
    every = list(map(chr, range(sys.maxunicode + 1)))
    unsafe = [
        character
        for character in every
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
        or character in "\u061c\u200e\u200f"
    ]
    assert list(filter(is_unsafe, every)) == unsafe
    assert [character for character in unsafe if plain(character) == character] == []
    some = "".join(sorted(set(every[::17]).difference(unsafe)))
    assert plain(some) == some


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb\nc\r\u2028", "a\\x1b[2Jb\\nc\\r\\u2028"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("陈 보라 👨‍👩‍👧 é", "陈 보라 👨‍👩‍👧 é"),
        ("می‌خواهم", "می‌خواهم"),
    ],
)
def test_unsafe_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(ANY)
def test_plain_text_stays_the_same(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert not any(map(is_unsafe, plain(text)))


@at_most(40)
@given(st.recursive(ANY | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)))
def test_plain_json_keeps_its_values(document: Any) -> None:
    """It has no unsafe character."""
    text = plain_json(document)
    assert not any(map(is_unsafe, text))
    expected = json.loads(json.dumps(document))  # not the document, since a surrogate pair becomes one character
    assert json.loads(text) == expected
    assert json.loads(plain_json(document, indent=2)) == expected
    assert plain_json(document, ensure_ascii=True).isascii()
