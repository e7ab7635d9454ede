"""The query of a webhook, whatever framework it comes from; and the error for all that is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tim_async.errors import TIMError

Query: TypeAlias = Mapping[str, str | Sequence[str]]
"""A request's query parameters, decoded: a dict, a framework's mapping, or what ``urllib.parse.parse_qs`` makes."""


class WebhookError(TIMError):
    """A webhook that is not to be believed, or cannot be read.

    Its text names the cause and is fit for logs: it holds neither the token nor the signature that would have been
    right, and nothing of the body.
    """


def check(query: Query) -> None:
    """Make sure that a caller's query is one."""
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be a mapping of the decoded parameters, not {type(query).__name__}")


def one(query: Query, key: str) -> str | None:
    """The one value of a query parameter; None when it is absent."""
    if key not in query:
        return None
    # The two ways by which the frameworks' mappings tell that a parameter was there twice.
    read_all = getattr(query, "getall", None) or getattr(query, "getlist", None)
    value = query[key] if read_all is None else read_all(key)
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise WebhookError(f"{key} is {len(value)} times in the query")
        value = value[0]
    if not isinstance(value, str) or not is_text(value):
        raise WebhookError(f"{key} in the query is not text")
    return value


def required(query: Query, key: str) -> str:
    """The one value of a parameter that must be there."""
    value = one(query, key)
    if value is None:
        raise WebhookError(f"{key} is missing from the query: is webhook authentication switched on?")
    return value


def is_text(value: str) -> bool:
    """Whether a str is free of lone surrogates, which no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
