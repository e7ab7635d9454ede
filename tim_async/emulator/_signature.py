"""The emulator's own check of a UserSig, version 2.0.

https://www.tencentcloud.com/document/product/1047/34385

Deliberately not the client's code: what signs and what checks must be able to disagree.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any

from tim_async.emulator._answers import Refusal

EXPIRED = 70001
MISSING = 70002
UNREADABLE = 70003
WRONG_KEY = 70009
OTHER_IDENTIFIER = 70013
OTHER_APP = 70014

_FROM_QUERY = str.maketrans("*-_", "+/=")
_LONGEST = 64 * 1024
_REMEMBERED = 1024


class UserSigChecker:
    """Says whether a UserSig is this app's, this caller's, genuine and in time.

    A caller sends the same UserSig for hours, so one that proved genuine is remembered; its age is judged each time.
    """

    def __init__(self, sdk_app_id: int, secret_key: str) -> None:
        """Check for one app.

        Args:
        sdk_app_id: the app that every UserSig must be for.
        secret_key: the app's secret key; its own text is the HMAC key.
        """
        self._sdk_app_id = sdk_app_id
        self._key = secret_key.encode()
        self._genuine: dict[tuple[str, str], int] = {}

    def check(self, usersig: str, identifier: str, now: float) -> None:
        """Return if ``identifier`` may use ``usersig`` at ``now``, unix seconds.

        Raises:
            Refusal: 70001, 70002, 70003, 70009, 70013 or 70014.
        """
        last_second = self._genuine.get((usersig, identifier))
        if last_second is None:
            last_second = self._verify(usersig, identifier)
            if len(self._genuine) >= _REMEMBERED:
                self._genuine.clear()
            self._genuine[usersig, identifier] = last_second
        if now > last_second:
            raise Refusal(EXPIRED, "UserSig has expired")

    def _verify(self, usersig: str, identifier: str) -> int:
        if not usersig:
            raise Refusal(MISSING, "UserSig is empty")
        try:
            claims = _unpack(usersig)
            issued, expire = claims["TLS.time"], claims["TLS.expire"]
            content = _content(claims)
            signature = claims["TLS.sig"].encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error):
            raise Refusal(UNREADABLE, "UserSig cannot be read") from None
        if claims["TLS.sdkappid"] != self._sdk_app_id:
            raise Refusal(OTHER_APP, "UserSig is for another SDKAppID")
        if claims["TLS.identifier"] != identifier:
            raise Refusal(OTHER_IDENTIFIER, "UserSig is for another identifier")
        expected = base64.b64encode(hmac.new(self._key, content, hashlib.sha256).digest())
        if not hmac.compare_digest(signature, expected):
            raise Refusal(WRONG_KEY, "UserSig was made with another key")
        return int(issued) + int(expire)


def _unpack(usersig: str) -> dict[str, Any]:
    packed = base64.b64decode(usersig.translate(_FROM_QUERY), validate=True)
    # Bounded, because a few hundred bytes can inflate to gigabytes.
    claims = json.loads(zlib.decompressobj().decompress(packed, _LONGEST))
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
