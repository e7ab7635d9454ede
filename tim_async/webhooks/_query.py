"""The query of a webhook, from any framework, and the error for an invalid webhook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tim_async.errors import TIMError, is_text

Query: TypeAlias = Mapping[str, str | Sequence[str]]
"""A request's decoded query parameters: a dict, a framework's mapping, or the result of ``urllib.parse.parse_qs``."""


class WebhookError(TIMError):
    """A webhook that is not authentic, or malformed.

    Its text names the cause and is safe to log: it contains neither the token, nor the expected signature, nor any
    part of the body.
    """

    meaning = "The webhook is not authentic, or malformed."
    remedy = "Refuse it; if the service sent it, check the token and this machine's clock."


def one(query: Query, key: str) -> str | None:
    """Return the only value of a query parameter; None if absent.

    Raises:
        TypeError: the query is no mapping.
        WebhookError: there are several values, or the value is not text.
    """
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be a mapping of the decoded parameters, not {type(query).__name__}")
    if key not in query:
        return None
    # The frameworks' methods for all values of a parameter.
    read_all = getattr(query, "getall", None) or getattr(query, "getlist", None)
    value = query[key] if read_all is None else read_all(key)
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise WebhookError(f"{key} has {len(value)} values in the query, not one")
        value = value[0]
    if not isinstance(value, str) or not is_text(value):
        raise WebhookError(f"{key} in the query is not text")
    return value


def required(query: Query, key: str) -> str:
    """Return the only value of a required parameter."""
    value = one(query, key)
    if value is None:
        raise WebhookError(f"{key} is missing from the query: is webhook authentication switched on?")
    return value
