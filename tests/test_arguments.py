"""Bad arguments raise before anything is sent, with a text that names them."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from tim_async import RecentContactPage, TIMClient
from tim_async.quota import RedisQuota

from .stand_in import APP, KEY, METHODS, StandIn, client_of

NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - naive on purpose


class NotACommand:
    """Not a str, though str() accepts it."""

    def __str__(self) -> str:
        return "v4/openim/anything"


def refusal(function: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """Return the text of the ValueError or TypeError that a call raises."""
    try:
        made = function(*args, **kwargs)
    except (ValueError, TypeError) as failure:
        return str(failure)
    raise AssertionError(f"{args!r} {kwargs!r} gave {made!r}")


def deep(depth: int) -> Any:
    nested: Any = []
    for _ in range(depth):
        nested = [nested]
    return nested


def cycle() -> dict[str, Any]:
    body: dict[str, Any] = {}
    body["self"] = body
    return body


class Recorder:
    """A fake client that records the method and the arguments of a call."""

    name, args, kwargs = "", (), dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **kwargs: Any) -> None:
            self.name, self.args, self.kwargs = name, args, kwargs

        return method


def bad_ids() -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Yield calls with each bad user or group id in each position of each method that takes one."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("batch.get_c2c_unread_msg_num", ("alice", ["bob"]), {}),
        ("batch.get_group_msg_receipt", ("g", [1]), {}),
        ("batch.get_recent_c2c_unread_msg_num", ("alice",), {}),
    ]
    for method in METHODS:
        recorder: Any = Recorder()
        method.run(recorder)
        calls.append((recorder.name, recorder.args, recorder.kwargs))
    for name, args, kwargs in calls:
        for place in (place for place, value in enumerate(args) if isinstance(value, str)):
            for bad in ("", None, 1, True, b"alice", ["alice"], {"a": 1}, 1.5, "\ud800"):
                yield name, (*args[:place], bad, *args[place + 1 :]), kwargs


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *bad_ids(),
    *(("set_unread_msg_num", ("g", "alice", bad), {}) for bad in (-1, True, False, "3", 3.0, None, [3], b"3")),
    *(
        ("admin_set_msg_read", ("a", "b"), {"msg_read_time": bad})
        for bad in (-1, True, "1700000000", 1.7e9, NAIVE, dt.date(2024, 1, 1), dt.datetime.min.replace(tzinfo=dt.UTC))
    ),
    ("admin_set_msg_read", ("a", "b", 1700000000), {}),  # by keyword only
    *(
        (f"{where}get_c2c_unread_msg_num", ("alice", bad), {})
        for where in ("", "batch.")
        for bad in (
            [],
            (),
            "bob",
            b"bob",
            None,
            3,
            [""],
            ["bob", None],
            ["bob", 3],
            [["bob"]],
            [True],
            iter(()),
            ["\udfff"],
        )
    ),
    *(
        (f"{where}get_group_msg_receipt", ("g", bad), {})
        for where in ("", "batch.")
        for bad in (
            [],
            (),
            "12",
            b"12",
            bytearray(b"12"),
            None,
            3,
            ["1"],
            [1, None],
            [True],
            [1.0],
            [-1],
            [1, -5],
            [[1]],
            range(0),
        )
    ),
    *(("batch.get_group_msg_receipt", ("g", [1]), {"chunk": bad}) for bad in (0, -1, True, 1.5, "50", None)),
    *(
        ("call", (command, {}), {})
        for command in (
            "",
            "/",
            "openim/x",
            "v4",
            "v4/",
            "v4/a b",
            "v4/a?b=c",
            "v4/a#b",
            "v4//a",
            "v4/../a",
            "http://elsewhere/v4/openim/x",
            "v4/openim/x\n",
            "v4/openim/é",
            None,
            7,
            b"v4/openim/x",
            NotACommand(),
        )
    ),
    *(
        ("call", ("v4/openim/x", bad), {})
        for bad in list[Any](
            [
                None,
                [],
                "{}",
                b"{}",
                3,
                {"a": float("nan")},
                {"a": float("inf")},
                {"a": {1, 2}},
                {"a": object()},
                {"a": b"bytes"},
                {("a", "b"): 1},
                {"a": "\ud800"},
                {"a": deep(100_000)},
                cycle(),
            ]
        )
    ),
]


@pytest.mark.parametrize("method", dict.fromkeys(method for method, _, _ in BAD))
async def test_a_bad_argument_raises_and_nothing_is_sent(service: StandIn, method: str) -> None:
    """ValueError or TypeError, with a text."""
    async with client_of(service) as tim:
        of, _, name = method.rpartition(".")
        target = getattr(tim.batch if of else tim, name)
        for args, kwargs in ((args, kwargs) for named, args, kwargs in BAD if named == method):
            with pytest.raises((ValueError, TypeError)) as caught:
                await target(*args, **kwargs)
            assert str(caught.value)
    assert service.connections == 0
    assert service.seen == []


VALID: dict[str, Any] = {
    "group_id": "@TGS#1",
    "member_account": "alice",
    "unread_msg_num": 1,
    "report_account": "alice",
    "peer_account": "bob",
    "msg_read_time": 1700000000,
    "to_account": "alice",
    "peer_accounts": ["bob"],
    "msg_seqs": [1],
    "msg_seq": 1,
    "read": True,
    "cursor": "",
    "count": 1,
    "from_account": "alice",
    "page": RecentContactPage(),
}
ARGUMENTS = [
    (method.name, name)
    for method in METHODS
    if method.name != "call"
    for name in inspect.signature(getattr(TIMClient, method.name)).parameters
    if name != "self"
]


@pytest.mark.parametrize(("method", "argument"), ARGUMENTS)
async def test_an_argument_of_the_wrong_type_is_named(service: StandIn, method: str, argument: str) -> None:
    """A bool is no int."""
    given = {name: VALID[name] for each, name in ARGUMENTS if each == method}
    async with client_of(service) as tim:
        await getattr(tim, method)(**given)
        for bad in (object(), True) if type(given[argument]) is int else (object(),):
            with pytest.raises(TypeError, match=f"^{argument} must be an? "):
                await getattr(tim, method)(**{**given, argument: bad})
        if isinstance(given[argument], list):
            with pytest.raises(TypeError, match=f"^an item of {argument} must be an? "):
                await getattr(tim, method)(**{**given, argument: [object()]})
    assert len(service.seen) == 1


async def test_a_list_that_is_too_long_is_rejected_with_the_batch_method(service: StandIn) -> None:
    async with client_of(service) as tim:
        with pytest.raises(
            ValueError, match=r"^11 peers; one call takes 10, use tim\.batch\.get_c2c_unread_msg_num for more$"
        ):
            await tim.get_c2c_unread_msg_num("alice", [f"p{number}" for number in range(11)])


@pytest.mark.parametrize(("count", "taken"), [(0, False), (1, True), (200, True), (201, False)])
async def test_a_page_has_a_size_from_1_to_200(service: StandIn, count: int, taken: bool) -> None:
    async with client_of(service) as tim:
        if taken:
            await tim.get_group_msg_receipt_detail("@TGS#1", 7, count=count)
        else:
            with pytest.raises(ValueError, match=f"^count must be from 1 to 200, not {count}$"):
                await tim.get_group_msg_receipt_detail("@TGS#1", 7, count=count)
    assert [body["Count"] for body in service.bodies] == ([count] if taken else [])


async def test_a_malformed_command_is_shown(service: StandIn) -> None:
    command: Any = 7
    async with client_of(service) as tim:
        with pytest.raises(TypeError, match=r"^command must be a str, not int$"):
            await tim.call(command, {})
        for wrong in ("openim/sendmsg", "Xv4/openim/sendmsg", "v4"):
            with pytest.raises(ValueError, match=f"^command must be a path like 'v4/openim/sendmsg', not '{wrong}'$"):
                await tim.call(wrong, {})


class Peer(enum.StrEnum):
    BOB = "bob"


class Text(str):
    """A subclass of str, such as `numpy.str_`."""

    __slots__ = ()


@pytest.mark.parametrize("bob", [Peer.BOB, Text("bob")], ids=["StrEnum", "subclass"])
async def test_a_subclass_of_str_becomes_a_str(service: StandIn, bob: str) -> None:
    """Orjson accepts only str as keys of a result; a look-up by the original still finds it."""
    async with client_of(service) as tim:
        for unread in (
            await tim.get_c2c_unread_msg_num(bob, [bob]),
            await tim.batch.get_c2c_unread_msg_num(bob, [bob]),
        ):
            assert [type(peer) for peer in unread.counts] == [str]
            assert orjson.loads(orjson.dumps(unread))["counts"] == unread.counts == {bob: unread.counts[bob]}
        assert await tim.lookup.c2c_unread_msg_num(bob, bob) == unread.counts["bob"]
    assert {body["To_Account"] for body in service.bodies} == {"bob"}


@pytest.mark.parametrize("bad", ["1", -1, True, None, 1.0, 2**63])
async def test_a_page_that_the_service_cannot_have_returned_is_rejected(service: StandIn, bad: Any) -> None:
    """It may come from a user of a web app."""
    async with client_of(service) as tim:
        for place in range(4):
            page = RecentContactPage(*[bad if number == place else 1 for number in range(4)])
            with pytest.raises((ValueError, TypeError), match="of the page"):
                await tim.get_recent_contact_list("alice", page=page)
    assert service.seen == []


async def test_repeatable_that_is_not_a_bool_is_rejected(service: StandIn) -> None:
    """Such as "0" from a file, with which the call would be repeated."""
    value: Any = "0"
    async with client_of(service) as tim:
        with pytest.raises(TypeError, match="repeatable must be a bool, not str"):
            await tim.call("v4/openim/x", {}, repeatable=value)
    assert service.seen == []


async def test_a_count_of_5000_digits_is_rejected(service: StandIn) -> None:
    async with client_of(service) as tim:
        with pytest.raises(ValueError, match="too large"):
            await tim.set_unread_msg_num("g", "alice", 10**5000)
    assert service.seen == []


GOOD: dict[str, Any] = {"sdk_app_id": APP, "secret_key": KEY, "region": "singapore"}
BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"sdk_app_id": 0}, "sdk_app_id"),
    ({"sdk_app_id": -5}, "sdk_app_id"),
    ({"sdk_app_id": "1400000000"}, "sdk_app_id"),
    ({"sdk_app_id": True}, "sdk_app_id"),
    ({"sdk_app_id": None}, "sdk_app_id"),
    ({"sdk_app_id": 1.4e9}, "sdk_app_id"),
    ({"identifier": ""}, "identifier"),
    ({"identifier": None}, "identifier"),
    ({"identifier": 3}, "identifier"),
    ({"identifier": "\ud800"}, "identifier"),
    ({"region": None}, "region"),
    ({"region": "atlantis"}, "region"),
    ({"region": ""}, "region"),
    ({"base_url": "http://127.0.0.1:8099"}, "one of the two"),
    ({"region": None, "base_url": ""}, "base_url"),
    ({"region": None, "base_url": 5}, "base_url"),
    ({"region": None, "base_url": "127.0.0.1:8099"}, "base_url"),
    ({"region": None, "base_url": "ftp://host"}, "base_url"),
    ({"region": None, "base_url": "https://"}, "base_url"),
    ({"region": None, "base_url": "https://host?a=b"}, "base_url"),
    ({"region": None, "base_url": "https://host#a"}, "base_url"),
    ({"region": None, "base_url": "https://user:password@host"}, "base_url"),
    ({"region": None, "base_url": "https://host:99999"}, "base_url"),
    ({"region": None, "base_url": "https://host:abc"}, "base_url"),
    ({"region": None, "base_url": "https://[::1"}, "base_url"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": -1.0}, "timeout"),
    ({"timeout": float("inf")}, "timeout"),
    ({"timeout": float("nan")}, "timeout"),
    ({"timeout": "10"}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"timeout": None}, "timeout"),
    ({"usersig_expire": 0}, "usersig_expire"),
    ({"usersig_expire": 1.5}, "usersig_expire"),
    ({"usersig_expire": True}, "usersig_expire"),
    ({"rates": {"get_c2c": 300}}, "no endpoint 'get_c2c'; one of set_unread_msg_num, admin_set_msg_read, "),
    ({"rates": {"set_unread_msg_num": 0}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": 0.5}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": -200}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": float("nan")}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": float("inf")}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": True}}, "set_unread_msg_num"),
    ({"rates": {"set_unread_msg_num": "200"}}, "the rate of set_unread_msg_num must be a number of calls/s, not str"),
    ({"rates": {"set_unread_msg_num": None}}, "set_unread_msg_num"),
    ({"rates": {"v4/open im/x": 3}}, "endpoint"),
    ({"rates": {3: 200}}, "the name of an endpoint must be a str, not int"),
    ({"rates": [("set_unread_msg_num", 100)]}, "rates must be a Mapping, not list"),
    ({"session": "a session"}, ""),
    ({"proxy": 5}, "proxy must be a str, not int"),
    ({"proxy": b"http://127.0.0.1:3128"}, "proxy must be a str, not bytes"),
    ({"retry": 3}, ""),
    ({"strict": "0"}, "strict must be a bool, not str"),
    ({"trust_env": "0"}, "trust_env must be a bool, not str"),
    ({"allow_http": "0"}, "allow_http must be a bool, not str"),
    ({"on_attempt": "print"}, ""),
    ({"quota": "redis://127.0.0.1"}, "RedisQuota"),
]


@pytest.mark.parametrize("option", dict.fromkeys(name for options, _ in BAD_OPTIONS for name in options))
def test_a_bad_option_of_a_client_is_rejected(option: str) -> None:
    """The constructor raises ValueError or TypeError, with a message that names the option and hides the key."""
    for options, named in BAD_OPTIONS:
        if option in options:
            said = refusal(TIMClient, **{**GOOD, **options})
            assert named in said
            assert KEY not in said


BAD_SHARES: list[Any] = [0, -0.1, 1.01, float("nan"), float("inf"), True, "1"]
BAD_QUOTAS: list[tuple[str, Any]] = [
    *(("url", bad) for bad in (5, None, b"redis://h", "", "\ud800")),
    *((name, bad) for name in ("bulk_share", "fallback_share") for bad in BAD_SHARES),
    ("bulk_share", None),
    *(("timeout", bad) for bad in (0, -1, float("nan"), float("inf"), True, "1")),
    *((name, "0") for name in ("fail_closed", "fail_fast", "own_rates", "cluster")),
    *(("namespace", bad) for bad in ("", "{", "a}b", "\ud800", 5, None)),
]


@pytest.mark.parametrize("option", dict.fromkeys(option for option, _ in BAD_QUOTAS))
def test_a_bad_option_of_a_quota_is_rejected(option: str) -> None:
    """The message begins with the option's name; tests/test_stores.py has the URLs."""
    for named, bad in BAD_QUOTAS:
        if named == option:
            said = refusal(RedisQuota, **{"url": "redis://h", option: bad})
            assert said.startswith(option if option != "url" or isinstance(bad, str) else "the store must be a URL")


def test_a_quota_without_redis_py_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the constructor, not at the first call."""
    monkeypatch.setitem(sys.modules, "redis", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'tim-async\[redis\]'"):
        RedisQuota("redis://h")


def test_an_implausible_key_is_rejected() -> None:
    """The constructor's message says what is wrong and does not show the key."""
    for key, why in (
        ("", "empty"),
        ("short", "too short"),
        (KEY[:31], "too short"),
        (KEY + "\n", "blanks"),
        (f'"{KEY}"', "quotation marks"),
        (f"'{KEY}'", "quotation marks"),
        (" " + KEY, "blanks"),
        (KEY[:30] + " " + KEY[30:], "blanks"),
        (KEY[:-1] + "é", "characters"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n", "PEM"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7", "SSH"),
        (None, "str"),
        (b"0" * 64, "str"),
        (5, "str"),
    ):
        said = refusal(TIMClient, **{**GOOD, "secret_key": key})
        assert why in said
        assert not (isinstance(key, str) and len(key) > 10 and key.strip() in said)


def test_the_constructor_takes_keywords_only() -> None:
    """So app id and key cannot be swapped."""
    make: Callable[..., TIMClient] = TIMClient
    with pytest.raises(TypeError):
        make(APP, KEY)


async def test_bad_rows_and_a_bad_concurrency_are_rejected(service: StandIn) -> None:
    """Before any row is pulled; strings and mappings, though iterable, are no rows."""
    async with client_of(service) as tim:
        concurrencies: list[Any] = [0, -1, True, 1.5, "3", None, 10**9]
        for value in concurrencies:
            assert "concurrency" in refusal(tim.batch.map, tim.set_unread_msg_num, [], concurrency=value)
        methods: list[Any] = [None, "set_unread_msg_num", 3]
        for value in methods:
            assert "method must be callable" in refusal(tim.batch.map, value, [("g", "alice", 1)])
        rows: list[Any] = ["rows", b"rows", None, 3, {"a": 1}]
        for value in rows:
            assert "rows" in refusal(tim.batch.map, tim.set_unread_msg_num, value)


@pytest.mark.parametrize(
    ("time", "said"), [(1_700_000_000_000, "milliseconds"), (0, "before 2010"), (1, "before 2010")]
)
async def test_an_implausible_time_is_rejected(service: StandIn, time: int, said: str) -> None:
    """Milliseconds would mark everything as read, for thousands of years to come."""
    async with client_of(service) as tim:
        with pytest.raises(ValueError, match=said):
            await tim.admin_set_msg_read("alice", "bob", msg_read_time=time)
    assert service.seen == []
