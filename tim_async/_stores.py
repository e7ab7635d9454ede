"""The URLs of Redis and Valkey stores, checked completely when they are read; redis-py checks them at first use.

A URL names a single server, the Sentinels that watch one, or nodes of a cluster::

    redis://[[user]:password@]host[:port][/db][?option=value&…]
    unix://[[user]:password@]/path[?db=number]
    redis+sentinel://[[user]:password@]host[:port],host[:port]/name[/db]
    redis+cluster://[[user]:password@]host[:port],host[:port]

``rediss`` instead of ``redis`` is TLS; ``valkey`` and ``valkeys`` mean the same.

redis-py reads a ``/db`` that is not a number as database 0, port 0 as 6379 and an empty host as localhost; it passes
unknown options on to a connection, which then fails with a TypeError.  No message here quotes a value: any part of a
URL may be a part of its password.
"""

from __future__ import annotations

import codecs
import os
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit, urlunsplit

from . import _arguments

SENTINEL, CLUSTER = "+sentinel", "+cluster"
_REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
SCHEMES = ("unix", *(f"{name}{kind}" for kind in ("", SENTINEL, CLUSTER) for name in _REDIS_SCHEMES))
_PORTS = {SENTINEL: 26379, CLUSTER: 6379}
_MOST_DATABASES = 2**31
_NUMBER = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}")
_BOOLEANS = ("true", "false", "yes", "no", "1", "0")

Check = Callable[[str], str]
"""Returns a description of valid values, or "" if the value is valid."""


def _any(_: str) -> str:
    return ""


def _database(value: str) -> str:
    return "" if _is_database(value) else "a number such as 0"


def _seconds(value: str) -> str:
    return "" if _SECONDS.fullmatch(value) and float(value) > 0 else "a number of seconds above 0"


def _count(value: str) -> str:
    return "" if _NUMBER.fullmatch(value) else "a whole number, not negative"


def _boolean(value: str) -> str:
    return "" if value.lower() in _BOOLEANS else "true or false"


def _protocol(value: str) -> str:
    return "" if value in ("2", "3") else "2 or 3"


def _requirement(value: str) -> str:
    return "" if value in ("none", "optional", "required") else "none, optional or required"


def _file(value: str) -> str:
    try:
        return "" if Path(value).is_file() else "a file that exists"
    except (OSError, ValueError):  # such as a name that is too long
        return "a file that exists"


def _client_name(value: str) -> str:
    return "" if value.isascii() and value.isprintable() and " " not in value else "ASCII without spaces"


def _encoding(value: str) -> str:
    try:
        return "" if codecs.lookup(value).name == "utf-8" else "utf-8: the keys are the same for all processes"
    except LookupError:
        return "utf-8"


_ALL: dict[str, Check] = {
    "username": _any,
    "password": _any,
    "db": _database,
    "client_name": _client_name,
    "protocol": _protocol,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "health_check_interval": _count,
}
_TCP: dict[str, Check] = {**_ALL, "socket_keepalive": _boolean}
_TLS: dict[str, Check] = {
    **_TCP,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_ciphers": _any,
}
_OF_SENTINELS: dict[str, Check] = {"sentinel_username": _any, "sentinel_password": _any}
_OPTIONS: dict[str, Mapping[str, Check]] = {
    "redis": _TCP,
    "rediss": _TLS,
    "unix": _ALL,
    "redis+sentinel": {**_TCP, **_OF_SENTINELS},
    "rediss+sentinel": {**_TLS, **_OF_SENTINELS},
    "redis+cluster": {name: check for name, check in _TCP.items() if name != "db"},
    "rediss+cluster": {name: check for name, check in _TLS.items() if name != "db"},
}
"""The options of a URL, by scheme: those that text can hold and that every supported redis-py knows."""
_SECONDS_ARGUMENTS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")
_TEXT_ARGUMENTS: Mapping[str, Check] = {
    "db": _database,
    "protocol": _protocol,
    "client_name": _client_name,
    "encoding": _encoding,
    "ssl_cert_reqs": _requirement,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}
"""Arguments passed besides a URL whose wrong values would later look like an outage."""


def is_url(text: str) -> bool:
    """Whether a text has the scheme of a store's URL."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


class StoreURL(NamedTuple):
    """A checked URL.

    Attributes:
        text: the whole URL, with a normalized scheme.
        url: the URL of the single server, or of the first node, in redis-py's form.
        kind: ``SENTINEL``, ``CLUSTER``, or "" for a single server.
        nodes: host and port of each Sentinel, or of each node of the cluster.
        service: the Sentinels' name for the primary.
        sentinels: the options for connections to the Sentinels.
    """

    text: str
    url: str
    kind: str = ""
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinels: tuple[tuple[str, str], ...] = ()


def read_url(url: str) -> StoreURL:
    """Check a store's URL and split it into its parts.

    Raises:
        ValueError: the URL is invalid; the message names the part and the remedy, and quotes no value.
    """
    if not is_url(url):
        raise ValueError(
            "the store's URL must begin with redis://, rediss://, unix:// or redis+sentinel://, …+cluster://"
        )
    scheme, _, rest = url.partition("://")
    name, plus, kind = scheme.lower().partition("+")
    scheme, kind = _REDIS_SCHEMES.get(name, name), plus + kind
    url = f"{scheme}{kind}://{rest}"
    _check_characters(url)
    parts = _split(url)
    if not kind:
        if scheme == "unix":
            _check_path(parts)
        else:
            _check_host(parts)
            _check_database(parts.path)
        _check_options(parts)
        return StoreURL(url, url)
    nodes = _nodes(parts, kind)
    service, _, database = parts.path.strip("/").partition("/")
    _check_service(service, database, kind)
    _check_options(parts)
    options = dict(option.split("=", 1) for option in parts.query.split("&") if option)
    sentinels = {
        name.removeprefix("sentinel_"): unquote_plus(options.pop(name)) for name in _OF_SENTINELS if name in options
    }
    credentials = "".join(parts.netloc.rpartition("@")[:2])
    first = parts.netloc.rpartition("@")[2].partition(",")[0]
    query = "&".join(f"{name}={value}" for name, value in options.items())
    single = urlunsplit((scheme, f"{credentials}{first}", database, query, ""))
    return StoreURL(url, single, kind, nodes, unquote(service), tuple(sentinels.items()))


def check_arguments(options: Mapping[str, object]) -> None:
    """Check the options passed besides a URL that a URL could also have; redis-py checks the others.

    Raises:
        TypeError, ValueError: a value is invalid.
    """
    for name, value in options.items():
        if value is None or isinstance(value, ssl.VerifyMode):
            continue
        if name in _SECONDS_ARGUMENTS:
            if name != "health_check_interval" or value != 0:
                _arguments.positive(name, value)
        elif name in _TEXT_ARGUMENTS:
            text = os.fspath(value) if isinstance(value, os.PathLike) else value
            if not isinstance(text, str | int) or isinstance(text, bool):
                raise TypeError(f"{name} must not be {type(value).__name__}")
            if must := _TEXT_ARGUMENTS[name](str(text)):
                raise ValueError(f"{name} must be {must}")


def shown_url(url: str) -> str:
    """Return a checked URL for display: without its password, and without its query, which may contain one."""
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _check_characters(url: str) -> None:
    """Refuse characters that would end the password early, so that its rest becomes a host, a path or an option."""
    if any(not character.isprintable() or character.isspace() for character in url):
        raise ValueError("the store's URL contains whitespace or a control character; write %20 for a space")
    if "#" in url:
        raise ValueError("the store's URL contains a #, which begins a fragment; write %23 for it in a password")
    if url.count("@") > 1:
        raise ValueError("the store's URL contains more than one @; write %40 for it in a password or an option")
    authority, mark, _ = url.partition("://")[2].partition("@")
    for character, escaped in (("/", "%2F"), ("?", "%3F")):
        if mark and character in authority:
            raise ValueError(
                f"the store's URL contains a {character} before its @; write {escaped} for it in a password,"
                " and %40 for an @ elsewhere"
            )


def _split(url: str) -> SplitResult:
    scheme, _, rest = url.partition("://")
    if "+" in scheme:  # several hosts, which urlsplit would read as one
        rest, _, query = rest.partition("?")
        hosts, slash, path = rest.partition("/")
        return SplitResult(scheme, hosts, slash + path, query, "")
    try:
        return urlsplit(url)
    except ValueError:  # its message quotes the host
        raise ValueError("the store's URL has an invalid host; write an IPv6 address as [::1]") from None


def _check_path(parts: SplitResult) -> None:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise ValueError("the store's URL must name the path of a socket after three slashes: unix:///run/redis.sock")


def _check_host(parts: SplitResult) -> None:
    if not parts.hostname:
        raise ValueError("the store's URL has no host; write redis://HOST:PORT/DB")
    try:
        unquote(parts.hostname).encode("idna")
    except UnicodeError:
        raise ValueError("the store's URL has an invalid host: a label of it is empty or too long") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(
            "the store's URL has a port that is not a number from 1 to 65535, or a password with no @ after it"
        )


def _nodes(parts: SplitResult, kind: str) -> tuple[tuple[str, int], ...]:
    """Check the host and port of each node, and return them."""
    found = []
    user, mark, nodes = parts.netloc.rpartition("@")
    for node in nodes.split(","):
        one = _split(f"redis://{user}{mark}{node}")  # with the user, in redis-py's form
        _check_host(one)
        found.append((unquote(one.hostname or ""), one.port or _PORTS[kind]))
    return tuple(found)


def _check_service(service: str, database: str, kind: str) -> None:
    if kind == SENTINEL:
        if not service:
            raise ValueError(
                "the store's URL does not name the primary; write redis+sentinel://HOST:PORT,HOST:PORT/NAME/DB"
            )
        _check_database(database)
    elif database or service not in ("", "0"):
        raise ValueError(
            "the store's URL has a database, but a cluster has none; write redis+cluster://HOST:PORT,HOST:PORT"
        )


def _check_database(path: str) -> None:
    path = path.strip("/")
    if path and not _is_database(path):
        raise ValueError("the store's URL has a database that is not a number; write redis://HOST:PORT/0")


def _check_options(parts: SplitResult) -> None:
    known = _OPTIONS[parts.scheme]
    found: set[str] = set()
    for option in filter(None, parts.query.split("&")):
        name, equals, value = option.partition("=")
        if name not in known:
            shown = f" {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else ""
            raise ValueError(
                f"the store's URL has an unknown option{shown}; {parts.scheme}:// takes {', '.join(known)}"
            )
        value = unquote_plus(value)
        if not equals or not value:
            raise ValueError(f"the store's URL has the option {name} without a value; write {name}=VALUE")
        if name in found or (name == "db" and _has_database(parts)):
            raise ValueError(f"the store's URL sets {name} twice; remove one of them")
        found.add(name)
        if must := known[name](value):
            raise ValueError(f"the store's URL has an invalid {name}; it must be {must}")


def _has_database(parts: SplitResult) -> bool:
    """Whether the path names a database."""
    if parts.scheme == "unix":
        return False
    path = parts.path.strip("/")
    return "/" in path if "+" in parts.scheme else bool(path)


def _is_database(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) < _MOST_DATABASES
