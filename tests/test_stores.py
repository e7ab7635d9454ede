"""URLs and options of stores: each mistake is a ValueError that names the part and shows no value."""

from __future__ import annotations

import contextlib
import inspect
import ssl
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st
from redis import UsernamePasswordCredentialProvider
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as ConnectionFailed

from tests.stand_in import failure_of
from tim_async._redis_clients import connect, execute
from tim_async._store_faults import said
from tim_async._stores import _OPTIONS, read_url
from tim_async.migrate.streams import read_fleet
from tim_async.quota import RedisQuota

SECRET = "s3cr3t"

BAD_URLS = [
    ("redis://", "no host"),
    ("redis:///0", "no host"),
    (f"redis://:{SECRET}@/0", "no host"),
    ("redis://:6379", "no host"),
    ("redis://[::1/0", "IPv6"),
    ("redis://[nonsense]/0", "IPv6"),
    ("redis://::1:6379/0", "no host"),
    ("redis://a..b/0", "host"),
    (f"redis://{'a' * 64}/0", "host"),
    ("redis://h:99999", "port"),
    ("redis://h:0/0", "port"),
    ("redis://h:-1", "port"),
    ("redis://h:port/0", "port"),
    (f"redis://default:{SECRET}", "port"),
    ("redis://h:6379/notanumber", "database"),
    ("redis://h:6379/-1", "database"),
    ("redis://h:6379/1/0", "database"),
    ("redis://h:6379/٣", "database"),
    (f"redis://h/{10**30}", "database"),
    ("redis://h/0?nonsense=1", "unknown option nonsense"),
    ("redis://h/0?ssl_cert_reqs=none", "unknown option ssl_cert_reqs"),
    ("redis://h/0?decode_responses=false", "unknown option decode_responses"),
    ("redis://h/0?retry=5", "unknown option retry"),
    ("unix:///run/x.sock?socket_keepalive=1", "unknown option socket_keepalive"),
    (f"redis://h/0?{SECRET}", "unknown option"),
    ("redis://h/0?socket_timeout=abc", "socket_timeout"),
    ("redis://h/0?socket_timeout=0", "socket_timeout"),
    ("redis://h/0?socket_timeout=nan", "socket_timeout"),
    ("redis://h/0?socket_timeout=", "without a value"),
    ("redis://h/0?socket_timeout=1&socket_timeout=2", "twice"),
    ("redis://h/0?db=1", "twice"),
    ("redis://h/?db=x", "db"),
    ("redis://h/0?health_check_interval=1.5", "health_check_interval"),
    ("redis://h/0?socket_keepalive=maybe", "socket_keepalive"),
    ("redis://h/0?protocol=4", "protocol"),
    ("redis://h/0?client_name=a%20b", "client_name"),
    ("rediss://h/0?ssl_cert_reqs=foo", "ssl_cert_reqs"),
    ("rediss://h/0?ssl_ca_certs=/no/such/file", "ssl_ca_certs"),
    (f"rediss://h/0?ssl_ca_certs={'x' * 100_000}", "ssl_ca_certs"),
    (f"redis://:{SECRET}@{SECRET}@h/0", "%40"),
    (f"redis://:{SECRET}#{SECRET}@h/0", "%23"),
    (f"redis://:{SECRET}/{SECRET}@h/0", "%2F"),
    (f"redis://:{SECRET}?{SECRET}=1@h/0", "%3F"),
    (f"redis://:{SECRET} @h/0", "whitespace"),
    ("redis://h/0\n", "whitespace"),
    ("unix://run/redis.sock", "three slashes"),
    ("unix://redis.sock", "three slashes"),
    ("unix://", "three slashes"),
    ("unix:///run/x.sock?db=x", "db"),
    ("redis+sentinel://h:26379", "does not name the primary"),
    ("redis+sentinel:///name/0", "no host"),
    ("redis+sentinel://h,,h/name", "no host"),
    ("redis+sentinel://h:0,h/name", "port"),
    (f"redis+sentinel://joe:{SECRET}", "port"),
    ("redis+sentinel://h/name/x", "database"),
    ("redis+sentinel://h/name/1?db=2", "twice"),
    (f"redis+sentinel://h/name?sentinel={SECRET}", "unknown option sentinel"),
    ("redis+sentinel://h/name?ssl_cert_reqs=none", "unknown option ssl_cert_reqs"),
    ("redis+sentinel://[::1,h/name", "IPv6"),
    ("redis+cluster://h:6379,/", "no host"),
    ("redis+cluster://h/1", "a cluster has none"),
    ("redis+cluster://h?db=0", "unknown option db"),
    (f"redis+cluster://:{SECRET}/{SECRET}@h", "%2F"),
    ("unix+cluster://h", "must begin with redis://"),
    ("redis+other://h", "must begin with redis://"),
    ("http://h/0", "must begin with redis://"),
    ("", "must begin with redis://"),
]


@pytest.mark.parametrize(("url", "says"), BAD_URLS)
async def test_an_invalid_url_is_a_value_error_that_names_the_part(url: str, says: str) -> None:
    """With the same message from a quota and a stream."""
    with pytest.raises(ValueError) as quota:
        RedisQuota(url or "nonsense")
    stream = await failure_of(read_fleet(url or "nonsense"))
    assert type(stream) is ValueError
    assert str(stream) == str(quota.value)
    assert says in str(stream)
    assert "\n" not in str(stream)
    assert SECRET not in str(stream)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h"}),
        ("valkey://h:7000/2", {"host": "h", "port": 7000, "db": 2}),
        ("redis://h/?db=3", {"host": "h", "db": 3}),
        ("REDIS://[::1]:6379/0", {"host": "::1", "port": 6379, "db": 0}),
        ("redis://joe:p%40s%23s%2F%3Fw@h/0", {"host": "h", "db": 0, "username": "joe", "password": "p@s#s/?w"}),
        ("redis://h?socket_timeout=1.5&client_name=x", {"host": "h", "socket_timeout": 1.5, "client_name": "x"}),
        ("unix://joe:pw@/run/x.sock?db=1", {"path": "/run/x.sock", "db": 1, "username": "joe", "password": "pw"}),
    ],
)
def test_a_valid_url_is_read_by_redis_py_as_intended(url: str, expected: dict[str, Any]) -> None:
    found: dict[str, Any] = {**parse_url(read_url(url).text)}
    found.pop("connection_class", None)
    assert found == expected


@pytest.mark.parametrize(
    ("url", "nodes", "expected"),
    [
        ("redis+sentinel://h/m", [("h", 26379)], {"db": 0}),
        ("valkey+sentinel://a:1,b,[::1]:3/m/2", [("a", 1), ("b", 26379), ("::1", 3)], {"db": 2}),
        ("redis+sentinel://joe:p%40w@a,b/my%2Fm?db=1", [("a", 26379), ("b", 26379)], {"db": 1, "password": "p@w"}),
        ("redis+cluster://a:1,b", [("a", 1), ("b", 6379)], {}),
        ("REDISS+CLUSTER://joe:pw@[::1]", [("::1", 6379)], {"username": "joe", "password": "pw", "ssl": True}),
    ],
)
def test_the_nodes_and_options_of_a_url_reach_redis_py(
    url: str, nodes: list[tuple[str, int]], expected: dict[str, Any]
) -> None:
    """The shown URL has no password."""
    found = read_url(url)
    assert list(found.nodes) == nodes
    made = connect(url)
    assert made.ours
    assert made.by_name
    assert "pw" not in made.shown
    assert "p%40w" not in made.shown
    options = made.client.connection_kwargs if isinstance(made.client, RedisCluster) else pool_options(made.client)
    assert {name: options.get(name, 0) for name in expected if name != "ssl"} == {
        name: value for name, value in expected.items() if name != "ssl"
    }


def pool_options(client: Redis) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


def test_sentinels_have_separate_credentials() -> None:
    made = connect("redis+sentinel://joe:pw@h/m?sentinel_username=s&sentinel_password=p%2Fw")
    assert isinstance(made.client, Redis)
    (sentinel,) = made.client.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
    options = pool_options(sentinel)
    assert (options["username"], options["password"]) == ("s", "p/w")
    assert pool_options(made.client)["password"] == "pw"


def test_tls_options_of_a_url_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    read_url(f"rediss://h/0?ssl_ca_certs={file}&ssl_cert_reqs=none&ssl_check_hostname=false")


@pytest.mark.parametrize(
    ("url", "options", "kind", "says"),
    [
        ("redis://h", {"socket_timeout": -1}, ValueError, "socket_timeout must be above 0"),
        ("redis://h", {"socket_timeout": "5"}, TypeError, "socket_timeout must be a number"),
        ("redis://h", {"socket_connect_timeout": 10**400}, ValueError, "socket_connect_timeout must be above 0"),
        ("redis://h", {"timeout": 10**400}, ValueError, "timeout must be above 0 and finite"),
        ("redis://h", {"health_check_interval": -1}, ValueError, "health_check_interval"),
        ("redis://h", {"db": "x"}, ValueError, "db must be a number"),
        ("redis://h", {"db": True}, TypeError, "db must not be bool"),
        ("redis://h", {"protocol": 4}, ValueError, "protocol must be 2 or 3"),
        ("redis://h", {"client_name": "a b"}, ValueError, "client_name must be ASCII"),
        ("redis://h", {"encoding": "nonsense"}, ValueError, "encoding must be utf-8"),
        ("redis://h", {"encoding": "latin-1"}, ValueError, "encoding must be utf-8"),
        ("redis://h", {"retry": 3}, TypeError, "an option of the store"),
        ("redis://:pw@h", {"credential_provider": UsernamePasswordCredentialProvider("a", "b")}, ValueError, "option"),
        ("rediss://h", {"ssl_ca_certs": "/no/such/file"}, ValueError, "ssl_ca_certs must be a file"),
        ("rediss://h", {"ssl_ca_certs": "x" * 100_000}, ValueError, "ssl_ca_certs must be a file"),
        ("rediss+cluster://h", {"ssl_certfile": Path("/no/such")}, ValueError, "ssl_certfile must be a file"),
        ("rediss+cluster://h", {"ssl_cert_reqs": "maybe"}, ValueError, "ssl_cert_reqs must be none, optional"),
        ("redis+cluster://h", {"ssl_cert_reqs": "required"}, TypeError, "ssl_cert_reqs is for TLS"),
        ("redis+sentinel://h/m", {"cluster": True}, ValueError, "names Sentinels"),
    ],
)
def test_a_bad_option_beside_a_url_is_an_error_of_the_constructor(
    url: str, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    """Later it would look like an outage of the store."""
    with pytest.raises(kind, match=says):
        RedisQuota(url, **options)


def test_good_options_beside_a_url_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    trustme.CA().issue_cert("h").private_key_and_cert_chain_pem.write_to_path(file)
    RedisQuota("redis://h", socket_timeout=0.00001, health_check_interval=0, db="3", protocol=3, client_name="x")
    RedisQuota("redis://h", socket_timeout=None, db=None, encoding="UTF8", password=None, max_connections=1)
    RedisQuota("rediss+cluster://h", ssl_ca_certs=str(file), ssl_certfile=file, ssl_cert_reqs=ssl.CERT_REQUIRED)
    file.write_text("something else")
    for url in (f"rediss://h?ssl_ca_certs={file}", f"rediss+sentinel://h/m?ssl_ca_certs={file}"):
        with pytest.raises(ValueError, match="make no TLS"):
            RedisQuota(url)


@pytest.mark.parametrize("url", ["unix:///run/x.sock", "redis://[::1]:6379/0", "redis+sentinel://a,b:1/m/0"])
def test_a_url_without_secrets_is_shown_unchanged(url: str) -> None:
    assert connect(url).shown == url


async def test_a_cluster_connection_closed_during_a_command_is_a_connection_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """redis-py closes it after a failure of another command, at a time that a test cannot choose."""
    client = RedisCluster("h")
    for text, kind in (
        ("'NoneType' object has no attribute 'writelines'", ConnectionFailed),
        ("another", AttributeError),
    ):
        monkeypatch.setattr(client, "execute_command", mock.AsyncMock(side_effect=AttributeError(text)))
        assert type(await failure_of(execute(client, "PING"))) is kind


def test_redis_pys_description_of_sentinels_is_not_shown() -> None:
    """In some of its versions it contains the password of the Sentinels."""
    error = MasterNotFoundError(f"No master found for 'm' : <Connection(password={SECRET})> - ConnectionError()")
    assert said(error) == "No master found for 'm'"


@pytest.mark.parametrize(
    ("scheme", "connection"),
    [
        ("redis", Connection),
        ("rediss", SSLConnection),
        ("unix", UnixDomainSocketConnection),
        ("redis+cluster", RedisCluster),
        ("rediss+cluster", RedisCluster),
    ],
)
def test_redis_py_knows_every_accepted_option(scheme: str, connection: type) -> None:
    """An unknown one would be a TypeError at first use."""
    known = {name for base in connection.__mro__ for name in inspect.signature(base).parameters}
    assert set(_OPTIONS[scheme]) <= known


@given(st.text(alphabet="ab1:/@?#&=%[].-_ \n", max_size=30))
@example("redis://[")
@example("]@1")
def test_any_text_is_a_valid_url_or_a_value_error(text: str) -> None:
    """redis-py accepts each valid one."""
    for scheme in ("", "redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://"):
        found = None
        with contextlib.suppress(ValueError):
            found = read_url(scheme + text)
        if found is not None:
            parse_url(found.url)
