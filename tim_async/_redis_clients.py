"""redis-py's clients for stores: made from a URL, or given by the user.

A user's client is neither closed nor configured here.  Importing this module imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    NOT_REDIS,
    WITH_TLS,
    WITHOUT_TLS,
    Misconfigured,
    in_words,
    is_no_reply,
    is_time_out,
    remedy,
    said,
)
from ._stores import CLUSTER, SENTINEL, StoreURL, check_arguments, read_url, shown_url

Client = Redis | RedisCluster
"""A client for a store; that of ``Sentinel.master_for`` is a `Redis`."""
_SENTINEL_OPTIONS = ("socket_keepalive", "protocol", "retry", "ssl")
"""The options for the primary that also apply to Sentinels, besides those of TLS."""
_UNREACHABLE = re.compile(r"Error -?\d+ connecting to")
"""Matches errors that are certainly an outage: the name does not exist, or the port is closed."""
_STEP = 0.5
"""The time-out in seconds of one question to a Sentinel or an unknown server."""
_UNVERIFIED = ("none", ssl.CERT_NONE, None)
"""The values of ``ssl_cert_reqs`` with which any certificate is accepted."""


class Connected(NamedTuple):
    """A client for a store.

    Attributes:
        client: redis-py's client.
        ours: whether `aclose` closes it; False for the user's client.
        shown: the store's name for logs and messages, without password and options.
    """

    client: Client
    ours: bool
    shown: str

    @property
    def by_name(self) -> bool:
        """Whether Sentinels, or the nodes of a cluster, are asked for the primary."""
        if isinstance(self.client, RedisCluster):
            return True
        pool = self.client.connection_pool
        return isinstance(pool, SentinelConnectionPool) and pool.is_master

    async def explained(self, error: Exception) -> Exception:
        """Find out whether an error that looks like an outage is a mistake in the configuration.

        redis-py raises the same errors for both, so the servers are asked.

        Returns:
            `Misconfigured`, or the same error.
        """
        if remedy(error, by_name=self.by_name) or _UNREACHABLE.search(said(error)):
            return error
        if isinstance(error, MasterNotFoundError):
            pool = cast("Any", self.client).connection_pool
            if mistake := await _sentinel_mistake(pool.sentinel_manager.sentinels, pool.service_name):
                return mistake
        if not is_no_reply(error):
            return error
        slow = is_time_out(error) or "Timeout" in str(error)
        found = [_server_mistake(host, port, tls=tls) for host, port, tls in self._addresses() if tls or not slow]
        return next(filter(None, await asyncio.gather(*found)), error)

    def _addresses(self) -> list[tuple[str, int, bool]]:
        """Return host and port of the servers that the client connects to first, and whether it uses TLS."""
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

    async def execute_at(self, key: str, *command: Any) -> Any:
        """Run a command on the server that holds a key; text in the reply is bytes, but INFO is a dict."""
        if not isinstance(self.client, RedisCluster):
            return await execute(self.client, *command)
        node = self.client.get_node_from_key(key)
        return await execute(self.client, *command, target_nodes=node)

    async def give_up(self) -> None:
        """Close the idle connections, so that the next command finds the primary and connects again.

        Commands in progress on other connections continue.  An unreachable store raises nothing here.
        """
        with contextlib.suppress(exceptions.RedisError, OSError):
            if isinstance(self.client, RedisCluster):
                for node in self.client.get_nodes():
                    # redis-py 8; earlier versions close failed connections themselves.
                    if hasattr(node, "disconnect_free_connections"):
                        await node.disconnect_free_connections()
                return
            pool = self.client.connection_pool
            await pool.disconnect(inuse_connections=False)
            if self.ours and isinstance(pool, SentinelConnectionPool):
                sentinels = pool.sentinel_manager.sentinels
                sentinels.append(sentinels.pop(0))  # the one asked last may be unresponsive
                for sentinel in sentinels:
                    await sentinel.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close the client; a user's client stays open."""
        if not self.ours:
            return
        await self.client.aclose()
        if not isinstance(self.client, RedisCluster) and isinstance(
            self.client.connection_pool, SentinelConnectionPool
        ):
            for sentinel in self.client.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()


def connect(store: str | Client, *, cluster: bool = False, **options: Any) -> Connected:
    """Return a client for a store; nothing is sent yet.

    Args:
        store: the store's URL, as in `_stores`, or a user's client.
        cluster: whether the server of a single-server URL is a node of a cluster.
        options: redis-py's options for the connections of a URL; those in the URL take precedence.  The defaults are
            no retries and RESP2, which older servers and proxies also support.

    Raises:
        ValueError: the URL or an option is invalid; the message quotes no part of the URL.
        TypeError: the store is neither a URL nor a client, or redis-py does not know an option or refuses its type.
    """
    if isinstance(store, str):
        url = read_url(store)
        check_arguments(options)
        tls = {name: value for name, value in {**options, **parse_url(url.url)}.items() if _is_tls_option(name)}
        if tls.get("ssl_cert_reqs", ssl.CERT_REQUIRED) in _UNVERIFIED:
            # Some versions of redis-py would verify the name in a certificate that is not verified, and fail.
            tls["ssl_check_hostname"] = options["ssl_check_hostname"] = False
        _check_tls(tls)
        if cluster and url.kind == SENTINEL:
            raise ValueError("cluster is for the URL of a single server, but this one names Sentinels")
        options = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **options}
        if cluster and not url.kind:
            url = url._replace(kind=CLUSTER)
        try:
            return Connected(_make(url, options), ours=True, shown=shown_url(url.text))
        except exceptions.RedisClusterException as error:  # such as a database, which a cluster does not have
            raise ValueError(f"the store's URL is not one of a cluster: {error}") from None
        except exceptions.RedisError as error:  # such as a credential provider besides a password
            raise ValueError(f"redis-py refuses an option of the store: {error}") from None
        except AttributeError as error:  # it uses some options without checking their types
            raise TypeError(f"redis-py cannot use an option of the store: {error}") from None
    if not isinstance(store, (Redis, RedisCluster)):
        raise TypeError(f"the store must be a URL or a client of redis.asyncio, not {_name(store)}")
    if options or cluster:
        raise TypeError(f"{next(iter(options), 'cluster')} is for a store's URL; give it to the client that you make")
    return Connected(store, ours=False, shown=_shown(store))


class Script:
    """A Lua script.

    EVALSHA is tried first, then EVAL, which also loads the script.  redis-py's ``register_script`` would load it into
    all nodes of a cluster, and so fails without one of them.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, execute: Callable[..., Awaitable[Any]], keys: list[str], argument: str | bytes) -> Any:
        """Run the script with a function that executes a command."""
        rest = (len(keys), *keys, argument)
        try:
            return await execute("EVALSHA", self._sha, *rest)
        except exceptions.NoScriptError:
            return await execute("EVAL", self._source, *rest)


async def execute(client: Client, *command: Any, **options: Any) -> Any:
    """Run a command with redis-py's options; text in the reply is bytes, even if the client decodes replies."""
    try:
        return await client.execute_command(*command, **{NEVER_DECODE: True, **options})
    except AttributeError as error:
        # After a failure, redis-py's cluster client also closes the connections of all other commands.
        if isinstance(client, RedisCluster) and "NoneType" in str(error):
            raise exceptions.ConnectionError("the connection was closed meanwhile") from error
        raise


def _make(url: StoreURL, options: dict[str, Any]) -> Client:
    if not url.kind:
        return _checked(Redis.from_url(url.url, **options))
    options = {**options, **parse_url(url.url)}
    first = (options.pop("host", "localhost"), options.pop("port", 6379))
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if url.kind == CLUSTER:
        tls = next(filter(_is_tls_option, options), None)
        if tls and not options.get("ssl"):  # redis-py would connect in plain text
            raise TypeError(f"{tls} is for TLS; give a URL that begins with rediss")
        nodes = [ClusterNode(*node) for node in url.nodes or (first,)]
        # The other shards must stay usable when one is down.
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    own = {name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options}
    sentinel_options = {
        **{name: value for name, value in options.items() if name in _SENTINEL_OPTIONS or _is_tls_option(name)},
        "socket_timeout": _STEP,
        "socket_connect_timeout": _STEP,
        **own,
        **dict(url.sentinels),
    }
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        list(url.nodes), sentinel_kwargs=sentinel_options, **options
    )
    return _checked(sentinel.master_for(url.service))


async def _sentinel_mistake(sentinels: Sequence[Redis], service: str) -> Misconfigured | None:
    """Find the mistake because of which Sentinels do not return the primary; None if there is none."""
    found = await asyncio.gather(*(_address(sentinel, service) for sentinel in sentinels), return_exceptions=True)
    if any(isinstance(address, tuple) for address in found):  # they know the primary, and that it is down
        return None
    for failure in found:
        if isinstance(failure, FAILURES) and (found_remedy := remedy(failure, by_name=False)):
            if isinstance(failure, exceptions.AuthenticationError):
                found_remedy = "check sentinel_username and sentinel_password"
            return Misconfigured(f"a Sentinel refuses: {in_words(failure)}", found_remedy)
    if None in found:
        return Misconfigured(f"no Sentinel that replies monitors {service!r}", "check the primary's name in the URL")
    return None


async def _address(sentinel: Redis, service: str) -> Any:
    """Ask a Sentinel for the primary's address; None if it does not know the name."""
    async with asyncio.timeout(_STEP):
        return await sentinel.sentinel_get_master_addr_by_name(service)


async def _server_mistake(host: str, port: int, *, tls: bool) -> Misconfigured | None:
    """Find out whether the server at an address is of another kind than expected; None if not."""
    first = await _first_byte(host, port)
    if tls:
        return Misconfigured("it answers without TLS", WITHOUT_TLS) if first in (b"+", b"-") else None
    if not first:  # a server with TLS closes the connection
        return Misconfigured("it answers in TLS", WITH_TLS) if await _speaks_tls(host, port) else None
    return Misconfigured("it does not answer like Redis", NOT_REDIS) if first not in (b"+", b"-") else None


async def _first_byte(host: str, port: int) -> bytes:
    """Send PING without TLS; returns the first byte of the answer, b"" without one."""
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
    context = ssl.create_default_context()  # without verification: nothing is sent to the server
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_STEP):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.transport.abort()  # not close(): TLS takes a round trip for that
        return True
    return False


def _is_tls_option(option: str) -> bool:
    return option.startswith("ssl_")


def _check_tls(options: Mapping[str, Any]) -> None:
    """Raise ValueError if options make no TLS context: later, that would look like an outage."""
    if options:
        try:
            SSLConnection(**options).ssl_context.get()
        except (OSError, ValueError, exceptions.RedisError) as error:
            raise ValueError(f"{', '.join(options)} make no TLS: {error}") from None


def _checked(client: Redis) -> Redis:
    """Raise TypeError for an unknown option, which redis-py does only at the first command; returns the client."""
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # not connected before its first command
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
