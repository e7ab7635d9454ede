"""UserSig, version 2.0: the credential every call carries in its query.

https://www.tencentcloud.com/document/product/1047/34385

Signing and verifying are pure functions: the time is an argument.  A UserSig is not a JWT, but it is signed by
the same HMAC-SHA256, and PyJWT's `HMACAlgorithm` brings the care that belongs around one: keys that are really
PEM, SSH or JWK text are refused, and a short key is recognised.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jwt.algorithms import HMACAlgorithm

DAY = 86_400
DEFAULT_EXPIRE = 180 * DAY
"""Seconds a UserSig is valid unless said otherwise: what the vendor's own libraries choose."""

_TO_URL = str.maketrans("+/=", "*-_")
_FROM_URL = str.maketrans("*-_", "+/=")
_MAX_INFLATED = 64 * 1024


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
    secret_key: str,
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
        ValueError: the key is empty, or is really a PEM, SSH or JWK key.
    """
    claims = Claims(identifier, sdk_app_id, issued_at, expire, userbuf)
    document: dict[str, Any] = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdk_app_id,
        "TLS.expire": expire,
        "TLS.time": issued_at,
        "TLS.sig": base64.b64encode(_hmac().sign(_content(claims), prepare_key(secret_key))).decode(),
    }
    if userbuf is not None:
        document["TLS.userbuf"] = base64.b64encode(userbuf).decode()
    packed = zlib.compress(json.dumps(document, ensure_ascii=False).encode())
    return base64.b64encode(packed).decode().translate(_TO_URL)


def verify(usersig: str, sdk_app_id: int, secret_key: str, *, now: float) -> Claims:
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
    try:
        claims, signature = _read(usersig)
    except (ValueError, TypeError, KeyError, zlib.error, binascii.Error, RecursionError):
        raise ValueError("not a UserSig of version 2.0") from None
    if claims.sdk_app_id != sdk_app_id:
        raise ValueError("the UserSig is for another SDKAppID")
    if not _hmac().verify(_content(claims), prepare_key(secret_key), signature):
        raise ValueError("the UserSig was not signed with this key")
    if now > claims.issued_at + claims.expire:
        raise ValueError("the UserSig has expired")
    return claims


def prepare_key(secret_key: str) -> bytes:
    """The bytes to sign with: the key's own text, never what its hex digits stand for.

    Raises:
        TypeError: not a str.
        ValueError: empty, or in the form of a PEM, SSH or JWK key.
    """
    if not isinstance(secret_key, str):
        raise TypeError(f"secret_key must be a str, not {type(secret_key).__name__}")
    if not secret_key:
        raise ValueError("the secret key is empty")
    from jwt.exceptions import InvalidKeyError

    try:
        return _hmac().prepare_key(secret_key)
    except InvalidKeyError:
        raise ValueError(
            "the secret key looks like a PEM, SSH or JWK key; it must be the SDKSecretKey shown in the console"
        ) from None


def check_key(secret_key: str) -> None:
    """Refuse a key that can only be a mistake, before it has cost a call.

    Raises:
        TypeError: not a str.
        ValueError: empty, with blanks or other characters no key has, too short, or of another kind.
    """
    key = prepare_key(secret_key)
    if not (secret_key.isascii() and secret_key.isprintable()) or " " in secret_key:
        raise ValueError("the secret key holds blanks, line ends or characters that no key has; was it copied whole?")
    if _hmac().check_key_length(key) is not None:
        raise ValueError(
            f"the secret key is too short: {len(key)} characters, at least 32 expected; was it copied whole?"
        )


class UserSigCache:
    """The client's own UserSig, renewed well before it ends.

    Signing takes microseconds and never waits, so however many callers need a new signature at once, the first
    one makes it and the others find it made.
    """

    __slots__ = (
        "_check_at",
        "_clock",
        "_expire",
        "_identifier",
        "_issued_at",
        "_key",
        "_sdk_app_id",
        "_shorter",
        "_used",
        "_usersig",
    )

    def __init__(
        self,
        sdk_app_id: int,
        secret_key: str,
        identifier: str,
        expire: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_key(secret_key)
        self._sdk_app_id = sdk_app_id
        self._key = secret_key
        self._identifier = identifier
        self._expire = expire
        self._clock = clock
        self._usersig = ""
        self._used: tuple[bytes, ...] = ()
        self._issued_at = 0
        self._check_at = 0.0
        self._shorter = 0

    def current(self) -> str:
        """A UserSig with at least a fifth of its life before it."""
        now = self._clock()
        # A clock set back would make a signature of the future look young for ever.
        if not self._issued_at <= now < self._check_at:
            self._sign(now)
        return self._usersig

    def refused(self, usersig: str) -> None:
        """Have the next call signed afresh, unless that happened since ``usersig`` was handed out."""
        if usersig == self._usersig:
            self._check_at = 0.0
            # Within the same second the same claims would give the same text again, so the claims change.
            self._shorter = (self._shorter + 1) % 30

    def scrub(self, text: bytes) -> bytes:
        """Take the signatures lately used out of what a peer says, should it echo them; else give ``text`` itself."""
        for usersig in self._used:
            if usersig in text:
                text = text.replace(usersig, "…".encode())
        return text

    def _sign(self, now: float) -> None:
        issued_at, expire = int(now), max(1, self._expire - self._shorter)
        self._usersig = sign(self._sdk_app_id, self._key, self._identifier, issued_at=issued_at, expire=expire)
        self._used = (self._usersig.encode(), *self._used[:1])
        self._issued_at = issued_at
        # Four fifths: the last tenth is never used, and clocks that differ by minutes do no harm.
        self._check_at = issued_at + 0.8 * expire


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


def _read(usersig: str) -> tuple[Claims, bytes]:
    packed = base64.b64decode(usersig.translate(_FROM_URL), validate=True)
    # A few hundred bytes can unpack to gigabytes; no UserSig is that long.
    document = json.loads(zlib.decompressobj().decompress(packed, _MAX_INFLATED))
    if document["TLS.ver"] != "2.0":
        raise ValueError
    identifier, userbuf = document["TLS.identifier"], document.get("TLS.userbuf")
    app, issued_at, expire = (document[f"TLS.{name}"] for name in ("sdkappid", "time", "expire"))
    if not isinstance(identifier, str) or any(type(number) is not int for number in (app, issued_at, expire)):
        raise ValueError
    extra = None if userbuf is None else base64.b64decode(userbuf, validate=True)
    return Claims(identifier, app, issued_at, expire, extra), base64.b64decode(document["TLS.sig"], validate=True)
