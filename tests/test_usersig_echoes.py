"""A UserSig that an answer echoes is removed from it, whole, cut or encoded; other text is unchanged."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tim_async._secret import Secret
from tim_async._usersigs import UserSigCache

from .stand_in import APP, KEY

NOW = 1_700_000_000.0


@pytest.fixture
def cache() -> UserSigCache:
    return UserSigCache(APP, Secret(KEY), "administrator", 86_400)


@pytest.fixture
def usersig(cache: UserSigCache) -> str:
    return str(cache.current(NOW).reveal())


def texts(usersig: str) -> list[tuple[str, str]]:
    """Return texts with a UserSig, each with the text that is left."""
    return [
        (usersig, "…"),
        (f"before {usersig} after", "before … after"),
        (f"{usersig} {usersig}", "… …"),
        (usersig[:60], "…"),
        (usersig[30:90], "…"),
        (f"<{usersig[-70:]}>", "<…>"),
        (f"x{usersig[10:80]}y{usersig[20:90]}z", "x…y…z"),
        (f"a=1&usersig={quote(usersig, safe='')}&b=2", "a=1&usersig=…&b=2"),
        ("".join(f"%{ord(character):02x}" for character in usersig), "…"),
    ]


def test_a_usersig_is_removed_from_json(cache: UserSigCache, usersig: str) -> None:
    """From keys, values and lists."""
    for echo, left in texts(usersig):
        answer = json.dumps({"ErrorInfo": echo, "List": [echo, 7], echo: None}).encode()
        assert json.loads(cache.scrub(answer)) == {"ErrorInfo": left, "List": [left, 7], left: None}


def test_a_usersig_is_removed_from_other_text(cache: UserSigCache, usersig: str) -> None:
    for echo, left in texts(usersig):
        assert cache.scrub(f"<html>{echo}</html>".encode()).decode() == f"<html>{left}</html>"


def test_it_is_taken_out_of_what_is_no_text(cache: UserSigCache, usersig: str) -> None:
    """A gateway's page may be in any encoding."""
    assert cache.scrub(b"<p>\xe9 " + usersig.encode()).decode() == "<p>\ufffd …"


def test_the_previous_usersig_is_removed_too(cache: UserSigCache, usersig: str) -> None:
    """A call in flight may have it."""
    cache.refused(cache.current(NOW))
    assert str(cache.current(NOW).reveal()) != usersig
    assert cache.scrub(f"<p>{usersig}".encode()).decode() == "<p>…"


@pytest.mark.parametrize("text", ["", "100 % sure", "x" * 200, "eJ" * 100, "%41" * 60, "a%20b" * 40])
def test_other_text_is_unchanged(cache: UserSigCache, usersig: str, text: str) -> None:
    """Byte by byte, however it is written."""
    for answer in (json.dumps({"Text": text}).encode(), f'{{"Text":"{text}"}}\n'.encode(), text.encode()):
        assert cache.scrub(answer) == answer


@pytest.mark.parametrize("end", [1, 3, 11])
def test_the_last_few_characters_of_a_usersig_are_kept(cache: UserSigCache, usersig: str, end: int) -> None:
    """Any other text can end in them."""
    answer = json.dumps("x" * 30 + usersig[-end:]).encode()
    assert cache.scrub(answer) == answer
