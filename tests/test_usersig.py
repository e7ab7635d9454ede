"""UserSigs: known vectors, signing and verification, and the cache."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async._secret import Secret
from tim_async._usersigs import UserSigCache
from tim_async.usersig import Claims, sign, verify

from .emulator.support import pack
from .stand_in import KEY

NOW = 1700000000
VECTORS = [
    (1400000000, KEY, "xiaojun", 15552000, None, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4="),
    (1400000000, KEY, "xiaojun", 15552000, b"abc", "QjT201xPkXk/aM1e+y0vakZb0K2iPrFue++0s5y6bFM="),
    (1400000000, KEY, "管理员", 86400, None, "pbrM5gj3jEaLcveZ2CyjpTNJES7Up4k7XBCC+iPigpA="),
    (1, "2", "3", 4, None, "f5gSvBYdWRemW5KQRjxvTzWiOlJwFEuyR7UEE4EjP6o="),
]


def unpack(usersig: str) -> dict[str, Any]:
    """Return the content of a UserSig, read without the library."""
    packed = base64.b64decode(usersig.replace("*", "+").replace("-", "/").replace("_", "="))
    document = json.loads(zlib.decompress(packed))
    assert isinstance(document, dict)
    return document


def test_known_vectors_are_signed_alike() -> None:
    """The documented JSON, with the TLS.sig of other implementations."""
    for app, key, identifier, expire, userbuf, expected in VECTORS:
        assert unpack(sign(app, key, identifier, issued_at=NOW, expire=expire, userbuf=userbuf)) == {
            "TLS.ver": "2.0",
            "TLS.identifier": identifier,
            "TLS.sdkappid": app,
            "TLS.expire": expire,
            "TLS.time": NOW,
            "TLS.sig": expected,
            **({} if userbuf is None else {"TLS.userbuf": base64.b64encode(userbuf).decode()}),
        }


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80).filter(
    lambda key: not key.startswith(("{", "ssh-", "ecdsa"))
)
claims = st.builds(
    Claims,
    identifier=names,
    sdk_app_id=st.integers(1, 2**31),
    issued_at=st.integers(0, 2**33),
    expire=st.integers(1, 2**31),
    userbuf=st.none() | st.binary(max_size=50),
)


def signed(made: Claims, key: str) -> str:
    return sign(
        made.sdk_app_id, key, made.identifier, issued_at=made.issued_at, expire=made.expire, userbuf=made.userbuf
    )


@given(claims, keys)
def test_a_signed_usersig_verifies_to_its_claims(made: Claims, key: str) -> None:
    """Until its last second; it needs no encoding in a query."""
    usersig = signed(made, key)
    assert verify(usersig, made.sdk_app_id, key, now=made.issued_at) == made
    assert verify(usersig, made.sdk_app_id, key, now=made.issued_at + made.expire) == made
    assert usersig.isascii()
    assert not {*usersig} & {*"+/=&%# ?"}


@given(claims, st.data())
def test_a_changed_usersig_never_has_other_claims(made: Claims, data: st.DataObject) -> None:
    """With one character replaced, or cut off, it is rejected, or has the same claims if only padding changed."""
    usersig = signed(made, KEY)
    at = data.draw(st.integers(0, len(usersig) - 1))
    other = data.draw(st.sampled_from("ABCxyz019*-_!"))
    for changed in (usersig[:at] + other + usersig[at + 1 :], usersig[:at]):
        try:
            found = verify(changed, made.sdk_app_id, KEY, now=made.issued_at)
        except ValueError:
            continue
        assert found == made


def rejected(document: object, why: str = "") -> bool:
    """Check that a UserSig is rejected, and return whether the error has the text."""
    try:
        found = verify(pack(document), 1400000000, KEY, now=NOW)
    except ValueError as failure:
        return why in str(failure)
    raise AssertionError(f"{document!r} gave {found!r}")


def test_changed_and_missing_claims_are_rejected() -> None:
    """Each field is covered by the signature or checked on its own."""
    good = unpack(sign(1400000000, KEY, "alice", issued_at=NOW, expire=86400))
    changes: list[tuple[str, list[object]]] = [
        ("TLS.identifier", ["root", None, 3, "\ud800", ["a"]]),
        ("TLS.sdkappid", [1400000001, "1400000000", True]),
        ("TLS.expire", [10**9, 86400.0]),
        ("TLS.time", [NOW + 1, None]),
        ("TLS.ver", ["1.0", 2.0]),
        ("TLS.sig", ["", None, "%%%", base64.b64encode(bytes(32)).decode()]),
        ("TLS.userbuf", ["YWJj", 5, "%"]),
    ]
    for name, values in changes:
        for value in values:
            assert rejected({**good, name: value})
    for gone in good:
        assert rejected({name: value for name, value in good.items() if name != gone}, "not a UserSig")
    # The signature covers the text of a value, not its type.
    good = unpack(sign(1400000000, KEY, "3", issued_at=NOW, expire=86400))
    for name, value in (("TLS.identifier", 3), ("TLS.sdkappid", "1400000000"), ("TLS.time", str(NOW))):
        assert rejected({**good, name: value}, "not a UserSig")


def test_characters_outside_base64_are_rejected() -> None:
    """In the UserSig and in its fields, so that no UserSig has a second spelling."""
    usersig = sign(1400000000, KEY, "alice", issued_at=NOW, expire=86400, userbuf=b"abc")
    good = unpack(usersig)
    with pytest.raises(ValueError, match=r"^not a UserSig of version 2\.0$"):
        verify(f"{usersig[:8]}!{usersig[8:]}", 1400000000, KEY, now=NOW)
    for name in ("TLS.sig", "TLS.userbuf"):
        assert rejected({**good, name: f"{good[name][:2]}!{good[name][2:]}"}, "not a UserSig of version 2.0")


def test_an_expired_usersig_another_app_and_another_key_are_rejected() -> None:
    """Each has its own message."""
    usersig = sign(1400000000, KEY, "alice", issued_at=NOW, expire=100)
    verify(usersig, 1400000000, KEY, now=NOW + 100)
    with pytest.raises(ValueError, match=r"^the UserSig has expired$"):
        verify(usersig, 1400000000, KEY, now=NOW + 100.5)
    with pytest.raises(ValueError, match=r"^the UserSig is for another SDKAppID$"):
        verify(usersig, 1400000001, KEY, now=NOW)
    with pytest.raises(ValueError, match=r"^the UserSig was not signed with this key$"):
        verify(usersig, 1400000000, KEY[::-1], now=NOW)


@given(st.text() | st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_text_is_rejected_with_a_value_error(garbage: str) -> None:
    with pytest.raises(ValueError):
        verify(garbage, 1400000000, KEY, now=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = ["TLS.ver", "TLS.identifier", "TLS.sdkappid", "TLS.expire", "TLS.time", "TLS.sig", "TLS.userbuf"]


@given(json_values | st.dictionaries(st.sampled_from(fields), json_values | st.just("2.0")))
def test_any_packed_json_is_rejected_with_a_value_error(document: object) -> None:
    with pytest.raises(ValueError):
        verify(pack(document), 1400000000, KEY, now=NOW)


def test_a_decompression_or_nesting_bomb_is_rejected_with_a_value_error() -> None:
    """Megabytes in a few bytes are not unpacked."""
    for content in (b"[" * 60_000, b" " * 50_000_000, b"1" * 60_000):
        usersig = base64.b64encode(zlib.compress(content)).decode()
        tracemalloc.start()
        with pytest.raises(ValueError, match="not a UserSig"):
            verify(usersig, 1400000000, KEY, now=NOW)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()
    missing: Any = None
    for usersig in ("", missing):
        with pytest.raises(ValueError, match="not a UserSig"):
            verify(usersig, 1400000000, KEY, now=NOW)


def text(usersig: Secret) -> str:
    return str(usersig.reveal())


def issued(usersig: str) -> int:
    made = unpack(usersig)["TLS.time"]
    assert isinstance(made, int)
    return made


def test_the_cache_renews_a_usersig_once_at_four_fifths_of_its_life() -> None:
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000)
    first = cache.current(NOW)
    assert cache.current(NOW) is first
    assert cache.current(NOW + 799.0) is first
    second = cache.current(NOW + 800.0)
    assert issued(text(second)) == NOW + 800
    assert cache.current(NOW + 1599.0) is second


@given(st.lists(st.floats(0, 5000), max_size=40))
def test_a_usersig_from_the_cache_is_valid_for_at_least_a_fifth_of_its_life(steps: list[float]) -> None:
    now = float(NOW)
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000)
    for step in steps:
        now += step
        left = issued(text(cache.current(now))) + 1000 - now
        assert left >= 199.0, "a fifth, less the fraction of a second that the format drops"


def test_a_clock_that_is_set_back_renews_the_usersig() -> None:
    """One from the future would never seem old."""
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000)
    cache.current(NOW)
    assert issued(text(cache.current(NOW - 86400.0))) == NOW - 86400


def test_a_rejected_usersig_is_renewed_once_for_all_rejections() -> None:
    """A late rejection of the old one does not discard the new one."""
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000)
    old = cache.current(NOW)
    cache.refused(old)
    new = cache.current(NOW + 5.0)
    assert text(new) != text(old)
    for _ in range(100):
        cache.refused(old)
        assert cache.current(NOW + 10.0) is new


def test_a_usersig_rejected_within_its_first_second_is_replaced_by_another() -> None:
    """The replacements differ, though the clock has not moved, and are valid."""
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000)
    seen = [cache.current(NOW)]
    for _ in range(3):
        cache.refused(seen[-1])
        seen.append(cache.current(NOW))
    assert len({text(usersig) for usersig in seen}) == 4
    for usersig in seen:
        assert verify(text(usersig), 1400000000, KEY, now=NOW).identifier == "alice"


def test_even_the_shortest_usersig_is_not_used_after_its_end() -> None:
    """The format has whole seconds only; the dropped fraction counts as used."""
    for expire in (1, 2, 3):
        now = NOW + 0.999
        cache = UserSigCache(1400000000, Secret(KEY), "alice", expire)
        for _ in range(200):
            verify(text(cache.current(now)), 1400000000, KEY, now=now)
            now += 0.07


def test_a_replacement_is_renewed_by_its_own_life() -> None:
    """It has a shorter life in order to differ, so it is renewed earlier and not used after its end."""
    now = float(NOW)
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 60)
    for _ in range(29):
        cache.refused(cache.current(now))
    for _ in range(120):
        verify(text(cache.current(now)), 1400000000, KEY, now=now)
        now += 1.0


@pytest.mark.parametrize(("expire", "replaced"), [(86400, 86399), (2, 1), (1, 1)])
def test_a_replacement_is_valid_for_a_second_less_and_at_least_for_one(expire: int, replaced: int) -> None:
    """So it differs from a UserSig of the same second."""
    cache = UserSigCache(1400000000, Secret(KEY), "alice", expire)
    first = cache.current(NOW)
    cache.refused(first)
    assert [unpack(text(usersig))["TLS.expire"] for usersig in (first, cache.current(NOW))] == [expire, replaced]


@pytest.mark.parametrize("key", [None, 5, KEY.encode()])
def test_a_key_that_is_no_str_is_named_by_its_type(key: Any) -> None:
    with pytest.raises(TypeError, match=rf"^secret_key must be a str, not {type(key).__name__}$"):
        sign(1400000000, key, "alice", issued_at=NOW, expire=100)


@pytest.mark.parametrize(
    "key", ["\ud800" * 40, "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"], ids=["text", "PEM"]
)
def test_a_key_of_another_kind_is_rejected_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError) as raised:
        sign(1400000000, key, "alice", issued_at=NOW, expire=100)
    assert type(raised.value) is ValueError
    assert str(raised.value) == (
        "the secret key looks like a PEM, SSH or JWK key, or is not text; it must be the SDKSecretKey of the console"
    )
