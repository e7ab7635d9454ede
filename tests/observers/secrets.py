"""Search texts for the secret key, UserSigs, and long parts of either."""

from __future__ import annotations

import re
import zlib
from base64 import b64decode
from time import time
from urllib.parse import unquote

from tests.stand_in import APP, KEY
from tim_async.usersig import sign

from .endings import FILLER

IDENTIFIER = "administrator"
EXPIRE = 86_400
"""Validity of the clients' UserSigs, seconds; the time and the key then determine them."""

_PART = 20
_RUN = re.compile(rf"[A-Za-z0-9*_-]{{{_PART},}}")
_ESCAPED = re.compile(r"\\+u00([0-9a-fA-F]{2})|\\+x([0-9a-fA-F]{2})")
_QUERY = re.compile(r"usersig(?:=|%3D)[A-Za-z0-9*_%-]{4}", re.IGNORECASE)
_FROM_URL = str.maketrans("*-_", "+/=")


class Secrets:
    """The key and every UserSig that a client may have made since this object was created."""

    def __init__(self) -> None:
        self._parts = _parts_of(KEY)
        self._learned_until = int(time()) - 1

    def learn(self) -> None:
        """Add the UserSigs that a client may have signed since the last time."""
        until = int(time()) + 1
        for moment in range(self._learned_until, until + 1):
            # A rejected UserSig is replaced by one that is valid for a second less.
            for expire in (EXPIRE, EXPIRE - 1):
                self._parts |= _parts_of(sign(APP, KEY, IDENTIFIER, issued_at=moment, expire=expire))
        self._learned_until = until

    def learn_one(self, usersig: str) -> None:
        """Add a UserSig."""
        self._parts |= _parts_of(usersig)

    def knows(self, usersig: str) -> bool:
        """Return whether this UserSig would be found."""
        return _parts_of(usersig) <= self._parts

    def found_in(self, text: str) -> list[str]:
        """Return the places where a text shows a secret, each with some context."""
        found = []
        plain = {text.replace(FILLER, "")}
        plain |= {unquote(one) for one in plain if "%" in one}
        # Most texts have no escape, and substituting would take most of the time.
        for readable in plain | {_ESCAPED.sub(_unescaped, one) for one in plain if "\\" in one}:
            found += [_around(readable, match) for match in _RUN.finditer(readable) if self._holds(match[0])]
            found += [_around(readable, match) for match in _QUERY.finditer(readable)]
        return found

    def _holds(self, run: str) -> bool:
        if any(run[at : at + _PART] in self._parts for at in range(len(run) - _PART + 1)):
            return True
        return any(_is_usersig(run[match.start() :]) for match in re.finditer("eJ", run))


def _parts_of(secret: str) -> set[str]:
    return {secret[at : at + _PART] for at in range(len(secret) - _PART + 1)}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1] or match[2], 16))


def _around(text: str, match: re.Match[str]) -> str:
    return text[max(0, match.start() - 120) : match.start() + 40]


def _is_usersig(text: str) -> bool:
    """Return whether a text begins with a UserSig of any app, key and time."""
    whole = text[: len(text) // 4 * 4].translate(_FROM_URL)
    try:
        return b"TLS." in zlib.decompressobj().decompress(b64decode(whole, validate=False))
    except (zlib.error, ValueError):
        return False
