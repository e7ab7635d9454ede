"""UserSig, version 2.0: the credential in the query of each call.

https://www.tencentcloud.com/document/product/1047/34385

Signing and verifying are pure functions: the time is an argument.  A UserSig is not a JWT, but it is signed with
the same HMAC-SHA256, and PyJWT's `HMACAlgorithm` also checks the key: it refuses PEM, SSH and JWK text, and detects
a key that is too short.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ._secret import Secret

if TYPE_CHECKING:
    from jwt.algorithms import HMACAlgorithm

DAY = 86_400
DEFAULT_EXPIRE = 180 * DAY
"""Default validity of a UserSig, seconds: that of the vendor's own libraries."""

_TO_URL = str.maketrans("+/=", "*-_")
_FROM_URL = str.maketrans("*-_", "+/=")
_MAX_INFLATED = 64 * 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """The content of a UserSig.

    Attributes:
        identifier: the account that it is for.
        sdk_app_id: the SDKAppID of the app that it is for.
        issued_at: the time of signing, unix seconds.
        expire: seconds for which it is valid; the last valid moment is ``issued_at + expire``.
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
    """Sign a UserSig.

    https://www.tencentcloud.com/document/product/1047/34385

    Args:
        sdk_app_id: the app's SDKAppID.
        secret_key: the app's secret key, as shown in the console.
        identifier: the account to sign for.
        issued_at: the start of its validity, unix seconds.
        expire: seconds for which it is valid.
        userbuf: extra bytes to sign, as used for rooms of the vendor's call products.

    Returns:
        The UserSig, which needs no escaping in a URL's query.

    Raises:
        ValueError: the key is empty, or is a PEM, SSH or JWK key; or the identifier cannot be encoded as UTF-8.
        TypeError: the key is not a str.
    """
    key = Secret.of(secret_key)
    del secret_key  # no frame that can raise holds the key as plain text
    content = _content(Claims(identifier, sdk_app_id, issued_at, expire, userbuf))
    document: dict[str, Any] = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdk_app_id,
        "TLS.expire": expire,
        "TLS.time": issued_at,
    }
    if userbuf is not None:
        document["TLS.userbuf"] = base64.b64encode(userbuf).decode()
    document["TLS.sig"] = base64.b64encode(_hmac().sign(content, _key_bytes(key))).decode()
    packed = zlib.compress(json.dumps(document, ensure_ascii=False).encode())
    return base64.b64encode(packed).decode().translate(_TO_URL)


def verify(usersig: str, sdk_app_id: int, secret_key: str | Secret, *, now: float) -> Claims:
    """Verify a UserSig.

    Args:
        usersig: a UserSig of `sign` or any other library.
        sdk_app_id: the SDKAppID of the app that it must be for.
        secret_key: the secret key of that app.
        now: the current time, unix seconds.

    Returns:
        The content of a UserSig that is genuine and has not expired.

    Raises:
        ValueError: it cannot be read, is another app's, was not signed with this key, or has expired.
    """
    key, text = Secret.of(secret_key), Secret(usersig)
    del secret_key, usersig  # no frame that can raise holds either as plain text
    found: tuple[Claims, Secret] | None = None
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, zlib.error, RecursionError):
        found = _read(text)
    if found is None:
        raise ValueError("not a UserSig of version 2.0")
    claims, signature = found
    if claims.sdk_app_id != sdk_app_id:
        raise ValueError("the UserSig is for another SDKAppID")
    if not _hmac().verify(_content(claims), _key_bytes(key), cast(bytes, signature.reveal())):
        raise ValueError("the UserSig was not signed with this key")
    if now > claims.issued_at + claims.expire:
        raise ValueError("the UserSig has expired")
    return claims


def _key_bytes(key: Secret) -> bytes:
    """Return the bytes to sign with: the key's text itself, never its decoded hex digits.

    Raises:
        TypeError: not a str.
        ValueError: empty, or a PEM, SSH or JWK key.
    """
    if not isinstance(key.reveal(), str):
        raise TypeError(f"secret_key must be a str, not {type(key.reveal()).__name__}")
    if not key.reveal():
        raise ValueError("the secret key is empty")
    from jwt.exceptions import InvalidKeyError

    # PyJWT's own error is not chained: the frames of its traceback hold the key.
    with contextlib.suppress(InvalidKeyError, UnicodeEncodeError):
        return _hmac().prepare_key(cast(str, key.reveal()))
    raise ValueError(
        "the secret key looks like a PEM, SSH or JWK key, or is not text; it must be the SDKSecretKey of the console"
    )


def check_key(secret_key: str | Secret) -> None:
    """Raise an error for a key that cannot be right, before a call is made with it.

    Args:
        secret_key: the app's secret key, as shown in the console.

    Raises:
        TypeError: not a str.
        ValueError: empty, with quotation marks, blanks or other characters that no key has, too short, or of another
            kind.
    """
    key = Secret.of(secret_key)
    del secret_key
    if problem := _problem(key):
        raise ValueError(problem)


def _problem(key: Secret) -> str:
    """Return the problem of a key; "" if there is none."""
    prepared = _key_bytes(key)
    text = str(key.reveal())
    if not (text.isascii() and text.isprintable()) or any(sign in text for sign in " '\"`"):
        return (
            "the secret key holds quotation marks, blanks, line ends or other characters that no key has;"
            " was it copied whole?"
        )
    if _hmac().check_key_length(prepared) is not None:
        return f"the secret key is too short: {len(prepared)} characters, at least 32 expected; was it copied whole?"
    return ""


@functools.cache
def _hmac() -> HMACAlgorithm:
    # Imported with the first client, not with the package: PyJWT loads all of `cryptography` if it is installed.
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
