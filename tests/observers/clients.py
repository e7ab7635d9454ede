"""Clients made so that no frame or module of `run`, which observers see, has the key in a variable."""

from __future__ import annotations

from typing import Any

from tests.stand_in import APP, KEY
from tim_async import RetryPolicy, TIMClient

from .secrets import EXPIRE, IDENTIFIER

TWICE = RetryPolicy(attempts=2, wait=(0.0, 0.0), wait_rate_limited=(0.0, 0.0))


def client_of(url: str, **options: Any) -> TIMClient:
    """Make a client that tries twice, without a wait."""
    return TIMClient(
        sdk_app_id=APP,
        secret_key=KEY,
        identifier=IDENTIFIER,
        base_url=url,
        usersig_expire=EXPIRE,
        retry=TWICE,
        **options,
    )
