"""redis-py's clients for the stores that are named by a URL or given by the user.

A client of the user's is neither closed nor configured here.  Importing this imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE

from ._store_faults import (
    FAILURES,
    STRANGER,
    WITH_TLS,
    WITHOUT_TLS,
    Misconfigured,
    in_words,
    is_silence,
    is_time_out,
    remedy,
    said,
)
from ._stores import CLUSTER, SENTINEL, StoreURL, check_given, read_url, redis_url, shown_url

Client = Redis | RedisCluster
"""What a store is used by; from ``Sentinel.master_for``, it is a `Redis`."""
_TO_SENTINELS = ("socket_keepalive", "protocol", "retry", "ssl")
_REFUSED = re.compile(r"Error -?\d+ connecting to")
"""An outage for sure: the name, or the port, is not there."""
_STEP = 0.5
"""Seconds for an answer of one Sentinel, before another one is asked."""
_UNVERIFIED = ("none", ssl.CERT_NONE, None)
"""Values of ``ssl_cert_reqs`` by which any certificate is taken."""


class Connected(NamedTuple):
    """A client for a store.

    Attributes:
        client: redis-py's.
        ours: whether `aclose` closes it; False for the user's.
        shown: the store as it may be shown: no password, no options.
    """

    client: Client
    ours: bool
    shown: str

    @property
    def by_name(self) -> bool:
        """Whether the primary is found by asking: Sentinels, or the nodes of a cluster."""
        if isinstance(self.client, RedisCluster):
            return True
        pool = self.client.connection_pool
        return isinstance(pool, SentinelConnectionPool) and pool.is_master

    async def explained(self, error: Exception) -> Exception:
        """Find out whether an error that looks like an outage is a mistake, for which redis-py has no other error.

        Returns:
            `Misconfigured`, or the same error.
        """
        if remedy(error, by_name=self.by_name) or _REFUSED.search(said(error)):
            return error
        if isinstance(error, MasterNotFoundError):
            pool = cast("Any", self.client).connection_pool
            if mistake := await _why_not_told(pool.sentinel_manager.sentinels, pool.service_name):
                return mistake
        if not is_silence(error):
            return error
        slow = is_time_out(error) or "Timeout" in str(error)
        asked = [_who_is_there(host, port, tls=tls) for host, port, tls in self._addresses() if tls or not slow]
        return next(filter(None, await asyncio.gather(*asked)), error)

    def _addresses(self) -> list[tuple[str, int, bool]]:
        """Host and port of the servers that are connected to first, and whether by TLS."""
        if isinstance(self.client, RedisCluster):
            connection = self.client.get_connection_kwargs()["connection_class"]
            nodes = self.client.nodes_manager.startup_nodes.values()
            return [(node.host, int(node.port), connection is SSLConnection) for node in nodes]
        pools = [self.client.connection_pool]
        if isinstance(pools[0], SentinelConnectionPool):
            pools = [sentinel.connection_pool for sentinel in pools[0].sentinel_manager.sentinels]
        return [
            (options.get("host", "localhost"), int(options.get("port", 6379)), issubclass(kind, SSLConnection))
            for kind, options in ((pool.connection_class, pool.connection_kwargs) for pool in pools)
            if "path" not in options
        ]

    async def give_up(self) -> None:
        """Close the idle connections, so that the next command connects, and finds the primary, anew.

        Commands under way on other connections are left alone.  An unreachable store raises nothing here.
        """
        with contextlib.suppress(exceptions.RedisError, OSError):
            if isinstance(self.client, RedisCluster):
                for node in self.client.get_nodes():
                    if hasattr(
                        node, "disconnect_free_connections"
                    ):  # redis-py 8; others give up what fails by themselves
                        await node.disconnect_free_connections()
                return
            pool = self.client.connection_pool
            await pool.disconnect(inuse_connections=False)
            if self.ours and isinstance(pool, SentinelConnectionPool):
                sentinels = pool.sentinel_manager.sentinels
                sentinels.append(sentinels.pop(0))  # the one asked last may be the one that does not answer
                for sentinel in sentinels:
                    await sentinel.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close the client, unless it is the user's."""
        if not self.ours:
            return
        await self.client.aclose()
        if not isinstance(self.client, RedisCluster) and isinstance(
            self.client.connection_pool, SentinelConnectionPool
        ):
            for sentinel in self.client.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()


def connect(store: str | Client, *, cluster: bool = False, **options: Any) -> Connected:
    """Find or make the client for a store; nothing is sent yet.

    Args:
        store: its URL, as in `_stores`; or a client of the user's.
        cluster: whether the URL of a single server is that of a node of a cluster.
        options: redis-py's, for the connections to a URL; those in the URL itself come first.  RESP2, which older
            servers and proxies know, too, and no retries are the defaults.

    Raises:
        ValueError: the URL is invalid, or an option; the message quotes no part of the URL.
        TypeError: the store is neither, or redis-py does not know an option or takes no such value for it.
    """
    if isinstance(store, str):
        url = read_url(store)
        check_given(options)
        tls = {name: value for name, value in {**options, **parse_url(url.url)}.items() if _is_of_tls(name)}
        if tls.get("ssl_cert_reqs", ssl.CERT_REQUIRED) in _UNVERIFIED:
            # Some versions of redis-py would verify the name of a certificate that is not to be verified, and fail.
            tls["ssl_check_hostname"] = options["ssl_check_hostname"] = False
        _check_tls(tls)
        if cluster and url.kind == SENTINEL:
            raise ValueError("cluster is for the URL of a single server, and this one names Sentinels")
        options = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **options}
        if cluster and not url.kind:
            url = url._replace(kind=CLUSTER)
        try:
            return Connected(_made(url, options), ours=True, shown=shown_url(redis_url(store)))
        except exceptions.RedisClusterException as error:  # such as a database, which a cluster has not
            raise ValueError(f"the store's URL is not one of a cluster: {error}") from None
        except exceptions.RedisError as error:  # such as a provider of credentials beside a password
            raise ValueError(f"redis-py refuses an option of the store: {error}") from None
        except AttributeError as error:  # it uses an option before it looks what that is
            raise TypeError(f"redis-py cannot use an option of the store: {error}") from None
    if not isinstance(store, (Redis, RedisCluster)):
        raise TypeError(f"the store must be a URL or a client of redis.asyncio, not {_name(store)}")
    if options or cluster:
        raise TypeError(f"{next(iter(options), 'cluster')} is for a store's URL; give it to the client that you make")
    return Connected(store, ours=False, shown=_shown(store))


class Script:
    """A Lua script.

    EVALSHA is tried first, then EVAL, which also loads it.  redis-py's ``register_script`` would load it into all nodes
    of a cluster, and so needs all of them.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, keys: list[str], *arguments: str | bytes) -> Any:
        """Run it; text in the reply is bytes, whatever the client decodes."""
        return await self.by(functools.partial(execute, client), keys, *arguments)

    async def by(self, command: Callable[..., Awaitable[Any]], keys: list[str], *arguments: str | bytes) -> Any:
        """Run it by a function that runs commands."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await command("EVALSHA", self._sha, *rest)
        except exceptions.NoScriptError:
            return await command("EVAL", self._source, *rest)


async def execute(client: Client, *command: Any) -> Any:
    """Run a command; text in the reply is bytes, whatever the client decodes."""
    try:
        return await client.execute_command(*command, **{NEVER_DECODE: True})
    except AttributeError as error:
        # After one failure, redis-py's client of a cluster closes the connections of all other commands, too.
        if isinstance(client, RedisCluster) and "NoneType" in str(error):
            raise exceptions.ConnectionError("the connection was closed meanwhile") from error
        raise


def _made(url: StoreURL, options: dict[str, Any]) -> Client:
    if not url.kind:
        return _checked(Redis.from_url(url.url, **options))
    options = {**options, **parse_url(url.url)}
    first = (options.pop("host", "localhost"), options.pop("port", 6379))
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if url.kind == CLUSTER:
        of_tls = next(filter(_is_of_tls, options), None)
        if of_tls and not options.get("ssl"):  # redis-py would connect in plain text
            raise TypeError(f"{of_tls} is for TLS; give a URL that begins with rediss")
        nodes = [ClusterNode(*node) for node in url.nodes or (first,)]
        # A shard that is away must not keep the others from being used.
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    to_sentinels = {name: value for name, value in options.items() if name in _TO_SENTINELS or name.startswith("ssl_")}
    own = {name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options}
    times = {"socket_timeout": _STEP, "socket_connect_timeout": _STEP}
    of_sentinels = {**to_sentinels, **times, **own, **dict(url.sentinels)}
    sentinel: Any = Sentinel(list(url.nodes), sentinel_kwargs=of_sentinels, **options)  # type: ignore[no-untyped-call]
    return _checked(sentinel.master_for(url.service))


async def _why_not_told(sentinels: Sequence[Redis], service: str) -> Misconfigured | None:
    """Why Sentinels do not tell the primary, if that is a mistake."""
    asked = [_address(sentinel, service) for sentinel in sentinels]
    found = await asyncio.gather(*asked, return_exceptions=True)
    if any(isinstance(address, tuple) for address in found):  # they know it, and that it is down
        return None
    for failure in found:
        if isinstance(failure, FAILURES) and (what := remedy(failure, by_name=False)):
            if isinstance(failure, exceptions.AuthenticationError):
                what = "check sentinel_username and sentinel_password"
            return Misconfigured(f"a Sentinel refuses: {in_words(failure)}", what)
    if None in found:
        return Misconfigured(f"no Sentinel that replies watches {service!r}", "check the primary's name in the URL")
    return None


async def _address(sentinel: Redis, service: str) -> Any:
    """The primary's address, of a Sentinel; None where it does not know the name."""
    async with asyncio.timeout(_STEP):
        return await sentinel.sentinel_get_master_addr_by_name(service)


async def _who_is_there(host: str, port: int, *, tls: bool) -> Misconfigured | None:
    """What is at an address, if it is not what was expected there."""
    first = await _first_byte(host, port)
    if tls:
        return Misconfigured("it answers without TLS", WITHOUT_TLS) if first in (b"+", b"-") else None
    if not first:  # a server with TLS hangs up
        return Misconfigured("it answers in TLS", WITH_TLS) if await _speaks_tls(host, port) else None
    return Misconfigured("it answers something else", STRANGER) if first not in (b"+", b"-") else None


async def _first_byte(host: str, port: int) -> bytes:
    """The first byte of what a server answers to PING, without TLS; b"" where it says nothing."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_STEP):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(1)
            finally:
                writer.close()
    return b""


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()  # trusts anybody: nothing is told to the server
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_STEP):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.transport.abort()  # at once: a goodbye of TLS takes a round trip
        return True
    return False


def _is_of_tls(option: str) -> bool:
    return option.startswith("ssl_")


def _check_tls(options: Mapping[str, Any]) -> None:
    """Have wrong options be an error now: those that make no context for TLS would look like an outage."""
    if options:
        try:
            SSLConnection(**options).ssl_context.get()
        except (OSError, ValueError, exceptions.RedisError) as error:
            raise ValueError(f"{', '.join(options)} make no TLS: {error}") from None


def _checked(client: Redis) -> Redis:
    """Have an unknown option be a TypeError now, not with the first command."""
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # it connects with its first command
    return client


def _shown(client: Client) -> str:
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        return f"redis+cluster://{','.join(f'{node.host}:{node.port}' for node in nodes)}"
    pool = client.connection_pool
    options = pool.connection_kwargs
    database = options.get("db") or 0
    if isinstance(pool, SentinelConnectionPool):
        return f"redis{SENTINEL}:///{pool.service_name}/{database}"
    if "path" in options:
        return f"unix://{options['path']}"
    return f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{database}"


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
