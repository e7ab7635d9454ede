"""The emulator's own verification of a UserSig."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.stand_in import APP, KEY
from tests.test_usersig import VECTORS

from .support import C2C_UNREAD, NOW, BlockingCaller, Clock, emulator, pack, query, usersig


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


class Judge:
    """A running emulator of one app, which answers a UserSig with an ErrorCode."""

    def __init__(self, caller: BlockingCaller, clock: Clock) -> None:
        self._caller = caller
        self._clock = clock

    def code(self, sig: str, identifier: str = "xiaojun", now: float = NOW) -> int:
        self._clock.now = now
        params = query(sdkappid=str(self._caller.service.sdk_app_id), identifier=identifier, usersig=sig)
        return self._caller.code(C2C_UNREAD, {"To_Account": "xiaojun"}, params)


@contextmanager
def judging(sdk_app_id: int, secret_key: str, *admins: str) -> Iterator[Judge]:
    clock = Clock()
    with emulator(sdk_app_id=sdk_app_id, secret_key=secret_key, admins=("xiaojun", *admins), clock=clock) as caller:
        yield Judge(caller, clock)


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judging(APP, KEY, "other") as judge:
        yield judge


@pytest.mark.parametrize("vector", VECTORS)
def test_each_published_signature_is_genuine_and_no_longer_once_a_claim_is_changed(
    vector: tuple[int, str, str, int, bytes | None, str],
) -> None:
    sdk_app_id, key, identifier, *_ = vector
    claims = document(vector)
    with judging(sdk_app_id, key, identifier) as judge:
        assert judge.code(pack(claims), identifier) == 0
        for name in ("TLS.expire", "TLS.time"):
            assert judge.code(pack(claims | {name: claims[name] + 1}), identifier) == 70009
        assert judge.code(pack(claims | {"TLS.userbuf": "YWJj" * 2}), identifier) == 70009


def test_a_usersig_expires_after_its_last_second(judge: Judge) -> None:
    sig = usersig("xiaojun", secret_key=KEY, expire=60)
    for now, code in ((NOW + 60, 0), (NOW + 60.001, 70001), (NOW + 60, 0)):
        assert judge.code(sig, now=now) == code


def test_an_undecodable_usersig_and_each_mismatch_have_their_own_codes(judge: Judge) -> None:
    claims = document(VECTORS[0])
    assert judge.code("") == 70002
    assert judge.code(usersig("xiaojun", secret_key=KEY), "other") == 70013
    assert judge.code(usersig("xiaojun", secret_key=KEY, sdk_app_id=2)) == 70014
    assert judge.code(usersig("xiaojun", secret_key="another")) == 70009
    changes: list[dict[str, Any]] = [
        {"TLS.ver": "1.0"},
        {"TLS.expire": True},
        {"TLS.expire": "60"},
        {"TLS.sig": 5},
        {"TLS.identifier": None},
    ]
    documents: list[Any] = [{}, [1], *(claims | change for change in changes)]
    unreadable = ["nonsense", "管理员", usersig()[:-10], *map(pack, documents)]
    assert [(sig, judge.code(sig)) for sig in unreadable] == [(sig, 70003) for sig in unreadable]
