"""UserSig: the known vectors, that what is signed verifies, that what is changed does not, and the cache."""

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

from .stand_in import KEY

NOW = 1700000000
VECTORS = [
    (1400000000, KEY, "xiaojun", 15552000, None, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4="),
    (1400000000, KEY, "xiaojun", 15552000, b"abc", "QjT201xPkXk/aM1e+y0vakZb0K2iPrFue++0s5y6bFM="),
    (1400000000, KEY, "管理员", 86400, None, "pbrM5gj3jEaLcveZ2CyjpTNJES7Up4k7XBCC+iPigpA="),
    (1, "2", "3", 4, None, "f5gSvBYdWRemW5KQRjxvTzWiOlJwFEuyR7UEE4EjP6o="),
]


def unpack(usersig: str) -> dict[str, Any]:
    """What a UserSig holds, read without the library."""
    packed = base64.b64decode(usersig.replace("*", "+").replace("-", "/").replace("_", "="))
    document = json.loads(zlib.decompress(packed))
    assert isinstance(document, dict)
    return document


def pack(document: object) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()
    return packed.replace("+", "*").replace("/", "-").replace("=", "_")


def test_the_known_vectors_are_signed_alike() -> None:
    """TLS.sig as other implementations compute it, in the documented JSON."""
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
def test_what_is_signed_verifies_to_the_same_claims(made: Claims, key: str) -> None:
    """Up to and including its last second; and it may stand in a query as it is."""
    usersig = signed(made, key)
    assert verify(usersig, made.sdk_app_id, key, now=made.issued_at) == made
    assert verify(usersig, made.sdk_app_id, key, now=made.issued_at + made.expire) == made
    assert usersig.isascii()
    assert not {*usersig} & {*"+/=&%# ?"}


@given(claims, st.data())
def test_a_changed_signature_never_says_anything_else(made: Claims, data: st.DataObject) -> None:
    """One character exchanged, or the end cut off: refused, or, where it was padding, the very same claims."""
    usersig = signed(made, KEY)
    at = data.draw(st.integers(0, len(usersig) - 1))
    other = data.draw(st.sampled_from("ABCxyz019*-_!"))
    for changed in (usersig[:at] + other + usersig[at + 1 :], usersig[:at]):
        try:
            found = verify(changed, made.sdk_app_id, KEY, now=made.issued_at)
        except ValueError:
            continue
        assert found == made


def refused(document: object, why: str = "") -> bool:
    """Whether a UserSig is refused, with a text that says why."""
    try:
        found = verify(pack(document), 1400000000, KEY, now=NOW)
    except ValueError as failure:
        return why in str(failure)
    raise AssertionError(f"{document!r} gave {found!r}")


def test_changed_and_missing_claims_are_refused() -> None:
    """Each field is either covered by the signature or checked by itself."""
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
            assert refused({**good, name: value})
    for gone in good:
        assert refused({name: value for name, value in good.items() if name != gone}, "not a UserSig")
    # The signature covers the text of a value, not its type.
    good = unpack(sign(1400000000, KEY, "3", issued_at=NOW, expire=86400))
    for name, value in (("TLS.identifier", 3), ("TLS.sdkappid", "1400000000"), ("TLS.time", str(NOW))):
        assert refused({**good, name: value}, "not a UserSig")


def test_characters_that_are_not_base64_are_refused_and_not_skipped() -> None:
    """In the UserSig and in the fields inside: one account has one UserSig for a time, and no other spelling of it."""
    usersig = sign(1400000000, KEY, "alice", issued_at=NOW, expire=86400, userbuf=b"abc")
    good = unpack(usersig)
    with pytest.raises(ValueError, match=r"^not a UserSig of version 2\.0$"):
        verify(f"{usersig[:8]}!{usersig[8:]}", 1400000000, KEY, now=NOW)
    for name in ("TLS.sig", "TLS.userbuf"):
        assert refused({**good, name: f"{good[name][:2]}!{good[name][2:]}"}, "not a UserSig of version 2.0")


def test_another_key_another_app_and_a_late_hour_are_refused() -> None:
    """Each with a message of its own."""
    usersig = sign(1400000000, KEY, "alice", issued_at=NOW, expire=100)
    verify(usersig, 1400000000, KEY, now=NOW + 100)
    with pytest.raises(ValueError, match=r"^the UserSig has expired$"):
        verify(usersig, 1400000000, KEY, now=NOW + 100.5)
    with pytest.raises(ValueError, match=r"^the UserSig is for another SDKAppID$"):
        verify(usersig, 1400000001, KEY, now=NOW)
    with pytest.raises(ValueError, match=r"^the UserSig was not signed with this key$"):
        verify(usersig, 1400000000, KEY[::-1], now=NOW)


@given(st.text() | st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode()))
def test_garbage_is_refused_with_a_value_error_only(garbage: str) -> None:
    """Any text at all."""
    with pytest.raises(ValueError):
        verify(garbage, 1400000000, KEY, now=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = ["TLS.ver", "TLS.identifier", "TLS.sdkappid", "TLS.expire", "TLS.time", "TLS.sig", "TLS.userbuf"]


@given(json_values | st.dictionaries(st.sampled_from(fields), json_values | st.just("2.0")))
def test_well_packed_garbage_is_refused_with_a_value_error_only(document: object) -> None:
    """Any JSON at all, compressed and encoded as it should be."""
    with pytest.raises(ValueError):
        verify(pack(document), 1400000000, KEY, now=NOW)


def test_a_bomb_is_refused_with_a_value_error_only() -> None:
    """Deep nesting, or megabytes in a few bytes, which are not unpacked."""
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


class Clock:
    """A wall clock that the test moves, and that counts how often it is read."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def text(usersig: Secret) -> str:
    return str(usersig.reveal())


def issued(usersig: str) -> int:
    made = unpack(usersig)["TLS.time"]
    assert isinstance(made, int)
    return made


def test_the_cache_renews_at_four_fifths_of_the_life_and_once() -> None:
    """Before that the same text; from then on a new one, which then serves in turn."""
    clock = Clock()
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000, clock)
    first = cache.current()
    assert cache.current() is first
    clock.now = NOW + 799.0
    assert cache.current() is first
    clock.now = NOW + 800.0
    second = cache.current()
    assert issued(text(second)) == NOW + 800
    clock.now = NOW + 1599.0
    assert cache.current() is second


@given(st.lists(st.floats(0, 5000), max_size=40))
def test_a_signature_from_the_cache_always_has_a_fifth_of_its_life_before_it(steps: list[float]) -> None:
    """However the calls are spread."""
    clock = Clock()
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000, clock)
    for step in steps:
        clock.now += step
        left = issued(text(cache.current())) + 1000 - clock.now
        assert left >= 199.0, "a fifth, less the fraction of a second that the format cannot hold"


def test_a_clock_set_back_makes_a_new_signature() -> None:
    """One of the future would look young for years."""
    clock = Clock()
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000, clock)
    cache.current()
    clock.now = NOW - 86400.0
    assert issued(text(cache.current())) == NOW - 86400


def test_a_refused_signature_is_renewed_once_however_many_were_refused() -> None:
    """A hundred calls refused for one signature sign once; a refusal of the old one does not discard the newer one."""
    clock = Clock()
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000, clock)
    old = cache.current()
    clock.now += 5.0
    cache.refused(old)
    new = cache.current()
    assert text(new) != text(old)
    clock.now += 5.0
    for _ in range(100):
        cache.refused(old)
        assert cache.current() is new


def test_a_signature_refused_within_the_second_it_was_made_is_replaced_by_another_text() -> None:
    """The clock has not moved, and still the very text that was refused is not sent again; and what is, is valid."""
    clock = Clock()
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 1000, clock)
    seen = [cache.current()]
    for _ in range(3):
        cache.refused(seen[-1])
        seen.append(cache.current())
    assert len({text(usersig) for usersig in seen}) == 4
    for usersig in seen:
        assert verify(text(usersig), 1400000000, KEY, now=clock.now).identifier == "alice"


def test_even_the_shortest_signature_is_never_used_after_its_end() -> None:
    """The format holds whole seconds only; what was cut off counts as used."""
    for expire in (1, 2, 3):
        clock = Clock()
        clock.now = NOW + 0.999
        cache = UserSigCache(1400000000, Secret(KEY), "alice", expire, clock)
        for _ in range(200):
            verify(text(cache.current()), 1400000000, KEY, now=clock.now)
            clock.now += 0.07


def test_a_signature_made_afresh_is_renewed_by_its_own_life() -> None:
    """Made a little shorter so as to differ, it is also renewed a little earlier, and never used after its end."""
    clock = Clock()
    clock.now = NOW
    cache = UserSigCache(1400000000, Secret(KEY), "alice", 60, clock)
    for _ in range(29):
        cache.refused(cache.current())
    for _ in range(120):
        verify(text(cache.current()), 1400000000, KEY, now=clock.now)
        clock.now += 1.0


@pytest.mark.parametrize(("expire", "replaced"), [(86400, 86399), (2, 1), (1, 1)])
def test_a_replacement_is_valid_for_a_second_less_and_for_one_at_least(expire: int, replaced: int) -> None:
    """It differs within the second in which the other one was made, and is never valid for longer."""
    cache = UserSigCache(1400000000, Secret(KEY), "alice", expire, Clock())
    first = cache.current()
    cache.refused(first)
    assert [unpack(text(usersig))["TLS.expire"] for usersig in (first, cache.current())] == [expire, replaced]


@pytest.mark.parametrize("key", [None, 5, KEY.encode()])
def test_a_key_that_is_no_str_is_named_by_its_type(key: Any) -> None:
    with pytest.raises(TypeError, match=rf"^secret_key must be a str, not {type(key).__name__}$"):
        sign(1400000000, key, "alice", issued_at=NOW, expire=100)


@pytest.mark.parametrize(
    "key", ["\ud800" * 40, "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"], ids=["text", "PEM"]
)
def test_a_key_of_another_kind_is_named_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError) as raised:
        sign(1400000000, key, "alice", issued_at=NOW, expire=100)
    assert type(raised.value) is ValueError
    assert str(raised.value) == (
        "the secret key looks like a PEM, SSH or JWK key, or is not text; it must be the SDKSecretKey of the console"
    )
