"""What an error of redis-py means to a migration: an outage, which is waited for, or a wrong configuration."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import Enum, auto

from redis import exceptions

AWAY = (
    exceptions.ConnectionError,  # also LOADING, a pool without a free connection, and Sentinels without a primary
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN, and a cluster whose nodes disagree
    exceptions.RedisClusterException,
    exceptions.AskError,  # MOVED, too
    exceptions.TryAgainError,
    OSError,
)
"""Errors of a store that is away, unless `misconfiguration` explains them."""
_REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_TEXTS = {
    "acl failure in script": "grant its user the commands and keys that FLEET.md lists",
    "can't run this command": "grant its user the commands and keys that FLEET.md lists",
    "unknown command": "a migration needs Redis 6.2 or later, or Valkey, with no command renamed",
    "unknown redis command": "a migration needs Redis 6.2 or later, or Valkey, with no command renamed",
    "noproto": "set protocol=2",
    "db index is out of range": "name a database that it has",
    "select is not allowed in cluster mode": "a cluster has database 0 alone",
    "cluster mode is not enabled": "it is no cluster; give the URL or the client of a single server",
    "unexpected keyword argument": "remove the option that redis-py does not know",
}
"""Parts of the texts of other errors that no waiting cures, and the remedies."""


class Kind(Enum):
    """What is to be done about an error."""

    WAIT = auto()
    REFUSE = auto()
    OTHER = auto()


def kind_of(error: BaseException, *, cluster: bool) -> tuple[Kind, str]:
    """Classify an error; for one that no waiting cures, also say what to do, "" where its text is enough.

    Args:
        error: as the driver raised it.
        cluster: whether the client is one of a cluster, which follows MOVED by itself.
    """
    for one in _causes(error):
        text = str(one).lower()
        if isinstance(one, _REFUSED):
            return Kind.REFUSE, "check its user, its password and what the user may do"
        if isinstance(one, exceptions.AskError) and not cluster:
            return Kind.REFUSE, "it is a node of a cluster; write redis+cluster://, or give a RedisCluster"
        if isinstance(one, ssl.SSLCertVerificationError) or getattr(one, "reason", "") == "WRONG_VERSION_NUMBER":
            return Kind.REFUSE, "check the certificates, and rediss:// against redis://"
        for part, remedy in _TEXTS.items():
            if part in text:
                return Kind.REFUSE, remedy
    return (Kind.WAIT if isinstance(error, AWAY) else Kind.OTHER), ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
