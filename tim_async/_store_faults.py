"""The meaning of a store's errors: an outage, which is transient, or a mistake in the configuration, with its remedy.

Importing this imports redis-py.
"""

from __future__ import annotations

import re
import ssl

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from .errors import printable

FAILURES = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    OSError,
    TimeoutError,
    # A parser that reads garbage raises EOFError and ValueError, a closed transport of uvloop RuntimeError.
    EOFError,
    ValueError,
    RuntimeError,
)
"""The exceptions of redis-py's clients, also of one that is connected to another kind of server."""

_NODE = "it is a node of a cluster; give a URL that begins with redis+cluster://"
NOT_REDIS = "it does not speak the protocol of Redis; check host and port"
WITH_TLS = "it speaks TLS; give a URL that begins with rediss:// or rediss+…://"
WITHOUT_TLS = "it does not speak TLS; give a URL that begins with redis:// or redis+…://"
"""Remedies."""

_STALE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,  # also MASTERDOWN: a replica without its primary
    exceptions.TryAgainError,
    exceptions.MovedError,
    exceptions.RedisClusterException,
    OSError,
    EOFError,
    RuntimeError,
)
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.MaxConnectionsError)
_RIGHTS = re.compile(r"NOPERM|ACL failure|no permissions|can't run this command|can't access at least one of the keys")


class Misconfigured(exceptions.ConnectionError):
    """A mistake in the configuration that looks to redis-py like an outage, found by asking the servers.

    Args:
        message: the mistake.
        remedy: its remedy.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def is_stale(error: BaseException) -> bool:
    """Whether a new connection may succeed: this one ended, or its server is no longer the primary."""
    if any(isinstance(each, _REFUSED) for each in _chain(error)):
        return False
    return isinstance(error, _STALE)


def is_time_out(error: BaseException) -> bool:
    """Whether an error is a time-out."""
    return isinstance(error, TimeoutError | exceptions.TimeoutError)


def is_no_reply(error: BaseException) -> bool:
    """Whether an error shows no readable reply."""
    wrapped = exceptions.RedisClusterException | MasterNotFoundError
    return is_time_out(error) or isinstance(error, wrapped) or type(error) is exceptions.ConnectionError


def is_of_the_keys(error: BaseException) -> bool:
    """Whether an error concerns an endpoint's keys, not the store."""
    return "WRONGTYPE" in str(error)


def in_words(error: BaseException) -> str:
    """Return an error as text for logs and messages, with its class."""
    text = said(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def said(error: BaseException) -> str:
    """Return an error's message without possible secrets; "" where it has none."""
    # A server that does not know a command repeats its arguments; those of AUTH include a password.
    text = str(error).partition(", with args beginning with")[0]
    if type(error).__name__ == "MasterNotFoundError":  # redis-py appends its connection to each Sentinel
        text = text.partition(" : ")[0]
    text = printable(text.strip())
    return "no answer in time" if not text and is_time_out(error) else text


def remedy(error: BaseException, *, by_name: bool) -> str:
    """Return the remedy for a mistake in the configuration; "" for an outage.

    Args:
        error: the client's exception.
        by_name: whether Sentinels or a cluster are asked for the primary; then a replica is no mistake.
    """
    for each in _chain(error):
        if found := _remedy(each, by_name):
            return found
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that redis-py wrapped in it."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


def _remedy(error: BaseException, by_name: bool) -> str:
    text = str(error)
    match error:
        case Misconfigured():
            return error.remedy
        case exceptions.NoPermissionError() | exceptions.AuthorizationError():
            return "give its user the rights listed in FLEET.md"
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            return "check the user and the password"
        case exceptions.ReadOnlyError() if not by_name:
            return "it is a replica; give the primary's URL, or redis+sentinel:// to have it found"
        case exceptions.MovedError() | exceptions.AskError() if not by_name:
            return _NODE
        case exceptions.RedisClusterException() if "Cluster mode is not enabled" in text:
            return "it is no cluster; give a URL that begins with redis:// or rediss://"
        case exceptions.InvalidResponse():
            return NOT_REDIS
        case ssl.SSLError():
            return _of_tls(error)
        case exceptions.ResponseError():
            return _of_response(text)
    return ""


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted; give ssl_ca_certs"
    return WITHOUT_TLS if re.search("WRONG_VERSION_NUMBER|RECORD_LAYER", str(error)) else ""


def _of_response(text: str) -> str:
    if _RIGHTS.search(text):
        return "give its user the rights listed in FLEET.md"
    if text.startswith(("MOVED ", "ASK ")):  # without a class in redis-py before 6
        return _NODE
    if "WRONGTYPE" in text:
        return "something else has stored the keys of this endpoint; give another namespace"
    if re.search("unknown command .?sentinel", text, re.IGNORECASE):
        return "it is no Sentinel; give the Sentinels' host and port, or a URL that begins with redis:// or rediss://"
    if "unknown command" in text.lower() or "unknown subcommand" in text.lower():
        return (
            "it is older than Redis 6.2, a Sentinel, or a proxy without scripts; give another store, redis+sentinel://"
            " for a Sentinel, or protocol=2 for HELLO"
        )
    if "invalid DB index" in text or "DB index is out of range" in text:
        return "it does not have this database; give another number"
    return ""
