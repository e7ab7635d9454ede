"""The URLs of Redis and Valkey stores."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")
_AS_REDIS = {"valkey": "redis", "valkeys": "rediss"}


def is_url(text: str) -> bool:
    """Whether a text is meant as the URL of a store."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def redis_url(url: str) -> str:
    """A URL as redis-py takes it.

    Raises:
        ValueError: it is none of a store.
    """
    if not is_url(url):
        raise ValueError("the store's URL must begin with redis://, rediss:// or unix://")
    scheme, _, rest = url.partition("://")
    return f"{_AS_REDIS.get(scheme.lower(), scheme.lower())}://{rest}"


def shown_url(url: str) -> str:
    """A URL as it may be shown: without a password, and without a query, which may hold one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the store"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
