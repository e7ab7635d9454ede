"""The emulator's own check of a UserSig."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tim_async.emulator._answers import Refusal
from tim_async.emulator._signature import UserSigChecker

from .support import NOW, pack, usersig

KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
APP = 1400000000
VECTORS = [
    (APP, KEY, "xiaojun", 15552000, None, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4="),
    (APP, KEY, "xiaojun", 15552000, b"abc", "QjT201xPkXk/aM1e+y0vakZb0K2iPrFue++0s5y6bFM="),
    (APP, KEY, "管理员", 86400, None, "pbrM5gj3jEaLcveZ2CyjpTNJES7Up4k7XBCC+iPigpA="),
    (1, "2", "3", 4, None, "f5gSvBYdWRemW5KQRjxvTzWiOlJwFEuyR7UEE4EjP6o="),
]


def document(vector: tuple[int, str, str, int, bytes | None, str]) -> dict[str, Any]:
    app, _, identifier, expire, userbuf, signature = vector
    claims = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": app,
        "TLS.expire": expire,
        "TLS.time": NOW,
        "TLS.sig": signature,
    }
    if userbuf is not None:
        claims["TLS.userbuf"] = base64.b64encode(userbuf).decode()
    return claims


def refusal(checker: UserSigChecker, sig: str, identifier: str, now: float = NOW) -> int:
    with pytest.raises(Refusal) as caught:
        checker.check(sig, identifier, now)
    return caught.value.code


@pytest.mark.parametrize("vector", VECTORS)
def test_each_published_signature_is_genuine(vector: tuple[int, str, str, int, bytes | None, str]) -> None:
    UserSigChecker(vector[0], vector[1]).check(pack(document(vector)), vector[2], NOW)


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("field", ["TLS.expire", "TLS.time"])
def test_a_changed_claim_is_no_longer_genuine(vector: tuple[int, str, str, int, bytes | None, str], field: str) -> None:
    claims = document(vector)
    claims[field] += 1
    assert refusal(UserSigChecker(vector[0], vector[1]), pack(claims), vector[2]) == 70009


def test_an_added_userbuf_is_no_longer_genuine() -> None:
    claims = document(VECTORS[0]) | {"TLS.userbuf": "YWJj"}
    assert refusal(UserSigChecker(APP, KEY), pack(claims), "xiaojun") == 70009


def test_the_last_second_is_valid_and_what_follows_it_is_not_even_once_remembered() -> None:
    checker, sig = UserSigChecker(APP, KEY), usersig("a", secret_key=KEY, expire=60)
    checker.check(sig, "a", NOW + 60)
    assert refusal(checker, sig, "a", NOW + 60.001) == 70001
    checker.check(sig, "a", NOW + 60)


def test_a_signature_remembered_for_one_caller_is_not_taken_from_another() -> None:
    checker, sig = UserSigChecker(APP, KEY), usersig("a", secret_key=KEY)
    checker.check(sig, "a", NOW)
    assert refusal(checker, sig, "b") == 70013


def test_each_mismatch_has_its_own_code() -> None:
    checker = UserSigChecker(APP, KEY)
    assert refusal(checker, "", "a") == 70002
    assert refusal(checker, usersig("a", secret_key=KEY, sdk_app_id=2), "a") == 70014
    assert refusal(checker, usersig("a", secret_key="another"), "a") == 70009


@pytest.mark.parametrize(
    "sig",
    [
        "nonsense",
        "管理员",
        usersig()[:-10],
        pack({}),
        pack(document(VECTORS[0]) | {"TLS.ver": "1.0"}),
        pack(document(VECTORS[0]) | {"TLS.expire": True}),
        pack(document(VECTORS[0]) | {"TLS.expire": "60"}),
        pack(document(VECTORS[0]) | {"TLS.sig": 5}),
        pack(document(VECTORS[0]) | {"TLS.identifier": None}),
    ],
)
def test_what_cannot_be_read_is_refused_as_such(sig: str) -> None:
    assert refusal(UserSigChecker(APP, KEY), sig, "xiaojun") == 70003


def test_what_is_remembered_is_bounded() -> None:
    checker = UserSigChecker(APP, KEY)
    for second in range(1100):
        checker.check(usersig("a", secret_key=KEY, issued_at=NOW - second), "a", NOW)
    assert len(checker._genuine) <= 1024
