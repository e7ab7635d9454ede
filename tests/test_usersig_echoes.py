"""A UserSig that an answer echoes is taken out of it, whole, cut or encoded; all other text stays as it is."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tim_async._secret import Secret
from tim_async._usersigs import UserSigCache

from .stand_in import APP, KEY


@pytest.fixture
def cache() -> UserSigCache:
    return UserSigCache(APP, Secret(KEY), "administrator", 86_400, lambda: 1_700_000_000.0)


@pytest.fixture
def usersig(cache: UserSigCache) -> str:
    return str(cache.current().reveal())


def texts(usersig: str) -> list[tuple[str, str]]:
    """Each with what is left of it."""
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


def test_it_is_taken_out_of_json(cache: UserSigCache, usersig: str) -> None:
    """Of keys, values and lists."""
    for echo, left in texts(usersig):
        answer = json.dumps({"ErrorInfo": echo, "List": [echo, 7], echo: None}).encode()
        assert json.loads(cache.scrub(answer)) == {"ErrorInfo": left, "List": [left, 7], left: None}


def test_it_is_taken_out_of_what_is_no_json(cache: UserSigCache, usersig: str) -> None:
    for echo, left in texts(usersig):
        assert cache.scrub(f"<html>{echo}</html>".encode()).decode() == f"<html>{left}</html>"


def test_it_is_taken_out_of_what_is_no_text(cache: UserSigCache, usersig: str) -> None:
    """A gateway's page may be in any encoding."""
    assert cache.scrub(b"<p>\xe9 " + usersig.encode()).decode() == "<p>\ufffd …"


def test_the_one_before_is_taken_out_too(cache: UserSigCache, usersig: str) -> None:
    """A call that is still under way was signed with it."""
    cache.refused(cache.current())
    assert str(cache.current().reveal()) != usersig
    assert cache.scrub(f"<p>{usersig}".encode()).decode() == "<p>…"


@pytest.mark.parametrize("text", ["", "100 % sure", "x" * 200, "eJ" * 100, "%41" * 60, "a%20b" * 40])
def test_nothing_else_changes(cache: UserSigCache, usersig: str, text: str) -> None:
    """Nor how it is written."""
    for answer in (json.dumps({"Text": text}).encode(), f'{{"Text":"{text}"}}\n'.encode(), text.encode()):
        assert cache.scrub(answer) == answer


@pytest.mark.parametrize("end", [1, 3, 11])
def test_an_end_of_a_few_characters_is_no_echo(cache: UserSigCache, usersig: str, end: int) -> None:
    """Any other text can end like a UserSig."""
    answer = json.dumps("x" * 30 + usersig[-end:]).encode()
    assert cache.scrub(answer) == answer
