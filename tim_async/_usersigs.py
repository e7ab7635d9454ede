"""The UserSigs of one client: renewed in time, and removed from answers that echo them."""

from __future__ import annotations

import json
import re
import string
from typing import Any
from urllib.parse import unquote

from ._secret import Secret
from .usersig import sign

_MAX_REDACTED = 4096
"""Maximum characters kept of a text that holds a signature."""
_PART = 12
"""Length of a part of a signature that does not occur by chance, characters."""
_SIGNATURE_LIKE = re.compile("[A-Za-z0-9*_-]{20}")
"""A text long enough to be a useful part of a signature; hardly any word of an answer is."""
_ALPHABET = frozenset(string.ascii_letters + string.digits + "*_-")
# Maps the characters of a signature to x and those of escapes to %: far faster than a regular expression.
_SHAPE = bytes(120 if chr(byte) in _ALPHABET else 37 if byte in b"%\\" else 0 for byte in range(256))  # x, %, NUL
_SUSPICIOUS = b"x" * 20


class UserSigCache:
    """The UserSig of a client, renewed well before it expires.

    Signing takes microseconds and never waits: the first of many callers signs, and the others reuse the signature.

    Args:
        sdk_app_id: the app's SDKAppID.
        key: the app's secret key, checked by `check_key`.
        identifier: the account to sign for.
        expire: seconds for which each signature is valid.
    """

    def __init__(self, sdk_app_id: int, key: Secret, identifier: str, expire: int) -> None:
        self._sdk_app_id = sdk_app_id
        self._key = key
        self._identifier = identifier
        self._expire = expire
        self._usersig = Secret("")
        self._recent: tuple[Secret, ...] = ()
        self._parts: frozenset[str] = frozenset()
        self._issued_at = 0
        self._renew_at = 0.0
        self._shortened = 0

    def current(self, now: float) -> Secret:
        """Return a UserSig that is valid at ``now``, unix seconds, and for at least another fifth of its life."""
        # If the clock was set back, a signature from the future must not stay in use.
        if not self._issued_at <= now < self._renew_at:
            self._sign(now)
        return self._usersig

    def refused(self, usersig: Secret) -> None:
        """Make the next call sign a new UserSig, unless there is already a newer one than ``usersig``."""
        if usersig is self._usersig:
            self._renew_at = 0.0
            # A different validity, since equal claims within one second would give the same text.
            self._shortened = (self._shortened + 1) % 30

    def scrub(self, answer: bytes) -> bytes:
        """Remove every part of the recent UserSigs from an answer.

        A peer that echoes a URL may cut or encode it in any way.

        Args:
            answer: the bytes of the answer.

        Returns:
            The same object if there is nothing to remove.
        """
        shape = answer.translate(_SHAPE)
        if _SUSPICIOUS not in shape and b"%" not in shape:
            return answer
        try:
            document = json.loads(answer)
            clean = self._clean(document)
            return answer if clean == document else json.dumps(clean).encode()
        except (ValueError, RecursionError):
            return self._redacted(answer.decode(errors="replace")).encode()

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redacted(value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {self._redacted(key): self._clean(item) for key, item in value.items()}
        return value

    def _redacted(self, text: str) -> str:
        plain = unquote(text)
        if _SIGNATURE_LIKE.search(plain) is None:
            return text
        plain, known = plain[:_MAX_REDACTED], self._parts
        shown: list[str] = []
        redacted_to = 0
        for at, character in enumerate(plain):
            if plain[at : at + _PART] in known:
                if at >= redacted_to:
                    shown.append("…")
                redacted_to = at + _PART
            elif at >= redacted_to:
                shown.append(character)
        return "".join(shown) if redacted_to else text

    def _sign(self, now: float) -> None:
        issued_at, expire = int(now), max(1, self._expire - self._shortened)
        self._usersig = Secret(sign(self._sdk_app_id, self._key, self._identifier, issued_at=issued_at, expire=expire))
        self._recent = (self._usersig, *self._recent[:1])
        self._parts = frozenset(part for signed in self._recent for part in _parts(str(signed.reveal())))
        self._issued_at = issued_at
        # At four fifths of its life: the last tenth is never used, even if clocks differ by minutes.
        self._renew_at = issued_at + 0.8 * expire


def _parts(usersig: str) -> set[str]:
    return {usersig[at : at + _PART] for at in range(len(usersig) - _PART + 1)}
