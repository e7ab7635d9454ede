"""UserSig, version 2.0: the credential every call carries in its query.

https://www.tencentcloud.com/document/product/1047/34385

Signing and verifying are pure functions: the time is an argument.  A UserSig is not a JWT, but it is signed by
the same HMAC-SHA256, and PyJWT's `HMACAlgorithm` brings the care that belongs around one: keys that are really
PEM, SSH or JWK text are refused, and a short key is recognised.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import re
import string
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from ._secret import Secret

if TYPE_CHECKING:
    from jwt.algorithms import HMACAlgorithm

DAY = 86_400
DEFAULT_EXPIRE = 180 * DAY
"""Seconds a UserSig is valid unless said otherwise: what the vendor's own libraries choose."""

_TO_URL = str.maketrans("+/=", "*-_")
_FROM_URL = str.maketrans("*-_", "+/=")
_MAX_INFLATED = 64 * 1024
_MAX_REDACTED = 4096
"""Characters that are kept of a text with a signature in it."""
_PART = 12
"""Characters of a signature that are too many to occur by chance."""
_LONG = re.compile("[A-Za-z0-9*_-]{20}")
"""As long as a part of a signature must be to be of any use; hardly a word of an answer is."""
_ALPHABET = frozenset(string.ascii_letters + string.digits + "*_-")
# An answer, told apart by what a signature may be in: its characters, and escapes.  Far quicker than a pattern.
_SHAPE = bytes(120 if chr(byte) in _ALPHABET else 37 if byte in b"%\\" else 0 for byte in range(256))  # x, %, NUL
_SUSPICIOUS = b"x" * 20


@dataclass(frozen=True, slots=True)
class Claims:
    """What a UserSig says.

    Attributes:
        identifier: the account it was made for.
        sdk_app_id: the app it was made for.
        issued_at: when it was made, unix seconds.
        expire: how long it is valid, seconds; the last valid moment is ``issued_at + expire``.
        userbuf: the extra bytes that were signed, if any.
    """

    identifier: str
    sdk_app_id: int
    issued_at: int
    expire: int
    userbuf: bytes | None = None


def sign(
    sdk_app_id: int,
    secret_key: str | Secret,
    identifier: str,
    *,
    issued_at: int,
    expire: int = DEFAULT_EXPIRE,
    userbuf: bytes | None = None,
) -> str:
    """Make a UserSig.

    https://www.tencentcloud.com/document/product/1047/34385

    Args:
        sdk_app_id: the app's SDKAppID.
        secret_key: the app's secret key, as the console shows it.
        identifier: the account to sign for.
        issued_at: unix seconds; the time the signature starts from.
        expire: how long it is valid, seconds.
        userbuf: extra bytes to sign, as rooms of the vendor's call products use.

    Returns:
        The UserSig, safe to stand in a query as it is.

    Raises:
        ValueError: the key is empty, or is a PEM, SSH or JWK key; or the identifier cannot be encoded as UTF-8.
        TypeError: the key is not a str.
    """
    key = Secret.of(secret_key)
    del secret_key  # no frame that can raise holds the key as plain text
    return _pack(Claims(identifier, sdk_app_id, issued_at, expire, userbuf), key)


def _pack(claims: Claims, key: Secret) -> str:
    content = _content(claims)
    document: dict[str, Any] = {
        "TLS.ver": "2.0",
        "TLS.identifier": claims.identifier,
        "TLS.sdkappid": claims.sdk_app_id,
        "TLS.expire": claims.expire,
        "TLS.time": claims.issued_at,
    }
    if claims.userbuf is not None:
        document["TLS.userbuf"] = base64.b64encode(claims.userbuf).decode()
    document["TLS.sig"] = base64.b64encode(_hmac().sign(content, _key_bytes(key))).decode()
    packed = zlib.compress(json.dumps(document, ensure_ascii=False).encode())
    return base64.b64encode(packed).decode().translate(_TO_URL)


def verify(usersig: str, sdk_app_id: int, secret_key: str | Secret, *, now: float) -> Claims:
    """Check a UserSig.

    Args:
        usersig: what `sign`, or any other library, made.
        sdk_app_id: the app it must be for.
        secret_key: that app's secret key.
        now: unix seconds to judge its age by.

    Returns:
        What it says, once it is known to be genuine and in time.

    Raises:
        ValueError: it cannot be read, is another app's, was not signed with this key, or has expired.
    """
    key, text = Secret.of(secret_key), Secret(usersig)
    del secret_key, usersig  # neither may stand in the frame of an error
    found: tuple[Claims, Secret] | None = None
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, zlib.error, RecursionError):
        found = _read(text)
    if found is None:
        raise ValueError("not a UserSig of version 2.0")
    claims, signature = found
    if claims.sdk_app_id != sdk_app_id:
        raise ValueError("the UserSig is for another SDKAppID")
    if not _matches(claims, key, signature):
        raise ValueError("the UserSig was not signed with this key")
    if now > claims.issued_at + claims.expire:
        raise ValueError("the UserSig has expired")
    return claims


def _key_bytes(key: Secret) -> bytes:
    """Return the bytes to sign with: the key's own text, never what its hex digits stand for.

    Raises:
        TypeError: not a str.
        ValueError: empty, or a PEM, SSH or JWK key.
    """
    if not isinstance(key.reveal(), str):
        raise TypeError(f"secret_key must be a str, not {type(key.reveal()).__name__}")
    if not key.reveal():
        raise ValueError("the secret key is empty")
    from jwt.exceptions import InvalidKeyError

    # PyJWT's own error is not chained: the frames it was raised in hold the key.
    with contextlib.suppress(InvalidKeyError, UnicodeEncodeError):
        return _hmac().prepare_key(cast(str, key.reveal()))
    raise ValueError(
        "the secret key looks like a PEM, SSH or JWK key, or is not text; it must be the SDKSecretKey of the console"
    )


def check_key(secret_key: str | Secret) -> None:
    """Refuse a key that can only be a mistake, before it has cost a call.

    Args:
        secret_key: the app's secret key, as the console shows it.

    Raises:
        TypeError: not a str.
        ValueError: empty, with blanks or other characters no key has, too short, or of another kind.
    """
    key = Secret.of(secret_key)
    del secret_key
    if problem := _problem(key):
        raise ValueError(problem)


def _problem(key: Secret) -> str:
    """What is wrong with a key, "" if nothing is."""
    prepared = _key_bytes(key)
    text = str(key.reveal())
    if not (text.isascii() and text.isprintable()) or " " in text:
        return "the secret key holds blanks, line ends or characters that no key has; was it copied whole?"
    if _hmac().check_key_length(prepared) is not None:
        return f"the secret key is too short: {len(prepared)} characters, at least 32 expected; was it copied whole?"
    return ""


class UserSigCache:
    """The client's own UserSig, renewed well before it ends.

    Signing takes microseconds and never waits, so however many callers need a new signature at once, the first
    one makes it and the others find it made.

    Args:
        sdk_app_id: the app's SDKAppID.
        key: the app's secret key, checked by `check_key`.
        identifier: the account to sign for.
        expire: seconds that each signature is valid.
        clock: gives unix seconds.
    """

    __slots__ = (
        "_check_at",
        "_clock",
        "_expire",
        "_identifier",
        "_issued_at",
        "_key",
        "_parts",
        "_sdk_app_id",
        "_shorter",
        "_used",
        "_usersig",
    )

    def __init__(
        self,
        sdk_app_id: int,
        key: Secret,
        identifier: str,
        expire: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sdk_app_id = sdk_app_id
        self._key = key
        self._identifier = identifier
        self._expire = expire
        self._clock = clock
        self._usersig = Secret("")
        self._used: tuple[Secret, ...] = ()
        self._parts: frozenset[str] = frozenset()
        self._issued_at = 0
        self._check_at = 0.0
        self._shorter = 0

    def current(self) -> Secret:
        """A UserSig with at least a fifth of its life before it."""
        now = self._clock()
        # A clock set back would keep a signature from the future in use.
        if not self._issued_at <= now < self._check_at:
            self._sign(now)
        return self._usersig

    def refused(self, usersig: Secret) -> None:
        """Have the next call signed with a new signature, unless that happened since ``usersig`` was handed out."""
        if usersig is self._usersig:
            self._check_at = 0.0
            # Within the same second the same claims would give the same text again, so the claims change.
            self._shorter = (self._shorter + 1) % 30

    def scrub(self, answer: bytes) -> bytes:
        """Take every part of the signatures lately used out of an answer.

        A peer that echoes a URL may cut it, so that a part alone can be there, or encode it in its own way.

        Args:
            answer: what the peer sent.

        Returns:
            The very same bytes, unless there is something to take out.
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
        if _LONG.search(plain) is None:
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
        issued_at, expire = int(now), max(1, self._expire - self._shorter)
        self._usersig = Secret(sign(self._sdk_app_id, self._key, self._identifier, issued_at=issued_at, expire=expire))
        self._used = (self._usersig, *self._used[:1])
        self._parts = frozenset(part for signed in self._used for part in _parts(str(signed.reveal())))
        self._issued_at = issued_at
        # Four fifths: the last tenth is never used, and clocks that differ by minutes do no harm.
        self._check_at = issued_at + 0.8 * expire


def _parts(usersig: str) -> set[str]:
    return {usersig[at : at + _PART] for at in range(len(usersig) - _PART + 1)}


@functools.cache
def _hmac() -> HMACAlgorithm:
    # Imported with the first client, not with the package: where `cryptography` is installed, PyJWT loads all of it.
    from jwt.algorithms import HMACAlgorithm

    return HMACAlgorithm(HMACAlgorithm.SHA256)


def _content(claims: Claims) -> bytes:
    lines = [
        f"TLS.identifier:{claims.identifier}",
        f"TLS.sdkappid:{claims.sdk_app_id}",
        f"TLS.time:{claims.issued_at}",
        f"TLS.expire:{claims.expire}",
    ]
    if claims.userbuf is not None:
        lines.append(f"TLS.userbuf:{base64.b64encode(claims.userbuf).decode()}")
    return "".join(line + "\n" for line in lines).encode()


def _matches(claims: Claims, key: Secret, signature: Secret) -> bool:
    return _hmac().verify(_content(claims), _key_bytes(key), cast(bytes, signature.reveal()))


def _read(usersig: Secret) -> tuple[Claims, Secret]:
    packed = base64.b64decode(cast(str, usersig.reveal()).translate(_FROM_URL), validate=True)
    # A few hundred bytes can unpack to gigabytes; no UserSig is that long.
    document = json.loads(zlib.decompressobj().decompress(packed, _MAX_INFLATED))
    if document["TLS.ver"] != "2.0":
        raise ValueError
    identifier, userbuf = document["TLS.identifier"], document.get("TLS.userbuf")
    app, issued_at, expire = (document[f"TLS.{name}"] for name in ("sdkappid", "time", "expire"))
    if not isinstance(identifier, str) or any(type(number) is not int for number in (app, issued_at, expire)):
        raise ValueError
    extra = None if userbuf is None else base64.b64decode(userbuf, validate=True)
    return Claims(identifier, app, issued_at, expire, extra), Secret(
        base64.b64decode(document["TLS.sig"], validate=True)
    )
