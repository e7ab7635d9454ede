"""The emulator's own verification of a UserSig, version 2.0.

https://www.tencentcloud.com/document/product/1047/34385

It deliberately shares no code with the client, so that signer and verifier can disagree.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any

from tim_async.emulator._answers import Refusal

_FROM_QUERY = str.maketrans("*-_", "+/=")
_MAX_SIZE = 64 * 1024


def valid_until(usersig: str, identifier: str, sdk_app_id: int, secret_key: str) -> int:
    """Verify a UserSig, except for its expiry.

    Args:
        usersig: the UserSig, as in the query.
        identifier: the caller, to which it must belong.
        sdk_app_id: the app to which it must belong.
        secret_key: the app's secret key; its text is the HMAC key.

    Returns:
        The last second in which it is valid, unix seconds.

    Raises:
        Refusal: 70002, 70003, 70009, 70013 or 70014.
    """
    if not usersig:
        raise Refusal(70002, "UserSig is empty")
    try:
        claims = _unpack(usersig)
        content = _content(claims)
        signature = claims["TLS.sig"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error):
        raise Refusal(70003, "UserSig cannot be decoded") from None
    if claims["TLS.sdkappid"] != sdk_app_id:
        raise Refusal(70014, "UserSig is for another SDKAppID")
    if claims["TLS.identifier"] != identifier:
        raise Refusal(70013, "UserSig is for another identifier")
    expected = base64.b64encode(hmac.new(secret_key.encode(), content, hashlib.sha256).digest())
    if not hmac.compare_digest(signature, expected):
        raise Refusal(70009, "UserSig was made with another key")
    return int(claims["TLS.time"]) + int(claims["TLS.expire"])


def _unpack(usersig: str) -> dict[str, Any]:
    packed = base64.b64decode(usersig.translate(_FROM_QUERY), validate=True)
    # Bounded, because a few hundred bytes can inflate to gigabytes.
    claims = json.loads(zlib.decompressobj().decompress(packed, _MAX_SIZE))
    if claims["TLS.ver"] != "2.0" or not isinstance(claims["TLS.identifier"], str):
        raise ValueError
    if any(type(claims[name]) is not int for name in ("TLS.sdkappid", "TLS.time", "TLS.expire")):
        raise ValueError
    return dict(claims)


def _content(claims: dict[str, Any]) -> bytes:
    names = ["TLS.identifier", "TLS.sdkappid", "TLS.time", "TLS.expire"]
    if "TLS.userbuf" in claims:
        names.append("TLS.userbuf")
    return "".join(f"{name}:{claims[name]}\n" for name in names).encode()
