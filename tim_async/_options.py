"""The checked options of a client: `ClientSettings` for its lifetime, `Options` for its calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from . import _arguments
from ._hooks import Hooks
from ._lanes import LANE, Lane
from ._limiter.sharing import Quota
from ._secret import Secret
from .regions import Hosts
from .retrying import RetryPolicy
from .usersig import check_key


@dataclass(frozen=True, slots=True)
class Options:
    """The options of calls; `TIMClient.with_options` changes them.

    Attributes:
        timeout: seconds for one attempt, the backup host included.
        retry: the retry policy for transient failures.
        max_wait: the maximum wait for permits over all attempts of one call, in seconds.
        lane: interactive or bulk; None for that of the context.
    """

    timeout: float
    retry: RetryPolicy
    max_wait: float = math.inf
    lane: Lane | None = None

    def __post_init__(self) -> None:
        _arguments.positive("timeout", self.timeout)
        _arguments.kind("retry", self.retry, RetryPolicy)
        if isinstance(self.max_wait, bool) or not isinstance(self.max_wait, int | float):
            raise TypeError(f"max_wait must be a number of seconds, not {type(self.max_wait).__name__}")
        if not self.max_wait >= 0:
            raise ValueError(f"max_wait must not be negative: {self.max_wait}")
        if self.lane is not None:
            _arguments.kind("lane", self.lane, Lane)

    def lane_now(self) -> Lane:
        """Return the lane of a call that begins now."""
        return LANE.get() if self.lane is None else self.lane


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The checked arguments of a `TIMClient`; both secrets are held as `Secret`.

    Attributes:
        sdk_app_id: the app's SDKAppID.
        key: its secret key.
        identifier: an admin of the app.
        hosts: the hosts that serve the app.
        rates: calls/s that the server allows, by command; only those that differ from the default.
        options: the options of its calls, unless `TIMClient.with_options` changes them.
        session: the caller's session; None for the client's own.
        proxy: the URL of an HTTP proxy for the client's own session, parsed.
        trust_env: whether the client's own session takes its proxy from the environment.
        quota: the quota of a fleet; None for the full rate of each endpoint.
        strict: whether to learn nothing, so that the client's own jitter never causes a refusal.
        usersig_expire: the validity of each UserSig, in seconds.
        hooks: the hooks that are notified of attempts.
    """

    sdk_app_id: int
    key: Secret
    identifier: str
    hosts: Hosts
    rates: Mapping[str, float]
    options: Options
    session: aiohttp.ClientSession | None
    proxy: Secret | None
    trust_env: bool
    quota: Quota | None
    strict: bool
    usersig_expire: int
    hooks: Hooks

    def __post_init__(self) -> None:
        _arguments.positive("sdk_app_id", _arguments.number("sdk_app_id", self.sdk_app_id))
        _arguments.text("identifier", self.identifier)
        _arguments.positive("usersig_expire", _arguments.number("usersig_expire", self.usersig_expire))
        _arguments.kind("trust_env", self.trust_env, bool)
        _arguments.kind("strict", self.strict, bool)
        if self.quota is not None and not callable(getattr(self.quota, "share", None)):
            raise TypeError(
                f"quota must be one of tim_async.quota, e.g. RedisQuota(…), not {type(self.quota).__name__}"
            )
        if self.session is not None:
            _arguments.kind("session", self.session, aiohttp.ClientSession)
            if self.proxy is not None or self.trust_env:
                raise ValueError("proxy and trust_env are for the client's own session; set them on the session given")
        # Last, so that no frame of another error's traceback holds the key.
        check_key(self.key)
