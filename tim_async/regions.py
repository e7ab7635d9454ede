"""The service's hosts by region, each with the vendor's backup host against DNS hijacking.

https://www.tencentcloud.com/document/product/1047/34620
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from . import _arguments

REGIONS: dict[str, tuple[str, str]] = {
    "china": ("console.tim.qq.com", "adminapi.my-imcloud.com"),
    "singapore": ("adminapisgp.im.qcloud.com", "adminapisgp.my-imcloud.com"),
    "seoul": ("adminapikr.im.qcloud.com", "adminapikr.my-imcloud.com"),
    "tokyo": ("adminapijpn.im.qcloud.com", "adminapijpn.my-imcloud.com"),
    "frankfurt": ("adminapiger.im.qcloud.com", "adminapiger.my-imcloud.com"),
    "silicon_valley": ("adminapiusa.im.qcloud.com", "adminapiusa.my-imcloud.com"),
    "jakarta": ("adminapiidn.im.qcloud.com", "adminapiidn.my-imcloud.com"),
    # Not documented by the vendor, but in use.
    "saudi_arabia": ("adminapiksa.im.qcloud.com", "adminapiksa.my-imcloud.com"),
}
"""Region name → (host, backup host)."""

ALIASES: dict[str, str] = {
    "cn": "china",
    "sgp": "singapore",
    "kr": "seoul",
    "jpn": "tokyo",
    "ger": "frankfurt",
    "usa": "silicon_valley",
    "idn": "jakarta",
    "ksa": "saudi_arabia",
}
"""Short name, as in scripts in the vendor's style → region name."""


class Hosts:
    """The base URLs of one app, the current one first.

    A host that cannot be resolved or connected to is moved behind its backup, and stays there until the backup fails,
    too: both serve the same app, so there is no reason to return earlier.
    """

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)

    @classmethod
    def of(cls, region: str | None, base_url: str | None, *, allow_http: bool = False) -> Hosts:
        """Return the hosts of a region, or the host of a base URL; exactly one of the two must be given.

        Args:
            region: a name in `REGIONS` or `ALIASES`.
            base_url: the URL of a host.
            allow_http: whether the URL may be ``http://`` although the host is not this machine.

        Raises:
            ValueError: none or both are given, the region is unknown, or the base URL is invalid or ``http://`` where
                that is not allowed.
            TypeError: the base URL is not a str, or ``allow_http`` not a bool.
        """
        _arguments.kind("allow_http", allow_http, bool)
        if (region is None) == (base_url is None):
            raise ValueError("give either region=… or base_url=…, one of the two")
        if base_url is not None:
            return cls(_checked(base_url, allow_http))
        name = str(region).strip().lower().replace(" ", "_").replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in REGIONS:
            raise ValueError(f"unknown region {region!r}; one of: {', '.join(REGIONS)}")
        return cls(*(f"https://{host}" for host in REGIONS[name]))

    @property
    def current(self) -> str:
        """The base URL to use now, without a trailing slash."""
        return self._urls[0]

    def __len__(self) -> int:
        return len(self._urls)

    def __iter__(self) -> Iterator[str]:
        return iter(self._urls)

    def after(self, failed: str) -> str:
        """Return the base URL to try after ``failed``, which is moved to the end unless another call has done that."""
        if failed == self._urls[0]:
            self._urls.append(self._urls.pop(0))
        return self._urls[0]


def _checked(base_url: str, allow_http: bool) -> str:
    _arguments.kind("base_url", base_url, str)
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # raises for an invalid port
    except ValueError:
        raise ValueError("base_url has an invalid host or port; it must look like http://127.0.0.1:8099") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("base_url must look like https://host or http://127.0.0.1:8099, without user or query")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise ValueError(
            f"base_url with http:// would send the UserSig to {parts.hostname} unencrypted; use https://, or pass"
            " allow_http=True (TIM_ALLOW_HTTP=1) for a network that you trust"
        )
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, judged by its name or address alone."""
    host = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")
